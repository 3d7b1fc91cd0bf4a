"""Maps of the error that each component explains, against true masks, beside gradients of the error.

python benchmarks/inference/maps.py [--models clevr-small text text-composed] [-n 30] [--fitted 10] [--seed 1]

The true components of rendered scenes are given. Prints one JSON line per model and map: the mean IoU of the pixels
above a threshold, a share of the greatest value of the map, and how often the greatest value is on the component (the
pointing game); gradients also with the edges of the image, as ours have them. The threshold of each map is that of the
best mean IoU on `--fitted` other scenes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from benchmarks.common.options import parser
from energycomp import Model, load
from energycomp.components import predict
from energycomp.images import guided, to_output
from energycomp.inference import FIT_DRAWS, explain, make_problem
from energycomp_datasets.clevr.layout import object_values, scene_of
from energycomp_datasets.clevr.renderer import instance_map, render
from energycomp_datasets.solids.solids import held_out_pairs, picture_and_places, seen_pairs, seen_triples

THRESHOLDS = torch.tensor([0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6])


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the lines."""
    fitted, seed = (10, "other scenes, which choose the threshold"), (1, "of scenes and draws")
    models = ["clevr-small", "text", "text-composed"]
    options = parser(__doc__, models=models, n=30, fitted=fitted, seed=seed, threads=1).parse_args(arguments)
    torch.set_num_threads(options.threads)
    for name in options.models:
        model, found = load(name), dict[str, list[tuple[Tensor, Tensor]]]()
        model = attrs.evolve(model, defaults=attrs.evolve(model.defaults, draws=2))  # maps have draws of their own
        for index in tqdm(range(options.n + options.fitted), desc=name):
            image, values, masks = scene(model, index, options.seed)
            order = sorted(range(len(values)), key=values.tolist().__getitem__)  # as `explain` sorts them
            values, masks = values[order], masks[order]
            ours = explain(image, model, values, generator=options.seed).maps()
            peers = dict(gradients(image, model, values, options.seed))
            picture = model.processor(image)[0]
            peers |= {f"{key}, with edges": guided(maps, picture) for key, maps in peers.items()}  # as ours
            for key, maps in {"explained error": ours, **peers}.items():
                seen = masks.flatten(1).any(1)  # not hidden by others
                found.setdefault(key, []).append((maps[seen], masks[seen]))
        for key, pairs in found.items():
            best = int(overlaps(pairs[options.n :]).argmax())
            line = {"model": name, "map": key, "images": options.n, "threshold": round(float(THRESHOLDS[best]), 2)}
            line |= {"iou": round(float(overlaps(pairs[: options.n])[best]), 3)}
            print(json.dumps(line | {"pointing": round(pointing(pairs[: options.n]), 3)}), flush=True)


def scene(model: Model, index: int, seed: int) -> tuple[object, Tensor, Tensor]:
    """An image, its components, and the pixels of each (K, H, W)."""
    if model.name.startswith("clevr"):
        drawn, size = scene_of(seed, index, (3, 5)), model.processor.size
        values, image, ids = object_values(drawn), render(drawn, size), instance_map(drawn, size)
        values = values[:, : model.conditioner.value_shape[0]]
    else:
        rng, sets = np.random.default_rng([seed, index]), (seen_pairs(), held_out_pairs(), seen_triples())[index % 3]
        names = sets[int(rng.integers(len(sets)))]
        image, ids = picture_and_places(names, rng)
        values = torch.cat([model.conditioner.parse(concept=name) for name in names])
    masks = torch.stack([ids == k for k in range(len(values))])
    return to_output(image[None], "pil")[0], values, masks


def gradients(image: object, model: Model, values: Tensor, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Absolute gradients to the pixels, summed over channels, of two errors on as many draws as the maps have.

    That of the component alone, as saliency maps of classifiers, and the rise of the error without the component.
    """
    observation = model.encode(image).requires_grad_()
    bank = make_problem(observation.detach(), model).draw(FIT_DRAWS, seed)

    def error(some: Tensor) -> Tensor:
        noised = bank.noised(observation, model.denoiser.alphas_cumprod)
        eps = predict(model.compose(some), noised, bank.timestep)
        return ((eps - bank.noise).square().flatten(1).sum(1) * bank.weight).mean()

    def gradient(some: Tensor) -> Tensor:
        found = torch.autograd.grad(error(some), observation)[0]
        return interpolate(found, model.processor.size, mode="bilinear")[0]  # of latents; pixels stay as they are

    whole, others = gradient(values), [torch.cat([values[:k], values[k + 1 :]]) for k in range(len(values))]
    yield "gradient of its own error", torch.stack([gradient(value[None]).abs().sum(0) for value in values])
    yield "gradient of the rise", torch.stack([(gradient(some) - whole).abs().sum(0) for some in others])


def overlaps(pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean IoU of each threshold."""
    found = []
    for maps, masks in pairs:
        chosen = maps > THRESHOLDS[:, None, None, None] * maps.amax((1, 2))[:, None, None]
        found.append((chosen & masks).sum((2, 3)) / (chosen | masks).sum((2, 3)))
    return torch.cat(found, dim=1).mean(1)


def pointing(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    """How often the greatest value of a map is on its component."""
    hits = [masks.flatten(1).gather(1, maps.flatten(1).argmax(1)[:, None]) for maps, masks in pairs]
    return float(torch.cat(hits).float().mean())


if __name__ == "__main__":
    main()
