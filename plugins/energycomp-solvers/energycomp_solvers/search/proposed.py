"""A start from proposals of a network that has seen such images: the energy chooses among them.

1. Pursue. Matching pursuit among the proposals, on the selection draws: what lowers the error is taken.
2. Read. Each word of each component is compared with all others, as after a search on the lattice.
3. Settle. A component needs no update, and its words no further draws, where energy and proposal together are certain
   of them, at about its place.
4. Miss. What the network missed leaves a residual that is the same under all draws. The search looks there alone.

What the network invents lowers no error, or is not missed. So answers are those of the energy, only sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import attrs
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from energycomp.inference import AttributeErrors, Posterior, QuadraticForm, read_attributes
from energycomp.models.proposals import Proposals
from energycomp_solvers.search.attributes import settle
from energycomp_solvers.search.hypothesis import Hypothesis, SearchSpace, split_parts
from energycomp_solvers.search.residual import left_of
from energycomp_solvers.search.subsets import greedy, swap


@attrs.frozen(eq=False)
class Start:
    """A hypothesis of proposals, and which of its components are certain.

    Args:
        updated: values that need no update.
        settled: values whose words need no further draws.
        rest: proposals that it does not take, (M, V).
        errors: after each component that was added.
    """

    hypothesis: Hypothesis
    updated: list[Tensor]
    settled: list[Tensor]
    rest: Tensor
    errors: list[float]


def begin(space: SearchSpace, proposals: Proposals, draws: int, generator: torch.Generator | None) -> Start | None:
    """The components that the energy takes of proposals, with their words; None where these are too few, or move far.

    Costs 8 rows for each likely proposal, and about 45 for each component that is taken.
    """
    # Pursue: what lowers the error, of what is likely
    is_likely = proposals.probability >= space.options.likely
    values = proposals.values[is_likely]
    if not len(values):
        return None
    form = space.quadratic(values)
    added, errors = greedy(form, space.problem.counts)
    chosen = _drop_small(space, form, swap(form, added))
    if len(chosen) < max(1, space.problem.counts[0]):
        return None
    rest = values[[k for k in range(len(values)) if k not in chosen]]
    hypothesis = Hypothesis(space, values[chosen], split_parts(form.take(chosen)))
    certainty = torch.ones(len(chosen), dtype=torch.float64)
    agrees = torch.ones(len(chosen), dtype=torch.bool)

    # Read: each word beside all others
    if space.attributes is not None:
        words = [torch.zeros(len(chosen), n, dtype=torch.float64) for n in space.attributes.words]
        known = AttributeErrors(hypothesis.values, tuple(words), torch.zeros(len(chosen), dtype=torch.float64))
        known = read_attributes(
            space.problem, hypothesis.values, draws=draws, sweeps=1, known=known, generator=generator
        )
        proposed = [each[is_likely][chosen] for each in proposals.words]
        certainty = find_certainty(space.problem.posterior, known, proposed)
        agrees = (known.values == hypothesis.values).all(1).cpu()
        hypothesis = attrs.evolve(settle(hypothesis, known.values), known=known)

    # Move: one that wants to be elsewhere was no good proposal
    before = hypothesis.values
    hypothesis = hypothesis.move(hypothesis.components)
    if any(map(partial(space.is_elsewhere, reach=0.9 * space.options.reach), before, hypothesis.values)):
        return None
    settled = certainty >= space.options.certain[0]
    return Start(hypothesis, list(hypothesis.values[settled | agrees]), list(hypothesis.values[settled]), rest, errors)


def _drop_small(space: SearchSpace, form: QuadraticForm, chosen: list[int]) -> list[int]:
    """The chosen atoms but those that are worth less than their penalty, the least one first."""
    posterior = space.problem.posterior
    while posterior.beta is not None and len(chosen) > space.problem.counts[0]:
        error = form.mean_objective(chosen)
        fewer = [[c for c in chosen if c != k] for k in chosen]
        least = min(fewer, key=form.mean_objective)
        if posterior.gap(error, form.mean_objective(least) - error) >= space.options.penalty:
            break
        chosen = least
    return chosen


def find_certainty(posterior: Posterior, known: AttributeErrors, proposed: Sequence[Tensor]) -> Tensor:
    """The least posterior of the words of each component, (K,), with what was proposed, (K, n) each, as their prior.

    0 without an inverse temperature.
    """
    certainty = torch.ones(len(known.values), dtype=torch.float64)
    if posterior.beta is None:
        return 0 * certainty
    for errors, prior in zip(known.errors, proposed, strict=True):
        shares = torch.softmax(prior.to(errors) - posterior.nats(errors), dim=1)
        own = errors.argmin(1, keepdim=True)
        certainty = torch.minimum(certainty, shares.gather(1, own)[:, 0].cpu())
    return certainty


def find_missing(hypothesis: Hypothesis) -> Tensor | None:
    """The place (2,) around which an answer leaves most under all draws alike; None where it is less than a component.

    The mean over draws is what the components do not explain; chance differs from draw to draw.
    """
    space = hypothesis.space
    posterior = space.problem.posterior
    shape = tuple(space.problem.observation.shape[2:])
    left = left_of(hypothesis.whole)
    alike = left.mean(0).square().unflatten(0, (space.channels, *shape)).sum(0)
    # The window in which it is greatest, and what it would gain to explain it, in nats
    side = max(1, round(space.options.window * min(shape)))
    windows = avg_pool2d(alike[None], side, stride=1, padding=side // 2, count_include_pad=True)[0] * side**2
    most = float(windows.max())
    error = float(left.square().sum(1).mean())
    is_small = posterior.gap(error - most, most) < space.options.unexplained
    if posterior.beta is None:
        is_small = most < space.options.goes_on_share * error
    if is_small:
        return None
    row, column = divmod(int(windows.argmax()), windows.shape[1])
    place = torch.tensor([(column + 0.5) / windows.shape[1], (row + 0.5) / windows.shape[0]])
    return place.to(hypothesis.values)
