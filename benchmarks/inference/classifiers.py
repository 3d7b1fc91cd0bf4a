"""Zero-shot classifiers with one prompt per prediction, the baselines of thesis section 5.4.3, Tables 5.3 and 5.5."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

import attrs
import torch
from torch import Tensor

from energycomp.components import Condition, compound_prompt
from energycomp.errors import InputError
from energycomp.inference import NoiseBank, quadratic_form
from energycomp.models import Model
from energycomp_text.text import Text

EMPHASIS = 1.1**2  # the weight of two plus signs in Compel
CHUNK = 512  # rows per batch


@attrs.frozen
class Guess:
    """A set of concepts and the number of network evaluations (rows) spent."""

    concepts: tuple[str, ...]
    rows: int


def compound(model: Model, observation: Tensor, bank: NoiseBank, count: int) -> Guess:
    """Diffusion Classifier (Li et al., 2023): the set whose joint prompt has the least error.

    Costs one network evaluation per set and draw. `observation` is one encoded image (1, C, H, W), `count` is K.
    """
    conditioner = _text(model, count)
    sets = list(combinations(conditioner.concepts, count))
    prompts = [compound_prompt(conditioner.template, names) for names in sets]
    condition = conditioner(torch.cat([conditioner.parse(prompt) for prompt in prompts]).to(model.denoiser.device))
    errors = single_errors(model, observation, bank, condition)
    return Guess(sets[int(errors.argmin())], len(sets) * len(bank))


def individual(model: Model, observation: Tensor, bank: NoiseBank, count: int) -> Guess:
    """The variant of Diffusion Classifier (thesis 5.6.5): the K concepts whose own prompts have the least errors.

    Costs one network evaluation per concept and draw.
    """
    conditioner = _text(model, count)
    condition = conditioner(conditioner.enumerate_support().to(model.denoiser.device))
    return _least(conditioner.concepts, single_errors(model, observation, bank, condition), len(bank), count)


def weighted(model: Model, observation: Tensor, bank: NoiseBank, count: int, *, weight: float = EMPHASIS) -> Guess:
    """Prompt weighting (thesis Table 5.5): a prompt of all concepts, each emphasised in turn; selects the K best.

    Costs one network evaluation per concept and draw.
    """
    conditioner = _text(model, count)
    prompt = compound_prompt(conditioner.template, conditioner.concepts)
    condition = Condition.cat([weigh_words(conditioner, prompt, {name: weight}) for name in conditioner.concepts])
    return _least(conditioner.concepts, single_errors(model, observation, bank, condition), len(bank), count)


def weigh_words(text: Text, prompt: str, weights: Mapping[str, float]) -> Condition:
    """One row of a prompt in which some words, or phrases, weigh more, as Compel's `cat++` does (1.1 a plus sign).

    A word's states are moved away from those of the empty prompt: h_0 + w (h - h_0).
    """
    device = next(text.encoder.parameters()).device
    ids = text.tokenizer(prompt).to(device)
    nothing = text.tokenizer("").to(device)
    scale = torch.ones(len(ids), device=device)
    for phrase, weight in weights.items():
        start, stop = _place(text, prompt, phrase)
        scale[start:stop] = weight
    with torch.no_grad():
        states, empty = text.states(torch.stack([ids, nothing]))
        moved = empty + scale.to(states)[:, None] * (states - empty)
        return Condition(text.pool(moved[None], text.tokenizer.mask(ids[None])))


def _place(text: Text, prompt: str, phrase: str) -> tuple[int, int]:
    """Where the ids of a phrase begin and end: before and with it, texts agree with the prompt."""
    found = re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", prompt) if phrase.strip() else None
    if found is None:
        raise InputError(f"got a weight for {phrase!r}; expected words of {prompt!r}")
    whole = text.tokenizer(prompt)
    empty = text.tokenizer("")
    parts = (prompt[: found.start()].rstrip(), prompt[: found.end()])
    start, stop = (_agreement(whole, text.tokenizer(part)) for part in parts)
    # The ids that end a text, which the empty one has too, are of no word.
    ends = int(text.tokenizer.mask(empty[None]).sum()) - _agreement(whole, empty)
    return start, min(stop, int(text.tokenizer.mask(whole[None]).sum()) - ends)


def _agreement(whole: Tensor, part: Tensor) -> int:
    """How many of the first ids two texts have in common."""
    differ = (whole != part).nonzero()
    return int(differ[0]) if len(differ) else len(whole)


@torch.no_grad()
def single_errors(model: Model, observation: Tensor, bank: NoiseBank, condition: Condition) -> Tensor:
    """Mean denoising errors (M,) of M single conditions. Costs one network evaluation per condition and draw."""
    alone = attrs.evolve(model.denoiser, rule="mean")
    condition = condition.to(model.denoiser.device)
    at_once = max(1, CHUNK // len(condition))
    total = torch.zeros(len(condition), dtype=torch.float64)
    for start in range(0, len(bank), at_once):
        form = quadratic_form(alone, observation, bank[start : start + at_once], condition)
        total += form.errors_with_each([]).sum(0).cpu()
    return total / len(bank)


def _least(concepts: Sequence[str], errors: Tensor, draws: int, count: int) -> Guess:
    chosen = errors.topk(count, largest=False).indices.tolist()
    return Guess(tuple(concepts[index] for index in sorted(chosen)), len(concepts) * draws)


def _text(model: Model, count: int) -> Text:
    conditioner = model.conditioner
    if not isinstance(conditioner, Text):
        raise InputError(f"got a model conditioned on {type(conditioner).__name__}; expected one on text")
    if not 1 <= count <= len(conditioner.concepts):
        raise InputError(f"got {count} of {len(conditioner.concepts)} concepts; expected at least 1 and not more")
    return conditioner
