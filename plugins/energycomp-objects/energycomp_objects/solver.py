"""Reads a photo: the trunk proposes objects, and the quadratic form over their windows chooses among them.

Notation: variable -> symbol
    z           log-odds of an object: of a proposal, and of its gain, by the weights of a logistic regression
    gain        J(answer without it) - J(answer with it)
    flips       answers with one object more or fewer

The odds of an object depend on which others are in the answer: of two proposals for one cell, each explains what the
other leaves, so that the second has no gain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import attrs
import torch
from torch import Tensor
from torch.nn import functional as F

from energycomp.errors import InputError
from energycomp.fields import number, whole
from energycomp.inference import Alternative, Problem, QuadraticForm, Solution, paired
from energycomp.inference.noise import draw_bank
from energycomp.seeds import as_generator
from energycomp_objects.counts import answer_posterior, count_posterior, interval
from energycomp_objects.network import TYPICAL, PlacedUNet

Trace = dict[str, list[float]]
OTHERS = 5  # answers that are kept beside the best one


@attrs.frozen(eq=False)
class Proposals:
    """Objects that a trunk proposes, the likeliest first.

    Args:
        values: (M, V).
        logits: (M,) that there is an object.
        words: (M, n) for each attribute, shares of its words.
    """

    values: Tensor
    logits: Tensor
    words: tuple[Tensor, ...]

    def count(
        self, probability: Tensor, names: Sequence[str], counts: tuple[int, int] | None = None, *, spread: float = 0.0
    ) -> dict[str, tuple[int, int, int]]:
        """For each word of the first attribute, or all objects, the likeliest number, and a 90 % interval of it."""
        shares = self.words[0] if names else torch.ones(len(probability), 1)
        found = {}
        for name, share in zip(names or ("object",), shares.T, strict=True):
            posterior = count_posterior(probability.tolist(), share.tolist(), counts, spread=spread)
            found[name] = (int(posterior.argmax()), *interval(posterior))
        return found

    def trace(self, probability: Tensor, gain: Sequence[float], length: int, *, spread: float = 0.0) -> Trace:
        """What `Solution.trace` has of all proposals; a value begins with so many numbers."""
        codes = self.values[:, length:].T.tolist()
        return {
            "proposed": probability.tolist(),
            "spread": [spread],
            "logit": self.logits.tolist(),
            "gain": list(gain),
            **dict(zip(("x", "y", "width", "height")[:length], self.values.T.tolist(), strict=False)),
            **{f"words {k}": code for k, code in enumerate(codes)},
            **{f"sure {k}": each.amax(1).tolist() for k, each in enumerate(self.words)},
        }


@attrs.frozen
class Propose:
    """Objects proposed by the trunk of a `PlacedUNet`, chosen by the error that they leave together.

    Args:
        views: draws of little noise that propose.
        timesteps: their least and greatest timestep.
        least: score below which a proposal is none.
        draws: that choose among them; the problem's default.
        rounds: most passes of flips over all proposals.

    `Solution.trace` has the probability of each proposal, `"proposed"`, and its likeliest words from 1, by attribute:
    `energycomp_objects.counts` makes intervals of counts of them.
    """

    needs: ClassVar[str] = "continuous"
    reads_only: ClassVar[str] = "models of `energycomp train objects`"

    views: int = attrs.field(default=4, validator=whole(1))
    timesteps: tuple[float, float] = (0.0, 120.0)
    least: float = attrs.field(default=0.05, validator=number(most=1))
    draws: int | None = attrs.field(default=None, validator=attrs.validators.optional(whole(2)))
    rounds: int = attrs.field(default=4, validator=whole(1))

    def solve(self, problem: Problem, *, generator: int | torch.Generator | None = None) -> Solution:
        """Costs a row for each proposal and draw, and the trunks of all draws."""
        network = problem.denoiser.network
        if not isinstance(network, PlacedUNet) or problem.mixed is None:
            raise InputError(f"got a model whose network proposes no objects; expected {self.reads_only}")
        generator = as_generator(generator)
        with torch.no_grad():
            proposals = self.propose(problem, network, generator)
            bank = problem.draw(self.draws or problem.default_draws, generator)
            windows = problem.in_windows(proposals.values, bank)
            assert windows is not None  # noqa: S101 - a PlacedUNet has windows
            form = attrs.evolve(windows.quadratic(), weighting=problem.weighting)
        # Choose: begin with the likely ones, and flip while the odds of one are against its place
        low, high = problem.counts
        chosen = [k for k in range(len(form)) if proposals.logits[k] > 0][:high]
        for _ in range(self.rounds):
            before = list(chosen)
            for k in range(len(form)):
                rest = [c for c in chosen if c != k]
                odds = self._odds(network, proposals, form, rest, k)
                room = low if k in chosen else len(rest) + 1
                if odds > 0 and room <= high:
                    chosen = [*rest, k]
                elif odds <= 0 and len(rest) >= low:
                    chosen = rest
            if sorted(before) == sorted(chosen):
                break
        # A count that is given is reached, as far as there are proposals
        while len(chosen) < min(low, len(form)):
            others = [k for k in range(len(form)) if k not in chosen]
            chosen.append(max(others, key=lambda k: self._odds(network, proposals, form, chosen, k)))
        chosen.sort()
        solution = self._describe(problem, network, proposals, form, chosen)
        return attrs.evolve(solution, form=windows.take(chosen))

    def propose(self, problem: Problem, network: PlacedUNet, generator: torch.Generator | None) -> Proposals:
        """Local maxima of the score, averaged over draws of little noise. Costs a trunk for each of these."""
        denoiser = problem.denoiser
        bank = draw_bank(
            self.views, denoiser.sample_shape, denoiser.alphas_cumprod, timesteps=self.timesteps, generator=generator
        )
        maps = network.propose(problem.trunk(bank).features or ())
        score = maps["score"].mean(0)
        h, w = score.shape
        # Peaks: cells whose score none beside them exceeds
        is_peak = (F.max_pool2d(score[None, None], 3, 1, 1)[0, 0] == score) & (score.sigmoid() >= self.least)
        y, x = is_peak.nonzero(as_tuple=True)
        order = score[y, x].argsort(descending=True)[: 3 * problem.counts[1] + 10]
        y, x = y[order], x[order]
        grid = score.new_tensor([w, h])
        centre = torch.stack([x, y], dim=1) + 0.5 + maps["offset"].mean(0)[:, y, x].T
        numbers = [(centre / grid).clamp(0, 1)]
        support = problem.mixed
        assert support is not None  # noqa: S101 - `solve` has checked it
        if network.box:
            size = maps["size"].mean(0)[:, y, x].T.exp() * TYPICAL / grid
            numbers.append(size.clamp(1e-3, 1))
        shares = [each.softmax(1).mean(0)[:, y, x].T for each in maps["words"].split(support.words, dim=1)]
        codes = torch.stack([1 + each.argmax(1) for each in shares], dim=1) if shares else x.new_zeros(len(x), 0)
        values = support.joined(torch.cat(numbers, dim=1), codes)
        return Proposals(values, score[y, x], tuple(shares))

    def _odds(self, network: PlacedUNet, proposals: Proposals, form: QuadraticForm, rest: list[int], k: int) -> float:
        """The log-odds z of a proposal beside the rest of an answer."""
        gain = form.mean_objective(rest) - form.mean_objective([*rest, k])
        return network.log_odds(float(proposals.logits[k]), gain)

    def _describe(
        self, problem: Problem, network: PlacedUNet, proposals: Proposals, form: QuadraticForm, chosen: list[int]
    ) -> Solution:
        """The answer with the probability of each object, and the flips of least odds as other answers."""
        every = range(len(form))
        without = [[c for c in chosen if c != k] for k in every]
        gain = [form.mean_objective(without[k]) - form.mean_objective([*without[k], k]) for k in every]
        odds = [network.log_odds(float(logit), each) for logit, each in zip(proposals.logits, gain, strict=True)]
        errors = form.errors(chosen)
        low, high = problem.counts
        flips = [
            (abs(odds[k]), without[k] if k in chosen else [*chosen, k])
            for k in every
            if (len(chosen) > low if k in chosen else len(chosen) < high)
        ]
        flips = sorted(flips)[:OTHERS]
        log_odds = torch.tensor(odds)
        probability = log_odds.sigmoid()
        is_chosen = torch.tensor([k in chosen for k in every], dtype=torch.bool)
        words_right = math.prod(float(each[chosen].amax(1).prod()) for each in proposals.words)
        difference = stderr = p_value = None
        if flips:
            difference, stderr, p_value = paired(form.objective(chosen), form.objective(flips[0][1]))
        names = next(iter(getattr(problem.conditioner, "attributes", {}).values()), ())
        return Solution(
            conditions=proposals.values[chosen],
            count=len(chosen),
            error=float(errors.mean()),
            stderr=float(errors.std() / len(errors) ** 0.5),
            rows=problem.rows,
            runner_up=proposals.values[flips[0][1]] if flips else None,
            difference=difference,
            difference_stderr=stderr,
            p_value=p_value,
            trace=proposals.trace(probability, gain, problem.value_shape[0], spread=network.spread),
            counts=proposals.count(probability, names, problem.counts, spread=network.spread),
            component_gain=torch.tensor(gain)[chosen],
            probability=probability[chosen],
            posteriors=tuple(each[chosen] for each in proposals.words) if problem.asks_attributes else None,
            answer_posterior=words_right * answer_posterior(log_odds, is_chosen, problem.counts, spread=network.spread),
            alternatives=tuple(Alternative(proposals.values[other], behind) for behind, other in flips),
        )
