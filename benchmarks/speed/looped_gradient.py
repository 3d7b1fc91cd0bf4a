"""A gradient step from R initialisations: one network call per component, or one batch.

python benchmarks/speed/looped_gradient.py [--threads 2] [--repeats 5] [--inits 10] [-o runs/benchmarks]
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import measure
from benchmarks.common.measure import LOOPED, OURS, Timed, Ways, looped_row
from energycomp import Model, load
from energycomp.inference import make_problem, residual_errors

CASES = ("K = 3, 1 draw", "K = 5, 1 draw", "K = 3, 2 draws", "K = 5, 2 draws")
COMMAND = "python benchmarks/speed/looped_gradient.py"


def make_ways(model: Model, network: Timed, case: str, *, inits: int, seed: int) -> Ways:
    """Both ways to the gradients (R, K, *V) of the mean error in the places, on the same noise draws.

    The looped way runs each initialisation alone and each component of it through the whole network, trunk included,
    with the graph on; all draws of a step are one batch, and only the places are differentiated. The backward pass
    counts as time in the network.
    """
    count, draws = map(int, re.findall(r"\d+", case))
    denoiser, generator = model.denoiser, torch.Generator().manual_seed(seed)
    observation = torch.rand(1, *denoiser.sample_shape, generator=generator) * 2 - 1
    problem = make_problem(observation, model, count=count)
    drawn = problem.draw(draws, generator)
    values = torch.rand(inits, count, *model.conditioner.value_shape, generator=generator)
    u = denoiser.unconditional.condition

    def looped() -> Tensor:
        noised = drawn.noised(observation, denoiser.alphas_cumprod)
        gradients = []
        for start in values:
            places = start.clone().requires_grad_()
            total = base = looped_row(network, noised, drawn.timestep, u)
            for place in places:
                total = total + (looped_row(network, noised, drawn.timestep, model.conditioner(place[None])) - base)
            error = residual_errors(denoiser, observation, drawn, total[None]).mean()
            gradients.append(network.spend(torch.autograd.grad, error, places)[0])
        return torch.stack(gradients)

    def ours() -> Tensor:
        bank = drawn[:]  # a bank that the problem has not seen, as in every step
        places = values.clone().requires_grad_()
        error = problem.errors(places, bank).mean(1).sum()
        return network.spend(torch.autograd.grad, error, places)[0]

    return {LOOPED: looped, OURS: ours}


def main() -> None:
    """Writes looped_gradient.md and .png."""
    options = measure.speed_options(__doc__, inits=(10, "R")).parse_args()
    torch.set_num_threads(options.threads)
    model, network = measure.timed(load(options.model))

    def ways_of(case: str) -> Ways:
        return make_ways(model, network, case, inits=options.inits, seed=options.seed)

    def exact(_: str, looped: Tensor, ours: Tensor) -> dict[str, Any]:
        return {"gap": float((looped - ours).abs().max() / looped.abs().max())}

    records, limit = measure.run(__file__, options, CASES, ways_of, network, exact)
    what = f"one gradient step from {options.inits} initialisations"
    gap = max(record["gap"] for record in records)
    note = f"`{COMMAND}`: {what}, {measure.how(options, limit)} "
    note += f"The gradients differ by at most {gap:.1g} of the largest."
    text = measure.table(measure.HEAD, measure.way_rows(records, limit), note)
    measure.write(options.out / "looped_gradient", text, measure.bars(records, what))


if __name__ == "__main__":
    main()
