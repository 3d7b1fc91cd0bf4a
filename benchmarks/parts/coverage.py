"""How often credible sets of posteriors with a prior, as `infer` computes them, contain the truth.

python benchmarks/parts/coverage.py [-n 400] [--draws 16] [--seed 0]

Truths are drawn from a prior, and images are their patterns plus normal noise, so that the likelihood is known and the
inverse temperature beta has a closed form. Two kinds: sets of 0 to 3 of 8 labels under a prior of labels, pairs and
counts, and points of a lattice under a normal prior. A credible set of level q has the most probable answers of total
posterior q, the last of them with the probability that makes it q. Prints one JSON line for each kind: the shares of n
truths in the sets of each level with 95 % intervals of Wilson, and how many answers sets of level 0.9 have on average;
then the same of the posterior in closed form, and of that with equal probabilities in place of the prior.
For the first images the probability that `infer` reports is compared with that of the posterior.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import attrs
import torch
from scipy.stats import binomtest
from torch import Tensor

from benchmarks.common.options import parser
from energycomp import infer
from energycomp.components import Conditioner, Latents, log_snr
from energycomp.images import to_unit
from energycomp.inference import Prior, each, make_problem, pairwise
from energycomp.models import Model
from energycomp.testing import Labels, planted
from energycomp.testing.models import ClosedForm, built
from energycomp_solvers.enumerate import Enumerate

LEVELS = (0.5, 0.8, 0.9, 0.95)
NOISE, AMPLITUDE, GAMMA = 0.1, 0.005, 1.0  # of images; of the pixels of a pattern; the clamp of the loss weight
WAYS = ("prior", "closed form", "closed form, equal")
SIZED = 0.9  # the level of the sets whose answers are counted
CHECKED = 5  # images whose probability of `infer` is compared


@attrs.frozen(eq=False)
class Kind:
    """Answers, each of K values of the atoms (M, *V), with their prior."""

    model: Model
    atoms: Tensor
    answers: list[Tensor]  # (N_K, K) for each count K
    prior: Prior

    @property
    def given(self) -> Any:
        """What `make_problem` and `infer` restrict the search to."""
        counts = {answers.shape[1] for answers in self.answers}
        listed = None if self.model.conditioner.value_shape == () else self.atoms
        return {"candidates": listed, "count": (min(counts), max(counts))}

    def energies(self) -> Tensor:
        """Of the prior, of all answers."""
        return torch.cat([self.prior.energy(self.atoms[answers]) for answers in self.answers])


def patterned(conditioner: Conditioner, tokens: int, draws: int, generator: torch.Generator) -> Model:
    """Images that are a background, a pattern for each component, and noise."""
    patterns = AMPLITUDE * torch.randn(tokens, 3, 16, 16, generator=generator)

    def pattern(token: Tensor) -> Tensor:
        return torch.einsum("rd,dchw->rchw", token, patterns.to(token))

    network = ClosedForm(pattern, "sample", spread=NOISE)
    defaults = {"timesteps": (200, 700), "gamma": GAMMA, "draws": draws, "counts": (0, 3), "distinct": True}
    model = built(network, conditioner, "product", "sample", defaults, name="patterned")
    # The error of x0 is (1 - g) |x - mu| beside noise, with the gain g of the posterior mean of x0.
    snr = log_snr(model.denoiser.alphas_cumprod, torch.arange(200.0, 700.0)).exp()
    gain = NOISE**2 * snr / (NOISE**2 * snr + 1)
    slope = float((snr.clamp(max=GAMMA) * (1 - gain) ** 2).mean())
    return attrs.evolve(model, defaults=attrs.evolve(model.defaults, beta=1 / (2 * NOISE**2 * slope)))


def of_labels(draws: int, generator: torch.Generator) -> Kind:
    """Sets of 0 to 3 of 8 labels: some labels are rare, neighbours attract each other, and three are likely."""
    rare = torch.rand(8, generator=generator) * 2
    prior = each(lambda v: rare[v.long()]) + pairwise(lambda a, b: -1.5 * ((a - b).abs() == 1).float())
    answers = [torch.tensor([*combinations(range(8), k)], dtype=torch.long).view(math.comb(8, k), k) for k in range(4)]
    model = patterned(Labels(8), 8, draws, generator)
    return Kind(model, torch.arange(8), answers, prior + {0: 0.1, 1: 0.2, 2: 0.2, 3: 0.5})


def of_points(draws: int, generator: torch.Generator) -> Kind:
    """Points of a lattice of 15 x 15, under N((0.5, 0.5), 0.6^2)."""
    line = torch.linspace(-1.6, 2.6, 15)
    atoms = torch.cartesian_prod(line, line)
    model = patterned(Latents(2), 2, draws, generator)
    prior = each(torch.distributions.Normal(0.5, 0.6))
    return Kind(model, atoms, [torch.arange(len(atoms))[:, None]], prior)


def posterior(kind: Kind, image: Tensor, seed: int) -> Tensor:
    """Of all answers, as `Enumerate` computes it from a fixed number of draws, the model's."""
    problem = make_problem(image, kind.model, prior=kind.prior, **kind.given)
    form = problem.quadratic(kind.atoms, problem.draw(problem.default_draws, seed)).mean()
    errors = [form.with_prior(form.errors_of_each(answers)[0], answers) for answers in kind.answers]
    return (-(problem.posterior.beta or 1.0) * problem.posterior.energies(torch.cat(errors)).double()).softmax(0)


def measured(name: str, kind: Kind, n: int, seed: int) -> dict[str, Any]:
    """The line of a kind."""
    generator = torch.Generator().manual_seed(seed)
    energies = kind.energies().double()
    flat = [answer for answers in kind.answers for answer in answers]
    means = torch.cat([planted(kind.model, kind.atoms[answer]) for answer in flat])
    masses: dict[str, list[float]] = {way: [] for way in WAYS}
    sizes: dict[str, list[int]] = {way: [] for way in WAYS}
    for k in range(n):
        true = int(torch.multinomial((-energies).softmax(0), 1, generator=generator))
        image = means[true : true + 1]
        image = image + NOISE * torch.randn(image.shape, generator=generator)
        share = float(torch.rand((), generator=generator))
        likely = -(image - means).double().square().flatten(1).sum(1) / (2 * NOISE**2)
        ways = posterior(kind, image, seed=k), (likely - energies).softmax(0), likely.softmax(0)
        if k < CHECKED:
            check(kind, image, ways[0], flat, seed=k)
        for way, found in zip(WAYS, ways, strict=True):
            masses[way].append(float(found[found > found[true]].sum() + share * found[true]))
            sizes[way].append(1 + int((found.sort(descending=True).values.cumsum(0) < SIZED).sum()))
    line: dict[str, Any] = {"kind": name, "n": n, "answers": len(flat), "draws": kind.model.defaults.draws}
    for way, mass in masses.items():
        line[way] = {str(level): covered(mass, level) for level in LEVELS}
        line[way]["answers"] = round(sum(sizes[way]) / n, 1)
    return line


def check(kind: Kind, image: Tensor, found: Tensor, flat: Sequence[Tensor], seed: int) -> None:
    """The probability of each component that `infer` reports is that of all answers with its value."""
    options = {"prior": kind.prior, "solver": Enumerate(p_value=None), "generator": seed, "progress": False}
    solution = infer(to_unit(image[0]), kind.model, **options, **kind.given)
    for value, reported in zip(solution.conditions, solution.probability, strict=True):
        place = next(place for place, atom in enumerate(kind.atoms) if torch.equal(atom, value))
        has = torch.tensor([bool((answer == place).any()) for answer in flat])
        torch.testing.assert_close(found[has].sum().float(), reported.float(), atol=1e-3, rtol=1e-3)


def covered(masses: Sequence[float], level: float) -> list[float]:
    """The share of masses up to a level, and its interval."""
    inside = sum(mass <= level for mass in masses)
    interval = binomtest(inside, len(masses)).proportion_ci(method="wilson")
    return [round(number, 3) for number in (inside / len(masses), interval.low, interval.high)]


KINDS: dict[str, Callable[[int, torch.Generator], Kind]] = {"labels": of_labels, "points": of_points}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each kind."""
    given = {"n": (400, "images of each kind"), "draws": (16, "noise draws of a reading"), "seed": 0}
    options = parser(__doc__, **given).parse_args(arguments)
    for name, make in KINDS.items():
        kind = make(options.draws, torch.Generator().manual_seed(options.seed))
        print(json.dumps(measured(name, kind, options.n, options.seed)), flush=True)


if __name__ == "__main__":
    main()
