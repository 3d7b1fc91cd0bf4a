"""Decompose and reconstruct one image: one chain and one part per network call, or one batch of chains.

python benchmarks/speed/looped_decomposition.py [--model decomp] [--threads 2] [--repeats 5] [--seed 0]
    [-o runs/benchmarks]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.common import measure
from benchmarks.common.measure import LOOPED, OURS, Timed, looped_row
from energycomp import Model, load
from energycomp.components import Condition
from energycomp.decomposition import DiffusionDecomposer
from energycomp.plugins import find
from energycomp.sampling import make_scheduler, sample

COMMAND = "python benchmarks/speed/looped_decomposition.py"


@torch.no_grad()
def looped(model: Model, latents: Tensor, seed: int) -> Tensor:
    """Each part alone, then all parts, (K + 1, 3, H, W): K evaluations of the whole network a step for each of both.

    The unconditional prediction of the model is a constant picture, and no call.
    """
    denoiser, defaults = model.denoiser, model.defaults
    network, conditions = denoiser.network, model.conditioner(latents[0])
    base = cast("Timed", network).inner.base
    noise = torch.randn(1, *denoiser.sample_shape, generator=torch.Generator().manual_seed(seed))

    def chain(parts: list[Condition]) -> Tensor:
        def predict(x: Tensor, timestep: Tensor, _: str) -> Tensor:
            return base + sum(looped_row(network, x, timestep, part) - base for part in parts)

        scheduler = make_scheduler(
            defaults.scheduler,
            denoiser.alphas_cumprod,
            prediction_type=denoiser.prediction_type,
            value_range=denoiser.value_range,
        )
        steps = defaults.num_inference_steps
        shape = (1, *denoiser.sample_shape)
        return sample(predict, shape, scheduler, num_inference_steps=steps, initial=noise, progress=False)

    single = [conditions[k : k + 1] for k in range(len(conditions))]
    return torch.cat([*[chain([part]) for part in single], chain(single)]).clamp(-1, 1)


def batched(model: Model, latents: Tensor, seed: int) -> Tensor:
    """The same pictures from `DiffusionDecomposer.parts`."""
    parts = DiffusionDecomposer(model).parts(latents, generator=torch.Generator().manual_seed(seed))
    return torch.cat([parts.images[0], parts.whole])


def main() -> None:
    """Writes looped_decomposition.md."""
    parser = measure.arguments(__doc__, repeats=5)
    parser.set_defaults(model="decomp")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model, network = measure.timed(load(options.model))
    (example,) = find("datasets", model.name)().examples("synthetic:3", count=1, seed=options.seed)
    latents = DiffusionDecomposer(model).encode(example.image)
    ways: dict[str, Callable[..., Tensor]] = {LOOPED: looped, OURS: batched}
    found: dict[str, dict[str, Any]] = {}
    for way, run in ways.items():
        network.reset()
        pictures = run(model, latents, options.seed)
        found[way] = {"pictures": pictures, "rows": network.rows, "trunks": network.trunks, "seconds": []}
    for _ in range(options.repeats):
        for way, run in ways.items():
            started = time.perf_counter()
            run(model, latents, options.seed)
            found[way]["seconds"].append(time.perf_counter() - started)
    gap = float((found[LOOPED]["pictures"] - found[OURS]["pictures"]).abs().max())
    median = {way: statistics.median(one["seconds"]) for way, one in found.items()}
    rows = [
        [way, f"{median[way]:.3g}", str(one["rows"]), str(one["trunks"]), f"{median[LOOPED] / median[way]:.1f}"]
        for way, one in found.items()
    ]
    note = (
        f"`{COMMAND}`: one picture, {latents.shape[1]} parts and the whole, {model.defaults.num_inference_steps} DDIM "
        f"steps, model `{options.model}`, seed {options.seed}, threads: {options.threads}, median of "
        f"{options.repeats} turns. The pictures differ by at most {gap:.0e}."
    )
    text = measure.table(("way", "seconds", "rows", "trunk passes", "speed-up"), rows, note)
    measure.write(options.out / "looped_decomposition", text)


if __name__ == "__main__":
    main()
