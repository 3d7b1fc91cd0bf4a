"""Skills of compositional generation, with an exact judge: a reader of rendered scenes that knows none of the models.

    one         an object by all four words                     position    an object at a place
    two         two objects by colour and shape                 relation    two objects and a relation
    counting    1 to 8 objects of any kind                      negation    an object that has not a colour
    binding     two objects that share no word, by all four     several     2 to 6 objects by colour and shape

A picture is right where the reader finds what was asked for and nothing else; at a place within `AT`. A second judge,
which is no network, says whether the outline of each object is nearest to that of the shape that was asked for: see
`energycomp_datasets.clevr.outlines`. `Prompter` says what a model of prompts is asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import attrs
import torch
from torch import Tensor

from energycomp.components import ability
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.images import ImageProcessor
from energycomp.models import Model
from energycomp.sampling import Composer
from energycomp.seeds import derived_seed
from energycomp_clevr.codes import ATTRIBUTES, SHAPE
from energycomp_clevr.objects import Objects
from energycomp_datasets.clevr.layout import object_values, scene_of
from energycomp_datasets.clevr.outlines import judge
from energycomp_datasets.clevr.reader import SIZE, SceneReader, load_reader
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_lab.evaluation import Example, Generated
from energycomp_scenes.artists import Drawing, Drawn, choose_skills
from energycomp_scenes.drawing import draw
from energycomp_scenes.graph import SceneGraph
from energycomp_scenes.prompts import Prompter
from energycomp_scenes.relations import KINDS, Formula, ground_of

if TYPE_CHECKING:
    from torchmetrics import MetricCollection

NAMES = "abcdefgh"
AT = 0.05
MOST = 5  # objects of a graph
DENIED = 0.25  # share of the relations of a graph that are denied
CLEARLY = 0.3  # scene units by which relations hold in the layout


@attrs.frozen
class GraphPrompt:
    """What a picture should show: a graph; `denied` is a colour that its first object has not."""

    skill: str
    graph: SceneGraph
    denied: str | None = None

    def shown_by(self, found: Tensor) -> bool:
        """Whether objects (K, 6), as a reader finds them, are what was asked for, and nothing else is there."""
        right, _, alone = compare_objects(self.graph, found)
        wanted = [text.rpartition(" at ")[2] for text in self.graph.objects.values() if " at " in text]
        if wanted and self.denied is None:
            places = torch.tensor([[float(x) for x in one.split(",")] for one in wanted])
            right &= bool((torch.cdist(places, found[:, :2]).amin(1) < AT).all()) if len(found) else False
        if self.denied is not None:
            right &= bool((found[:, 3] != ATTRIBUTES["color"].index(self.denied) + 1).all())
        return right and alone


@attrs.frozen
class Skills:
    """The data source `skills`: prompts, of which each is drawn and judged. `SPEC` names some of `SKILLS`, or is empty.

    Args:
        tries: as of `energycomp_scenes.draw`, for the prompts that deny nothing.
        options: other keywords of `Composer.sample`.
        judge: of a model of prompts, one with the same concepts; by default the model itself.

    >>> [one.conditions[0].skill for one in Skills().examples("two,negation", count=3, seed=0)]
    ['two', 'negation', 'two']
    """

    tries: int = 4
    options: Mapping[str, Any] = attrs.field(factory=dict)
    judge: Model | None = None

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        """Prompts, one of each skill in turn."""
        return Generated(count, partial(_example, names=choose_skills(spec, SKILLS), seed=seed))

    def write(self, _folder: Path, **_: Any) -> Never:
        """Prompts have no images."""
        raise InputError(
            "got skills, which are prompts; expected a source of images; draw them: evaluate --data skills"
        )

    def metrics(self) -> MetricCollection:
        """The share of pictures that are right."""
        from torchmetrics import MeanMetric, MetricCollection

        return MetricCollection({"right": MeanMetric()})

    def task(self, model: Model) -> Drawing:
        """What is asked of a model of whole objects, such as `clevr`, or of one of prompts, such as `text`."""
        if ability(model.conditioner, "concepts") is not None:
            return Drawing(Prompter(model, self.judge or model, self.tries, self.options))
        if not isinstance(model.conditioner, Objects):
            raise InputError(
                f"got the model {model.name}; expected one of whole objects, such as clevr, or of prompts, such as text"
            )
        return Drawing(Describer(self, model, load_reader()))


@attrs.frozen
class Describer:
    """Draws described objects; a reader of renders judges."""

    asks: Skills
    model: Model
    reader: SceneReader

    @property
    def name(self) -> str:
        return f"draw, at most {self.asks.tries} samples"

    def examples(self, spec: str, *, count: int, seed: int) -> Sequence[Example]:
        return self.asks.examples(spec, count=count, seed=seed)

    def right(self, asked: GraphPrompt, image: Tensor) -> tuple[bool, Any]:
        (found,) = self.reader.read(ImageProcessor(size=(SIZE, SIZE), resize="squash")(image * 2 - 1))
        return asked.shown_by(found), found.tolist()

    def drawn(self, asked: GraphPrompt, generator: torch.Generator) -> Drawn:
        how: dict[str, Any] = {"generator": generator, "output_type": "pt", "progress": False, **self.asks.options}
        if asked.denied is None:
            picture = draw(asked.graph, self.model, tries=self.asks.tries, **how)[0]
            return Drawn(picture.image, picture.tries, picture.rows, judge_outlines(picture.image, picture.values))
        ((_, described),) = asked.graph.objects.items()
        (plain,) = self.model.scene(described, generator=generator)
        place = described.rpartition(" at ")[2]
        with count_rows() as counted:
            image = Composer(2 * plain & ~self.model.read(f"{asked.denied} object at {place}")).sample(**how)[0]
        return Drawn(image, 1, counted.rows, judge_outlines(image, Objects().read(described)))


def judge_outlines(image: Tensor, values: Tensor) -> tuple[tuple[str, bool], ...]:
    """The shapes that objects (K, 6) have, each with whether its outline in an image is nearest to it."""
    words = [ATTRIBUTES["shape"][int(code) - 1] if code else "" for code in values[:, SHAPE]]
    looks = zip(words, judge(image, values), strict=True)
    return tuple((word, look.shape == word) for word, look in looks if word and look)


def compare_objects(graph: SceneGraph, found: Tensor) -> tuple[bool, bool, bool]:
    """Whether all is right, whether the described objects are there, and whether nothing else is, by objects (K, 6)."""
    texts = [text.partition(" at ")[0] for text in graph.objects.values()]
    wanted = torch.cat([Objects().read(f"{text} at 0.5,0.5") for text in texts])[:, 2:]
    # Which objects fit each description
    fits: list[list[int]] = []
    for words in wanted:
        agree = (found[:, 2 : 2 + len(words)] == words) | (words == 0)
        fits.append(agree.all(1).nonzero()[:, 0].tolist())
    # One choice of them of which all relations hold
    right = False
    there = False
    for choice in _choices(fits):
        there = True
        right = bool(graph.holds(ground_of(found[list(choice)][None])))
        if right:
            break
    return right, there, len(found) == len(wanted)


def _choices(fits: Sequence[Sequence[int]], taken: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """All ways to take one of each, none of them twice."""
    if len(taken) == len(fits):
        yield taken
        return
    for one in fits[len(taken)]:
        if one not in taken:
            yield from _choices(fits, (*taken, one))


def random_graph(count: int, seed: int) -> SceneGraph:
    """A graph of a number of relations that are true of a random layout; objects have a colour and a shape."""
    random = torch.Generator().manual_seed(seed)
    size = min(count + 1, MOST)
    ground = ground_of(object_values(scene_of(seed, 0, (size, size)))[None])
    # Objects, no two of one colour and shape
    kinds = torch.randperm(24, generator=random)[:size].tolist()
    words = [f"{ATTRIBUTES['color'][kind // 3]} {ATTRIBUTES['shape'][kind % 3]}" for kind in kinds]
    objects = dict(zip(NAMES, words, strict=False))
    index = {name: k for k, name in enumerate(objects)}
    pairs = list(itertools.permutations(objects, 2))
    # Relations that the layout shows clearly, or does not, which deny them
    relations = list[Formula]()
    while len(relations) < count:
        pair = pairs[int(torch.randint(len(pairs), (), generator=random))]
        formula = Formula(list(KINDS)[int(torch.randint(len(KINDS), (), generator=random))], pair)
        margin = float(formula.margin(ground, index))
        if abs(margin) < CLEARLY or (margin < 0 and float(torch.rand((), generator=random)) > DENIED):
            continue
        wanted = formula if margin > 0 else ~formula
        if wanted not in relations:
            relations.append(wanted)
    return SceneGraph(objects, tuple(relations))


def _example(index: int, *, names: Sequence[str], seed: int) -> Example:
    skill = names[index % len(names)]
    number = index // len(names)
    random = torch.Generator().manual_seed(derived_seed(HELD_OUT + seed, skill, number))
    graph, denied = SKILLS[skill](random, number)
    asked = GraphPrompt(skill, graph, denied)
    return Example(
        torch.zeros(3, 8, 8), name=f"{skill} {number}: {graph.objects} {graph.relations}", conditions=[asked]
    )


def _word(random: torch.Generator, name: str) -> str:
    words = ATTRIBUTES[name]
    return words[int(torch.randint(len(words), (), generator=random))]


def _place(random: torch.Generator) -> str:
    x, y = (0.2 + 0.6 * torch.rand(2, generator=random) * torch.tensor([1.0, 0.6])).tolist()
    return f"{x:.3f},{y + 0.18:.3f}"


def _one(random: torch.Generator, _: int) -> tuple[SceneGraph, str | None]:
    return SceneGraph({"a": " ".join(_word(random, name) for name in ATTRIBUTES)}), None


def _describe(random: torch.Generator, count: int) -> tuple[SceneGraph, str | None]:
    """Objects of different colours."""
    colors = torch.randperm(8, generator=random)[:count].tolist()
    words = [f"{ATTRIBUTES['color'][color]} {_word(random, 'shape')}" for color in colors]
    return SceneGraph(dict(zip(NAMES, words, strict=False))), None


def _bind(random: torch.Generator, _: int) -> tuple[SceneGraph, str | None]:
    first, second = [], []
    for words in ATTRIBUTES.values():
        one, other = torch.randperm(len(words), generator=random)[:2].tolist()
        first.append(words[one])
        second.append(words[other])
    return SceneGraph({"a": " ".join(first), "b": " ".join(second)}), None


def _position(random: torch.Generator, _: int) -> tuple[SceneGraph, str | None]:
    return SceneGraph({"a": f"{_word(random, 'color')} {_word(random, 'shape')} at {_place(random)}"}), None


def _relate(random: torch.Generator, _: int) -> tuple[SceneGraph, str | None]:
    return random_graph(1, int(torch.randint(2**31, (), generator=random))), None


def _negate(random: torch.Generator, _: int) -> tuple[SceneGraph, str | None]:
    return SceneGraph({"a": f"large {_word(random, 'shape')} at {_place(random)}"}), _word(random, "color")


SKILLS: dict[str, Callable[[torch.Generator, int], tuple[SceneGraph, str | None]]] = {
    "one": _one,
    "two": lambda random, _: _describe(random, 2),
    "counting": lambda _, k: (SceneGraph(dict.fromkeys(NAMES[: k % 8 + 1], "object")), None),
    "binding": _bind,
    "position": _position,
    "relation": _relate,
    "negation": _negate,
    "several": lambda random, k: _describe(random, 2 + k % 5),
}
