"""Skills of compositional generation, with an exact judge: a reader of rendered scenes that knows none of our models.

python benchmarks/sampling/skills.py --reader runs/reader [-n 100] [--skills one two ...] [--seed 0] [-o skills.png]

    one         an object by all four words                     position    an object at a place
    two         two objects by colour and shape                 relation    two objects and a relation
    counting    1 to 8 objects of any kind                      negation    an object that has not a colour
    binding     two objects that share no word, by all four     several     2 to 6 objects by colour and shape

A picture is right where the reader (`scene_reader.py`) finds what was asked for and nothing else; at a place within
0.05. Prints one JSON line for each skill. Pictures in `--records` are taken up again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.common import ways
from benchmarks.common.options import parser
from benchmarks.sampling.described_scenes import judged_by
from benchmarks.sampling.scene_graphs import judge, random_graph
from energycomp import Composer, Model, load
from energycomp.errors import InputError
from energycomp.images import ImageProcessor, save_image, to_unit
from energycomp_clevr.objects import ATTRIBUTES
from energycomp_scenes import SceneGraph, draw

NAMES, AT = "abcdefgh", 0.05


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the lines."""
    options = parser(
        __doc__, model="clevr", reader=(None, "folder of a reader of `scene_reader.py`"), n=(100, "pictures"),
        skills=(list(SKILLS), "skills"), seed=0, tries=(4, "most samples of a picture"),
        records=(Path("runs/skills"), "folder of pictures, which a further run takes up"), o=ways.PICTURE,
    ).parse_args(arguments)  # fmt: skip
    if options.reader is None:
        raise InputError("got no --reader; expected a folder; train one: scene_reader.py --data renders")
    model, read = load(options.model), judged_by(options.reader)
    processor = ImageProcessor(size=model.processor.size, resize="squash")
    shown: list[Path] = []
    for skill in options.skills:
        folder = options.records / f"{ways.identity(options.model, model)}-{skill}-{options.tries}-{options.seed}"
        right, tried = [], []
        for k in tqdm(range(options.n), desc=skill):
            random = torch.Generator().manual_seed(10_000 * options.seed + k)
            task, file = SKILLS[skill](random, k), folder / f"{k}.png"
            note = file.with_suffix(".json")
            if not note.exists():
                image, tries = drawn(task, model, options.tries, options.seed + k)
                save_image(image, file)
                note.write_text(json.dumps({"tries": tries}))
            found = torch.tensor(read(k, to_unit(processor(file)[0]))).reshape(-1, 6)
            right.append(is_right(task, found))
            tried.append(json.loads(note.read_text())["tries"])
        share, half = ways.mean_interval(torch.tensor(right))
        line = {"skill": skill, "right": share, "interval": half, "n": len(right), "tried": sum(tried) / len(tried)}
        print(json.dumps(line | {"model": options.model, "tries": options.tries, "seed": options.seed}), flush=True)
        shown += [folder / f"{k}.png" for k in range(min(ways.SHOWN, options.n))]
    ways.write_rows(options.o, shown, columns=min(ways.SHOWN, options.n), side=128)


Task = tuple[SceneGraph, str | None]  # what is asked for, and a colour that the first object has not


def drawn(task: Task, model: Model, tries: int, seed: int) -> tuple[Any, int]:
    """A picture of a task, and how many samples were drawn for it."""
    graph, denied = task
    if denied is None:
        (picture,) = draw(graph, model, tries=tries, generator=seed, progress=False)
        return picture.image, picture.tries
    ((_, described),) = graph.objects.items()
    (plain,) = model.scene(described, generator=seed)
    place = described.rpartition(" at ")[2]
    composer = Composer(2 * plain & ~model.read(f"{denied} object at {place}"))
    return composer.sample(generator=seed, progress=False)[0], 1


def is_right(task: Task, found: Tensor) -> bool:
    """Whether a reader found (K, 6) what was asked for, and nothing else."""
    graph, denied = task
    right, _, alone = judge(graph, found)
    wanted = [text.rpartition(" at ")[2] for text in graph.objects.values() if " at " in text]
    if wanted and denied is None:
        place = torch.tensor([[float(x) for x in one.split(",")] for one in wanted])
        right &= bool((torch.cdist(place, found[:, :2]).amin(1) < AT).all()) if len(found) else False
    if denied is not None:
        right &= bool((found[:, 3] != ATTRIBUTES["color"].index(denied) + 1).all())
    return right and alone


def _word(random: torch.Generator, name: str) -> str:
    words = ATTRIBUTES[name]
    return words[int(torch.randint(len(words), (), generator=random))]


def _words(random: torch.Generator) -> str:
    return " ".join(_word(random, name) for name in ATTRIBUTES)


def _place(random: torch.Generator) -> str:
    x, y = (0.2 + 0.6 * torch.rand(2, generator=random) * torch.tensor([1.0, 0.6])).tolist()
    return f"{x:.3f},{y + 0.18:.3f}"


def _described(random: torch.Generator, count: int) -> Task:
    """Objects of different colours and shapes."""
    colors = torch.randperm(8, generator=random)[:count].tolist()
    words = [f"{ATTRIBUTES['color'][color]} {_word(random, 'shape')}" for color in colors]
    return SceneGraph(dict(zip(NAMES, words, strict=False))), None


def _bound(random: torch.Generator, _: int) -> Task:
    both = [
        [ATTRIBUTES[name][int(code)] for code in torch.randperm(len(ATTRIBUTES[name]), generator=random)[:2]]
        for name in ATTRIBUTES
    ]
    first, second = (" ".join(words) for words in zip(*both, strict=True))
    return SceneGraph({"a": first, "b": second}), None


SKILLS: dict[str, Callable[[torch.Generator, int], Task]] = {
    "one": lambda random, _: (SceneGraph({"a": _words(random)}), None),
    "two": lambda random, _: _described(random, 2),
    "counting": lambda _, k: (SceneGraph(dict.fromkeys(NAMES[:k % 8 + 1], "object")), None),
    "binding": _bound,
    "position": lambda random, _: (
        SceneGraph({"a": f"{_word(random, 'color')} {_word(random, 'shape')} at {_place(random)}"}), None
    ),
    "relation": lambda _, k: (random_graph(1, 5000 + k), None),
    "negation": lambda random, _: (
        SceneGraph({"a": f"large {_word(random, 'shape')} at {_place(random)}"}), _word(random, "color")
    ),
    "several": lambda random, k: _described(random, 2 + k % 5),
}  # fmt: skip


if __name__ == "__main__":
    main()
