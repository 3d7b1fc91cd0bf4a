"""Draw scene graphs: described objects with relations; an independent reader says whether all of them hold.

python benchmarks/sampling/scene_graphs.py [-n 64] [--relations 1 2 3 5] [-o graphs.png]

A graph of R relations has as many objects as R + 1, at most 5, each described by a colour and a shape of its own. The
relations are true of a random layout of CLEVR, so that the graph is possible; one in four is denied ("not behind"). A
picture is right where the reader (see `scene_reader.py`) finds the objects that were described, and all relations hold
of their places on the ground. Prints one JSON line for each count of relations.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from benchmarks.common import ways
from benchmarks.common.options import parser
from benchmarks.sampling.described_scenes import INCLUDED, judged_by
from energycomp import load
from energycomp.images import ImageProcessor, framed, grid, save_image, to_unit
from energycomp_scenes import SceneGraph, draw
from energycomp_scenes.skills import MOST, compare_objects, random_graph


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one JSON line for each count and way."""
    options = parser(
        __doc__, model="clevr", reader=(INCLUDED, "folder of a reader of `scene_reader.py`"), n=(64, "of a count"),
        relations=([1, 2, 3, 5], "numbers of relations"), seed=0, tries=(4, "most samples of a picture"),
        records=(Path("runs/scene_graphs"), "folder of pictures, which a further run takes up"), o=ways.PICTURE,
        wrong=(False, "the image shows those that are wrong, with what was not found"),
    ).parse_args(arguments)  # fmt: skip
    model, read = load(options.model), judged_by(options.reader)
    processor = ImageProcessor(size=model.processor.size, resize="squash")
    shown, wrong = list[Path](), dict[Path, str]()
    for count in options.relations:
        graphs = [random_graph(count, 1000 * count + options.seed + k) for k in range(options.n)]
        folder = options.records / f"{ways.identity(options.model, model)}-{count}-{options.seed}"
        kept, verdicts = [], []
        for k, graph in enumerate(tqdm(graphs, desc=f"{count} relations")):
            files = [folder / f"{k}-{tries}.png" for tries in range(1, options.tries + 1)]
            if not any(file.exists() for file in files):
                (picture,) = draw(graph, model, tries=options.tries, generator=options.seed + k, progress=False)
                save_image(picture.image, files[picture.tries - 1])
            kept.append(next(file for file in files if file.exists()))
            found = torch.tensor(read(k, to_unit(processor(kept[-1])[0]))).reshape(-1, 6)
            verdicts.append(compare_objects(graph, found))
            if not verdicts[-1][0]:
                wrong[kept[-1]] = "no " + ", ".join(missing(graph, found))
        line: dict[str, Any] = {"relations": count, "objects": min(count + 1, MOST), "graphs": len(graphs)}
        line |= {"seed": options.seed, "tries": sum(int(file.stem.split("-")[1]) for file in kept) / len(kept)}
        for name, right in zip(
            ("all_right", "objects_found", "nothing_else"), zip(*verdicts, strict=True), strict=True
        ):
            line[name], line[f"{name}_interval"] = ways.mean_interval(torch.tensor(right))
        print(json.dumps(line), flush=True)
        shown += kept[: ways.SHOWN]
    if options.o is not None and options.wrong:
        images = [framed(Image.open(file), model.defaults.aspect, side=200) for file in wrong]
        save_image(grid(images, columns=3, captions=list(wrong.values())), options.o)
    else:
        ways.write_rows(options.o, shown, columns=min(ways.SHOWN, options.n), side=128)


def missing(graph: SceneGraph, found: Tensor) -> list[str]:
    """The descriptions of which no object was found."""
    return [text for text in graph.objects.values() if not compare_objects(SceneGraph({"a": text}), found)[1]]


if __name__ == "__main__":
    main()
