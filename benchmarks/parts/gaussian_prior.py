"""A Gaussian prior on a model whose posterior is known in closed form: what each solver finds, and what it costs.

python benchmarks/parts/gaussian_prior.py [-n 20] [--seed 0] [--beta 0.5]

Images are z_1 p_1 + z_2 p_2 for fixed patterns p: the denoising error is (z - true).A (z - true) with
A = p.p where the SNR is above 1. With a prior N(m, L^-1) the posterior is a Gaussian with the mean
(2 beta A + L)^-1 (2 beta A true + L m). Prints one JSON line: deviations of each solver from that mean over n images
and priors, the distance from the true values to it, and NFE without and with the prior.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from benchmarks.common.options import parser
from energycomp.components import Latents
from energycomp.inference import make_problem
from energycomp.models import Model
from energycomp.testing import planted
from energycomp.testing.models import ClosedForm, built
from energycomp_solvers.pursuit import Pursuit
from energycomp_solvers.sgd import SGD

SOLVERS = {
    "pursuit": Pursuit(side=24, steps=3),
    "sgd": SGD(steps=300, start="random", inits=4, learning_rate=0.1),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line."""
    options = parser(__doc__, n=(20, "images and priors"), seed=0, beta=0.5).parse_args(arguments)
    generator = torch.Generator().manual_seed(options.seed)
    model, metric = linear_model(options.beta, generator)
    deviations: dict[str, list[float]] = {name: [] for name in SOLVERS}
    rows: dict[str, list[list[int]]] = {name: [] for name in SOLVERS}
    moved = []
    for k in range(options.n):
        true, mean, root = (torch.randn(*shape, generator=generator) for shape in ((2,), (2,), (2, 2)))
        precision = 10 * options.beta * (root @ root.T + torch.eye(2))
        likelihood = 2 * options.beta * metric
        expected = torch.linalg.solve(likelihood + precision, likelihood @ true + precision @ mean)
        moved.append(float((expected - true).norm()))
        prior = MultivariateNormal(mean, precision_matrix=precision)
        for name, solver in SOLVERS.items():
            found = [
                solver.solve(make_problem(planted(model, true[None]), model, prior=given), generator=k)
                for given in (None, prior)
            ]
            deviations[name].append(float((found[1].conditions[0] - expected).norm()))
            rows[name].append([one.rows for one in found])
    result: dict[str, Any] = {
        name: {
            "mean_deviation": sum(deviations[name]) / options.n,
            "largest_deviation": max(deviations[name]),
            "nfe_without_and_with": torch.tensor(rows[name]).double().mean(0).tolist(),
        }
        for name in SOLVERS
    }
    print(json.dumps({**result, "moved_by": sum(moved) / options.n, "images": options.n, "seed": options.seed}))


def linear_model(beta: float, generator: torch.Generator) -> tuple[Model, Tensor]:
    """The model, and A (2, 2)."""
    patterns = 0.1 * torch.randn(2, 3, 16, 16, generator=generator)
    network = ClosedForm(lambda token: torch.einsum("rd,dchw->rchw", token, patterns.to(token)), "sample")
    defaults = {"timesteps": (100, 400), "gamma": 1.0, "draws": 8, "counts": (1, 1), "beta": beta}
    model = built(network, Latents(2), "product", "sample", defaults, name="linear")
    flat = patterns.flatten(1)
    return model, flat @ flat.T


if __name__ == "__main__":
    main()
