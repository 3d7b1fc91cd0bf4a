"""Sample K components: K + 1 calls of the whole network per step, or one batch of distinct rows.

python benchmarks/speed/looped_sampling.py [--threads 2] [--repeats 15] [-n 4] [--steps 10] [-o runs/benchmarks]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.common import measure
from benchmarks.common.measure import LOOPED, OURS, Ways, looped_row
from energycomp import Composer, Model, load
from energycomp.sampling import make_scheduler, sample

CASES = ("K = 1", "K = 1, one call", "K = 3", "K = 5", "K = 8")
COMMAND = "python benchmarks/speed/looped_sampling.py"


def make_ways(model: Model, case: str, *, n: int, steps: int, seed: int) -> Ways:
    """Both ways to n samples (n, C, H, W) of K components at random places, from the same noise.

    "K = 1, one call" is the peer that knows that one component of weight 1 needs no unconditional call.
    """
    count, denoiser = int(case.split(",", maxsplit=1)[0].removeprefix("K = ")), model.denoiser
    places = torch.rand(count, *model.conditioner.value_shape, generator=torch.Generator().manual_seed(seed))
    conditions = [model.conditioner(place[None]) for place in places]
    kind = denoiser.prediction_type

    def predict(x: Tensor, t: Tensor, _: str) -> Tensor:
        if case.endswith("one call"):
            return looped_row(denoiser.network, x, t, conditions[0])
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
        return Composer([model.leaf(place[None]) for place in places]).sample(
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
    options = measure.speed_options(__doc__, repeats=15, n=(4, "samples"), steps=10).parse_args()
    torch.set_num_threads(options.threads)
    model, network = measure.timed(load(options.model))

    def ways_of(case: str) -> Ways:
        return make_ways(model, case, n=options.n, steps=options.steps, seed=options.seed)

    def exact(_: str, looped: Tensor, ours: Tensor) -> dict[str, Any]:
        return {"gap": float((looped - ours).abs().max())}

    records, limit = measure.run(__file__, options, CASES, ways_of, network, exact)
    note = (
        f"`{COMMAND}`: {options.n} samples of {options.steps} DDIM steps, {measure.how(options, limit)} The samples of "
        f"both ways differ by at most {max(record['gap'] for record in records):.1g}."
    )
    text = measure.table(measure.HEAD, measure.way_rows(records, limit), note)
    title = f"{options.n} samples, {options.steps} steps"
    measure.write(options.out / "looped_sampling", text, measure.bars(records, title))


if __name__ == "__main__":
    main()
