"""What a reading costs: a model without its proposals, with them, and with engines, side by side in one run.

python benchmarks/speed/readings.py [--model clevr] [--data DIR:3-8] [-n 20] [--before FOLDER] [--engines onnx openvino]

Each image is read by all ways, in turn, with one thread and the same seed. A line of JSON for each way: CPU seconds and
network evaluations of an image, objects found, those with all words right, and counts right. `--before` names the
folder of other weights. The network of proposals alone, what it holds for likelier than not, is the detector beside.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.options import parser
from benchmarks.inference.seeds import score
from energycomp import Model, infer, load
from energycomp.errors import InputError
from energycomp.images import to_unit
from energycomp.inference import OutOfDistributionWarning, make_problem
from energycomp_lab.evaluation import source_of, true_values

LIKELY = 0.5  # probability of what a detector answers


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the lines."""
    parse = parser(__doc__, model="clevr", data="synthetic:3-5", n=20, seed=(0, "of scenes and readings"))
    parse.add_argument("--before", type=Path, help="folder of other weights")
    parse.add_argument("--engines", nargs="*", default=[], help="engines beside torch")
    options = parse.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", OutOfDistributionWarning)
    model = load(options.model)
    models: dict[str, Model] = {}
    if options.before is not None:
        models["weights before, without proposals"] = attrs.evolve(load(str(options.before)), proposals=None)
    models["without proposals"] = attrs.evolve(model, proposals=None)
    models["with proposals"] = model
    for engine in options.engines:
        models[f"with proposals, {engine}"] = load(options.model, engine=engine)
    ways: dict[str, Callable[[Any], tuple[Tensor, int]]] = {
        name: partial(read, model=one, seed=options.seed) for name, one in models.items()
    }
    if model.proposals is not None:
        ways["proposals alone"] = partial(detect, model=model)
    lines = {
        name: {"images": 0, "cpu_s": 0.0, "nfe": 0, "objects": 0, "found": 0, "words": 0, "counts": 0} for name in ways
    }
    examples = source_of("clevr", model).examples(options.data, count=options.n, seed=options.seed)
    for number, example in enumerate(tqdm(examples, desc="reading")):
        image = to_unit(example.image) if isinstance(example.image, Tensor) else example.image
        true = true_values(example, model.conditioner)
        for name, way in ways.items():
            if number == 0:
                way(image)  # exports and caches
            start = time.process_time()
            found, rows = way(image)
            line = lines[name]
            line["cpu_s"] += time.process_time() - start
            hits = score(found, true)
            line["images"] += 1
            line["nfe"] += rows
            line["objects"] += len(true)
            line["found"] += hits["found"]
            line["words"] += hits["words"]
            line["counts"] += hits["count_right"]
    for name, line in lines.items():
        for key in ("cpu_s", "nfe"):
            line[key] = round(line[key] / line["images"], 2)
        print(json.dumps({"way": name, **line}), flush=True)


def read(image: Any, model: Model, seed: int) -> tuple[Tensor, int]:
    """Values, and the network evaluations that they cost."""
    solution = infer(image, model, generator=seed, progress=False)
    return solution.conditions, solution.rows


def detect(image: Any, model: Model) -> tuple[Tensor, int]:
    """The values that the network of proposals holds for likelier than not."""
    proposals = make_problem(model.encode(image), model).propose()
    if proposals is None:
        raise InputError(f"got {model.name}, whose proposals cannot be used; expected some; train them again")
    return proposals.values[proposals.probability > LIKELY], 0


if __name__ == "__main__":
    main()
