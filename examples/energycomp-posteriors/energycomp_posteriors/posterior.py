"""Posteriors of many observations from the network of one, beside the methods of sbi. Prints the table of the README.

With the prior N(0, I) as u, leaf_1 & ... & leaf_n = sum_i leaf_i - (n - 1) u is the posterior of all observations.
"""

import argparse
import math
from functools import reduce
from importlib import import_module
from importlib.util import find_spec
from operator import and_
from pathlib import Path
from typing import Any

import torch
from energycomp import Composer, Composition
from energycomp.sampling import SamplingReport
from energycomp_samplers.gauss import Gauss
from energycomp_samplers.mala import MALA, annealed_mala
from energycomp_samplers.smc import SMC
from torch import Tensor
from torch.distributions import Independent, Normal

from energycomp_posteriors.exact import Exact
from energycomp_posteriors.sbi_networks import Posterior
from energycomp_posteriors.tasks import TASKS, Task, reference

FAR = 6.0  # deviations, beyond which a sample is a stray
DIRECTIONS = 64
METHODS = ("fnpe", "gauss", "auto_gauss", "jac_gauss")
SAMPLERS: dict[str, dict[str, Any]] = {
    "ddim": {"scheduler": "DDIMScheduler"},
    "smc": {"sampler": SMC()},
    "smc, moves": {"sampler": SMC(moves=MALA(moves=1, nodes=2))},
    "smc, six moves": {"sampler": SMC(moves=MALA(moves=6, nodes=2))},
    "mala": {"sampler": annealed_mala(moves=2, nodes=2)},
    "second order": {"sampler": Gauss(last="draw")},
    "second order, no jumps": {"sampler": Gauss(last="draw", jumps=0)},
    "second order, jacobian": {"sampler": Gauss(last="draw", covariance="jacobian")},
    "second order, moves": {"sampler": Gauss(last="draw", moves=MALA(moves=1, nodes=2))},
    "second order, jacobian, moves": {
        "sampler": Gauss(last="draw", covariance="jacobian", moves=MALA(moves=1, nodes=2))
    },
    "smc, second order": {"sampler": SMC(proposal="gauss")},
    "smc, jacobian": {"sampler": SMC(proposal="jacobian")},
}


def posterior(estimator: Any, dimensions: int, observed: Tensor) -> Composition:
    """The posterior of observations (n, M) under the prior N(0, I); n + 1 evaluations a sample and step, one for n = 1."""
    composed = Posterior.of(estimator, Independent(Normal(torch.zeros(dimensions), 1.0), 1))
    return Composition.of(reduce(and_, [composed(x) for x in observed]))


def untrained(task: Task) -> Any:
    """A `VPScoreEstimator` of sbi, scaled to simulations."""
    from sbi.neural_nets import posterior_score_nn

    z = task.prior.sample((10_000,))
    return posterior_score_nn(sde_type="vp", beta_max=20.0)(z, task.simulate(z))


def train(task: Task, steps: int = 5_000) -> Any:
    """A `VPScoreEstimator` of sbi, trained on fresh simulations: minutes on one core."""
    network = untrained(task)
    average = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn())
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        z = task.prior.sample((256,))
        optimizer.zero_grad()
        network.loss(z, task.simulate(z)).mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(network)
    return average.module.eval()


def kept(path: Path, task: Task, steps: int) -> Any:
    """The network that a file keeps, or one that is trained and kept there."""
    if path.exists():
        network = untrained(task)
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval()
    network = train(task, steps)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return network


@torch.no_grad()
def samples(
    way: str, network: Any, task: Task, observed: Tensor, n: int, steps: int, swarm: int = 0
) -> tuple[Tensor, str]:
    """Samples (n, D) by a method of sbi, or by a sampler, from a swarm, and its least effective sample size."""
    if way in SAMPLERS:
        options = {"num_inference_steps": steps, "output_type": "pt", "progress": False, **SAMPLERS[way]}
        reports, whole = list[SamplingReport](), posterior(network, task.dimensions, observed)
        seed = int(torch.randint(2**31, ()))
        x = Composer(whole).sample(max(n, swarm), generator=seed, report=reports.append, **options)
        return x[torch.randperm(len(x))[:n]], f" ({min(reports[0].ess):.2f})" if reports[0].ess else ""
    from sbi.inference.posteriors.vector_field_posterior import VectorFieldPosterior

    options = {"iid_method": way, "steps": steps, "reject_outside_prior": False, "show_progress_bars": False}
    if way == "auto_gauss":
        options["iid_params"] = {"precision_est_budget": 500}  # samples of each single posterior, 5,000 by default
    x = VectorFieldPosterior(network, task.prior).sample((n,), observed, **options)
    return x.nan_to_num(0.0, 0.0, 0.0), ""


def measure_strays(x: Tensor, exact: Tensor) -> tuple[float, float]:
    """The sliced 2-Wasserstein distance of samples (n, D) of one size, and the share of x beyond six deviations.

    Both are in deviations of the exact samples.
    """
    middle, deviation = exact.mean(0), exact.std(0)
    x, exact = (x - middle) / deviation, (exact - middle) / deviation
    directions = torch.randn(x.shape[1], DIRECTIONS, generator=torch.Generator().manual_seed(0))
    directions = directions / directions.norm(dim=0)
    apart = (x @ directions).sort(0).values - (exact @ directions).sort(0).values
    return float(apart.square().mean().sqrt()), float((x.abs() > FAR).any(1).double().mean())


def main() -> None:
    """Trains a network for each task, and prints a markdown row for each task, number of observations, and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="*", default=[*TASKS])
    parser.add_argument("--observations", type=int, nargs="*", default=[1, 8, 14, 30])
    parser.add_argument("--ways", nargs="*", default=[*METHODS, *SAMPLERS])
    for name, default in {"draws": 300, "steps": 100, "seeds": 3, "swarm": 300}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--training", type=int, default=5_000, help="steps; 0 takes exact scores")
    parser.add_argument("--networks", type=Path, default=Path("runs/posteriors"), help="folder that keeps the networks")
    options = parser.parse_args()
    # A classifier of sbi; without it the distances are printed alone
    c2st: Any = import_module("sbi.utils.metrics").c2st if find_spec("sbi") else None
    for name in options.tasks:
        torch.manual_seed(0)
        task = TASKS[name]()
        path = options.networks / f"{name}-{options.training}.pt"
        network = kept(path, task, options.training) if options.training else Exact(task)
        for count in options.observations:
            found: dict[str, list[float]] = {way: [] for way in options.ways}
            for seed in range(options.seeds):
                torch.manual_seed(1000 + seed)
                observed = task.simulate(task.prior.sample((1,)).expand(count, -1))
                exact = reference(task, observed, options.draws)
                for way in options.ways:
                    torch.manual_seed(2000 + seed)  # a way does not depend on those before it
                    x, ess = samples(way, network, task, observed, options.draws, options.steps, options.swarm)
                    found[way].append(float(c2st(exact, x)) if c2st else math.nan)
                    far, share = measure_strays(x, exact)
                    figures = f"C2ST {found[way][-1]:.3f}, sliced W2 {far:.3f}, strays {share:.4f}"
                    print(f"{name} {count} {seed} {way}: {figures}{ess}", flush=True)
            cells = [f"{sum(one) / len(one):.3f} ({min(one):.3f}-{max(one):.3f})" for one in found.values()]
            print(f"| {name} | {count} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
