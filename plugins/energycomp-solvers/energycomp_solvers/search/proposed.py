"""A start from proposals of a network that has seen such images: the energy chooses among them.

1. Pursue. Matching pursuit among the proposals, on the selection draws: what lowers the error is taken.
2. Read. Each word of each component is compared with all others, as after a search on the lattice.
3. Settle. A component is as good as updated where energy and proposal agree on all its words. The search updates the
   others alone, and looks for places on the lattice only where the answer leaves more than its components explain.

What the network invents lowers no error, or is not missed by the validation draws; what it misses leaves a residual.
"""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from energycomp.inference import AttributeErrors, read_attributes
from energycomp.models.proposals import Proposals
from energycomp_solvers.search.attributes import settle
from energycomp_solvers.search.hypothesis import Hypothesis, SearchSpace, split_parts
from energycomp_solvers.search.residual import component_scores, left_of
from energycomp_solvers.search.subsets import greedy, swap

WINDOW = 8  # residuals are compared in windows of a side of 1/8 of the sample, as in `energycomp.models.log_errors`


@attrs.frozen(eq=False)
class Start:
    """A hypothesis of proposals, its values that need no update, and the proposals that it does not take, (M, D).

    Args:
        errors: after each component that was added.
    """

    hypothesis: Hypothesis
    settled: list[Tensor]
    rest: Tensor
    errors: list[float]


def begin(space: SearchSpace, proposals: Proposals, draws: int, generator: torch.Generator | None) -> Start | None:
    """The components that the energy takes of proposals, with their words; None where it takes none.

    Costs 8 rows for each likely proposal, and about 20 for each component that is taken.
    """
    problem = space.problem
    # Pursue: what lowers the error, of what is likely
    values = proposals.values[proposals.probability >= space.options.likely]
    if not len(values):
        return None
    form = space.quadratic(values)
    added, errors = greedy(form, problem.counts)
    chosen = swap(form, added)
    rest = values[[k for k in range(len(values)) if k not in chosen]]
    if not chosen:
        return None
    hypothesis = Hypothesis(space, values[chosen], split_parts(form.take(chosen)))
    if space.attributes is None:
        return Start(hypothesis, list(hypothesis.values), rest, errors)

    # Read: each word beside all others
    words = [torch.zeros(len(chosen), n, dtype=torch.float64) for n in space.attributes.words]
    known = AttributeErrors(hypothesis.values, tuple(words), torch.zeros(len(chosen), dtype=torch.float64))
    known = read_attributes(problem, hypothesis.values, draws=draws, sweeps=1, known=known, generator=generator)
    # Settle: components whose words are those of the proposals
    agrees = (known.values == hypothesis.values).all(1)
    hypothesis = attrs.evolve(settle(hypothesis, known.values), known=known)
    hypothesis = hypothesis.move(hypothesis.components)
    return Start(hypothesis, list(hypothesis.values[agrees]), rest, errors)


def leaves_more(hypothesis: Hypothesis) -> bool:
    """Whether an answer leaves far more in some window of a sample than around its components; True without any."""
    if not len(hypothesis):
        return True
    space = hypothesis.space
    shape = space.problem.observation.shape[1:]
    usual = component_scores(hypothesis.whole, space.channels).median()
    left = left_of(hypothesis.whole).square().mean(0).unflatten(0, tuple(shape)).sum(0)
    if left.ndim != 2:
        return True
    side = max(1, min(left.shape) // WINDOW)
    most = avg_pool2d(left[None], side, stride=1).max()
    return bool(most > space.options.unexplained * usual)
