"""Decompose and reconstruct one image: one chain and one part per network call, or one batch of chains.

python benchmarks/speed/looped_decomposition.py [--model decomp] [--threads 2] [--repeats 5] [--seed 0]
    [-o runs/benchmarks]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.common import measure
from benchmarks.common.measure import LOOPED, OURS, Timed, Ways, looped_row
from energycomp import Model, load
from energycomp.components import Condition
from energycomp.plugins import find
from energycomp.sampling import make_scheduler, sample
from energycomp_decomp import DiffusionDecomposer
from energycomp_lab.evaluation import dataset_of

COMMAND = "python benchmarks/speed/looped_decomposition.py"


def make_ways(model: Model, network: Timed, latents: Tensor, seed: int) -> Ways:
    """Both ways to each part alone, and all parts, (K + 1, 3, H, W).

    The looped way needs K evaluations of the whole network a step for each of both. The unconditional prediction of the
    model is a constant image, and no call.
    """
    denoiser, defaults, conditions = model.denoiser, model.defaults, model.conditioner(latents[0])
    base = network.inner.base
    noise = torch.randn(1, *denoiser.sample_shape, generator=torch.Generator().manual_seed(seed))
    kind: dict[str, Any] = {"prediction_type": denoiser.prediction_type, "value_range": denoiser.value_range}

    def chain(parts: list[Condition]) -> Tensor:
        def predict(x: Tensor, timestep: Tensor, _: str) -> Tensor:
            return base + sum(looped_row(network, x, timestep, part) - base for part in parts)

        scheduler = make_scheduler(defaults.scheduler, denoiser.alphas_cumprod, **kind)
        steps = {"num_inference_steps": defaults.num_inference_steps, "progress": False}
        return sample(predict, (1, *denoiser.sample_shape), scheduler, initial=noise, **steps)  # type: ignore[arg-type]

    def looped() -> Tensor:
        single = [conditions[k : k + 1] for k in range(len(conditions))]
        return torch.cat([*[chain([part]) for part in single], chain(single)]).clamp(-1, 1)

    def ours() -> Tensor:
        parts = DiffusionDecomposer(model).parts(latents, generator=torch.Generator().manual_seed(seed))
        return torch.cat([parts.images[0], parts.whole])

    return {LOOPED: torch.no_grad()(looped), OURS: ours}


def main() -> None:
    """Writes looped_decomposition.md."""
    options = measure.speed_options(__doc__, model="decomp").parse_args()
    torch.set_num_threads(options.threads)
    model, network = measure.timed(load(options.model))
    (example,) = find("datasets", dataset_of(model))().examples("synthetic:3", count=1, seed=options.seed)
    latents = DiffusionDecomposer(model).encode(example.image)

    def exact(_: str, looped: Tensor, ours: Tensor) -> dict[str, Any]:
        return {"gap": float((looped - ours).abs().max())}

    case = f"{latents.shape[1]} parts and the whole, {model.defaults.num_inference_steps} steps"
    ways = make_ways(model, network, latents, options.seed)
    (record,), limit = measure.run(__file__, options, [case], lambda _: ways, network, exact)
    note = f"`{COMMAND}`: one image, {measure.how(options, limit)} The images differ by at most {record['gap']:.0e}."
    text = measure.table(measure.HEAD, measure.way_rows([record], limit), note)
    measure.write(options.out / "looped_decomposition", text)


if __name__ == "__main__":
    main()
