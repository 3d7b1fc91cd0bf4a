"""Sample K components: the whole network K + 1 times per step, in calls or a batch, or one batch of distinct rows.

python benchmarks/speed/looped_sampling.py [--threads 2] [--repeats 15] [-n 4] [--steps 10] [-o runs/benchmarks]
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from benchmarks.common import measure
from benchmarks.common.measure import LOOPED, OURS, OneStage, Ways, looped_row
from energycomp import Composer, Model, load
from energycomp.components import Condition
from energycomp.sampling import make_scheduler, sample

PEER, ONE_STAGE = ", Composable Diffusion", ", one stage"
CASES = (
    "K = 1", "K = 1, one call", "K = 3", "K = 5", "K = 8",
    *(f"K = {k}{PEER}{end}" for end in ("", ONE_STAGE) for k in (3, 5, 8)),
)  # fmt: skip
COMMAND = "python benchmarks/speed/looped_sampling.py"


def make_ways(model: Model, case: str, *, n: int, steps: int, seed: int) -> Ways:
    """Both ways to n samples (n, C, H, W) of K components at random places, from the same noise.

    "K = 1, one call" is the peer that knows that one component of weight 1 needs no unconditional call. Composable
    Diffusion (Liu et al., 2022) runs u and all components of a step as one batch, each row through the whole network.
    "One stage" takes the shared trunk from ours, too.
    """
    count, denoiser = int(case.split(",", maxsplit=1)[0].removeprefix("K = ")), model.denoiser
    places = torch.rand(count, *model.conditioner.value_shape, generator=torch.Generator().manual_seed(seed))
    conditions = [model.conditioner(place[None]) for place in places]
    kind, mine = denoiser.prediction_type, model
    if case.endswith(ONE_STAGE):
        mine = attrs.evolve(model, denoiser=attrs.evolve(denoiser, network=OneStage(denoiser.network)))

    def predict(x: Tensor, t: Tensor, _: str) -> Tensor:
        if case.endswith("one call"):
            return looped_row(denoiser.network, x, t, conditions[0])
        if PEER in case:
            every = Condition.cat([one.expand(n) for one in (denoiser.unconditional.condition, *conditions)])
            base, *parts = OneStage(denoiser.network)(x.repeat(count + 1, 1, 1, 1), t.repeat(count + 1), every).split(n)
            return base + sum(part - base for part in parts)
        total = base = looped_row(denoiser.network, x, t, denoiser.unconditional.condition)
        for condition in conditions:
            total = total + (looped_row(denoiser.network, x, t, condition) - base)
        return total

    def looped() -> Tensor:
        ddim = make_scheduler("DDIMScheduler", denoiser.alphas_cumprod, prediction_type=kind, value_range=(-1.0, 1.0))
        generator = torch.Generator().manual_seed(seed)
        shape = (n, *denoiser.sample_shape)
        return sample(predict, shape, ddim, num_inference_steps=steps, generator=generator, progress=False)

    def ours() -> Any:
        return Composer([mine.leaf(place[None]) for place in places]).sample(
            n,
            generator=torch.Generator().manual_seed(seed),
            scheduler="DDIMScheduler",
            num_inference_steps=steps,
            output_type="latent",
            progress=False,
        )

    return {LOOPED: torch.no_grad()(looped), OURS: torch.no_grad()(ours)}


def main() -> None:
    """Writes looped_sampling.md and .png."""
    cases = (list(CASES), "all by default", CASES)
    options = measure.speed_options(__doc__, repeats=15, n=(4, "samples"), steps=10, cases=cases).parse_args()
    torch.set_num_threads(options.threads)
    model, network = measure.timed(load(options.model))

    def ways_of(case: str) -> Ways:
        return make_ways(model, case, n=options.n, steps=options.steps, seed=options.seed)

    def exact(_: str, looped: Tensor, ours: Tensor) -> dict[str, Any]:
        return {"gap": float((looped - ours).abs().max())}

    records, limit = measure.run(__file__, options, options.cases, ways_of, network, exact)
    note = (
        f"`{COMMAND}`: {options.n} samples of {options.steps} DDIM steps, {measure.how(options, limit)} The samples of "
        f"both ways differ by at most {max(record['gap'] for record in records):.1g}."
    )
    text = measure.table(measure.HEAD, measure.way_rows(records, limit), note)
    title = f"{options.n} samples, {options.steps} steps"
    measure.write(options.out / "looped_sampling", text, measure.bars(records, title))


if __name__ == "__main__":
    main()
