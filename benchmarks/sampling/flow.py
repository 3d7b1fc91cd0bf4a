"""Composed samples of a flow-matching model and of its diffusion twin at equal budgets, and of both together.

python benchmarks/sampling/flow.py [-n 12] [--counts 1,3,5] [--steps 5 10 20] [--only diffusion] [-o flow.png]

Objects are composed at K places of held-out scenes, drawn by the schedulers of each model, and read back by one reader.
"both" is 0.5 of the diffusion composition and 0.5 of the flow composition, matched to its schedule: it costs the
network evaluations of both. Every layout has a seed of its own. Results in `--records` are taken up again.

With --convergence nothing is read: samples of few steps are compared with those of a fine solution of the same equation
from the same noise, by the root mean square difference of images in [0, 1].
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.common.ways import HELD_OUT, Way, all_recorded, first, identity, sampling_options, write_rows
from benchmarks.sampling.composed_samples import read_by, summary
from energycomp import Composer, Model, load, match_snr
from energycomp_datasets.clevr.layout import render_objects

SCHEDULERS = {
    "diffusion": ("ddim", "dpmsolvermultistep"),
    "flow": ("flowmatcheulerdiscrete", "dpmsolvermultistep"),
    "both": ("ddim",),
}
REFERENCE = Way("flowmatchheundiscrete", 100)
SCENES = 4  # that are drawn in a row
SHORT = {"ddim": "DDIM", "dpmsolvermultistep": "DPM-Solver++", "flowmatcheulerdiscrete": "Euler"}


def compositions(diffusion: Model, flow: Model, places: Tensor) -> dict[str, Any]:
    """Objects at the places (K, 2), composed by each model and by half of each."""
    single, other = diffusion.compose(places), flow.compose(places)
    both = 0.5 * single + 0.5 * match_snr(other, diffusion.denoiser.noised_space)
    return {"diffusion": single, "flow": other, "both": both}


def convergence(made: Sequence[dict[str, Any]], kind: str, ways: Sequence[Way], seed: int) -> dict[str, float]:
    """The root mean square difference of the samples of each way from those of 100 steps of Heun's method."""
    seeds = range(seed, seed + len(made))

    def draw(way: Way) -> Tensor:
        options = {"scheduler": way.name, "num_inference_steps": way.steps, "output_type": "pt", "progress": False}
        return torch.cat(
            [Composer(one[kind]).sample(generator=k, **options) for one, k in zip(made, seeds, strict=True)]
        )

    fine = draw(REFERENCE)
    return {str(way): round(float((draw(way) - fine).square().mean().sqrt()), 4) for way in ways}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each count and way."""
    options = sampling_options(
        __doc__, scenes="layouts", records="runs/flow_samples", n=(12, "layouts for each count"),
        counts=("1,3,5", "numbers of objects"), diffusion="clevr-places", flow="clevr-places-flow",
        reader=("clevr-places", "model that reads all samples"), steps=([5, 10, 20], "steps of the default ways"),
        only=(list(SCHEDULERS), "kinds that are drawn", list(SCHEDULERS)),
        convergence=(False, "compare samples with those of many steps"),
    ).parse_args(arguments)  # fmt: skip
    models = {kind: load(name) for kind, name in (("diffusion", options.diffusion), ("flow", options.flow))}
    reader = load(options.reader)
    names = {kind: identity(kind, models[kind]) for kind in models}
    names["both"] = "-".join(names.values())
    shown: list[Image.Image] = []
    lines: list[str] = []
    for count in map(int, options.counts.split(",")):
        _, described = render_objects(options.n, objects=(count, count), seed=HELD_OUT + options.seed)
        places = [one[:, :2] for one in described]
        made = [compositions(**models, places=place) for place in places]
        for kind in options.only:
            own = [Way(scheduler, steps) for scheduler in SCHEDULERS[kind] for steps in options.steps]
            if options.convergence:
                line = {"objects": count, "model": kind, "samples": options.n, "seed": options.seed}
                print(json.dumps({**line, **convergence(made, kind, options.ways or own, options.seed)}), flush=True)
                continue
            for way in options.ways or own:
                folder = options.records / f"{names[kind]}-{count}-{way}-{options.seed}"
                title, chosen = f"{count} objects, {kind}, {way}", [one[kind] for one in made]
                found = all_recorded(folder, way, reader, chosen, options.seed, read_by(reader), title)
                line = {"objects": count, "model": kind, "way": str(way), "samples": options.n, "seed": options.seed}
                print(json.dumps({**line, **summary(found, torch.stack(places))}), flush=True)
                shown += [models["diffusion"].shown(Image.open(path)) for path in first(folder, options.n, SCENES)]
                lines.append(f"{kind}, {SHORT.get(way.name, way.name)}")
    write_rows(options.o, shown, columns=min(SCENES, options.n), side=112, names=lines)


if __name__ == "__main__":
    main()
