"""The conditioner of colours, and images of coloured lamps."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from energycomp import Condition
from energycomp.errors import InputError
from energycomp.fields import parse_range
from energycomp.images import to_output
from energycomp_lab.evaluation import CountAccuracy, ExactSet, Example, Generated
from torch import Tensor
from torch.distributions import constraints
from torchmetrics import MetricCollection

SIZE, NAMES = 16, ("red", "green", "blue", "white")
COLOURS = torch.tensor([[1.0, 0.1, 0.1], [0.1, 1.0, 0.1], [0.1, 0.1, 1.0], [0.9, 0.9, 0.9]])


class Colours:
    """A value is the index of a colour; its row is one one-hot token."""

    value_shape: tuple[int, ...] = ()
    token_shape = (1, len(NAMES))
    support = constraints.integer_interval(0, len(NAMES) - 1)

    def enumerate_support(self) -> Tensor:
        return torch.arange(len(NAMES))

    def parse(self, name: Any = None, **unknown: Any) -> Tensor:
        if unknown or name not in NAMES:
            raise InputError(f"got {name!r} {unknown or ''}; expected one of {', '.join(NAMES)}; choose a colour")
        return torch.tensor([NAMES.index(name)])

    def describe(self, value: Tensor) -> str:
        return NAMES[int(value)]

    def config(self) -> dict[str, Any]:
        return {}

    def __call__(self, values: Tensor) -> Condition:
        if values.ndim != 1:
            raise InputError(f"got colours {tuple(values.shape)}; expected (R,); flatten them")
        return Condition(torch.nn.functional.one_hot(values.long(), len(NAMES)).float()[:, None])


def scene(index: int, counts: tuple[int, int], seed: int) -> Example:
    """Some of four lamps, each in its own column at a random height, as an image (3, 16, 16) in [-1, 1]."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + index)
    count = int(torch.randint(counts[0], counts[1] + 1, (), generator=generator))
    lit = torch.randperm(len(NAMES), generator=generator)[:count]
    ticks, heights = torch.arange(SIZE), torch.rand(count, 1, generator=generator) * (SIZE - 6) + 3
    across, down = (ticks - (4 * lit + 1.5)[:, None]).square(), (ticks - heights).square()  # (K, SIZE) each
    glow = torch.exp(-(down[:, :, None] + across[:, None, :]) / 5)
    image = torch.einsum("khw,kc->chw", glow, COLOURS[lit]) * 1.6 - 0.8
    return Example(image.clamp(-1, 1), name=f"scene {index}", conditions=[NAMES[i] for i in lit.tolist()])


class Lamps:
    """The data source."""

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        kind, _, counts = spec.partition(":")
        if kind == "synthetic":
            low_high = parse_range(counts or "0-4", greatest=len(NAMES))
            return Generated(count, lambda index: scene(index, low_high, seed))
        if not (file := Path(spec) / "lamps.json").is_file():
            raise InputError(f"got {spec}; expected synthetic:0-4, or a folder with lamps.json in it; check the path")
        listed = list(json.loads(file.read_text()).items())[:count]
        return [Example(file.parent / name, name=name, conditions=colours) for name, colours in listed]

    def write(self, folder: Path, *, count: int, seed: int, options: str, progress: Callable[[int], None]) -> None:
        listed = {}
        for index, made in enumerate(self.examples(f"synthetic:{options}", count=count, seed=seed)):
            listed[name := f"{index:06d}.png"] = made.conditions
            to_output(made.image[None], "pil")[0].save(folder / name)
            progress(index + 1)
        (folder / "lamps.json").write_text(json.dumps(listed))

    def metrics(self) -> MetricCollection:
        return MetricCollection({"exact_set": ExactSet(), "count_accuracy": CountAccuracy()}, compute_groups=False)
