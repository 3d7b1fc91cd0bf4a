"""Skills of models of prompts: their own compositions of concepts, read by a model of the same concepts."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import Composition, compound_prompt
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.inference import infer
from energycomp.models import Model
from energycomp.sampling import Composer
from energycomp.seeds import derived_seed
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_lab.evaluation import Example, Generated
from energycomp_samplers import sample_best
from energycomp_scenes.artists import Drawn, choose_skills
from energycomp_solvers.enumerate import Enumerate

PROMPTED = ("one", "two", "compound", "binding", "negation", "several")  # skills
DRAWS = 64  # that read a sample


@attrs.frozen
class Wanted:
    """Concepts that a picture should show, one that it should not, and what is drawn for that."""

    skill: str
    names: tuple[str, ...]
    composition: Composition
    denied: str | None = None


@attrs.frozen
class Prompter:
    """Draws prompts that it composes; a model of the same concepts judges zero-shot, as a diffusion classifier.

        one         A                              compound   "A and B" as one prompt, for the pairs of `two`
        two         A & B                          several    2 to 4 concepts
        binding     two that share no word         negation   "A and B" & ~B

    A picture is right where, of all sets of so many concepts, the one that was asked for explains it best; with a
    denied concept, where the best one or two have A and not B. An object that mixes two concepts counts as both.
    """

    model: Model
    judge: Model
    tries: int = 1
    options: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def name(self) -> str:
        return f"prompts, at most {self.tries} samples, read by {self.judge.name}"

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        names = choose_skills(spec, PROMPTED)
        prompts: Any = self.model.conditioner
        if len(prompts.concepts) < 2:
            raise InputError(
                f"got a model of the concepts {', '.join(prompts.concepts) or 'none'}; expected two or more, to be "
                "composed; add --option concepts=cat,dog"
            )
        known: Any = self.judge.conditioner
        if missing := [name for name in prompts.concepts if name not in known.concepts]:
            raise InputError(
                f"got the judge {self.judge.name}, which does not know {missing[0]}; expected a model of all concepts"
            )

        def example(index: int) -> Example:
            skill = names[index % len(names)]
            number = index // len(names)
            asked = self.asked(skill, number, seed)
            return Example(torch.zeros(3, 8, 8), name=f"{skill} {number}: {asked.names}", conditions=[asked])

        return Generated(count, example)

    def asked(self, skill: str, number: int, seed: int) -> Wanted:
        """What the prompt of a number asks for."""
        prompts: Any = self.model.conditioner
        known = prompts.concepts
        drawn_as = "two" if skill == "compound" else skill
        random = torch.Generator().manual_seed(derived_seed(HELD_OUT + seed, drawn_as, number))
        order = [known[k] for k in torch.randperm(len(known), generator=random)]
        sizes = {"one": 1, "several": min(2 + number % 3, len(known))}
        size = sizes.get(skill, 2)
        names = tuple(order[:size])
        if skill == "binding":
            apart = [name for name in order[1:] if not {*name.split()} & {*order[0].split()}]
            names = (order[0], (apart or order[1:])[0])
        scale = self.model.defaults.guidance_scale
        parts = [scale * self.model.leaf(prompts.parse(concept=name)) for name in names]
        if skill in ("compound", "negation"):
            caption = compound_prompt(prompts.template, names)
            both = scale * self.model.leaf(prompts.parse(caption))
            if skill == "compound":
                return Wanted(skill, names, both & self.model.unconditional)
            return Wanted(skill, names[:1], both & ~parts[1], names[1])
        one = parts[0] & self.model.unconditional if len(parts) == 1 else reduce(operator.and_, parts)
        return Wanted(skill, names, one)

    def drawn(self, asked: Wanted, generator: torch.Generator) -> Drawn:
        how: dict[str, Any] = {"generator": generator, "output_type": "pt", "progress": False, **self.options}
        if asked.denied is None and self.tries > 1:
            best = sample_best(asked.composition, best_of=self.tries, until_complete=True, model=self.model, **how)
            return Drawn(best.images[0], len(best.ranking.order), best.rows)
        with count_rows() as counted:
            image = Composer(asked.composition).sample(**how)[0]
        return Drawn(image, 1, counted.rows)

    def right(self, asked: Wanted, image: Tensor) -> tuple[bool, Any]:
        known: Any = self.judge.conditioner
        count = len(asked.names) if asked.denied is None else (1, 2)
        solver = Enumerate(draws=DRAWS, fresh_draws=1)
        solution = infer(image, self.judge, solver=solver, count=count, progress=False)
        read = sorted(known.describe(value)["concept"] for value in solution.conditions)
        if asked.denied is not None:
            return asked.names[0] in read and asked.denied not in read, read
        return read == sorted(asked.names), read
