"""Pictures of scene graphs: places, then a sample, then a look whether what was asked for is there.

A sample is read where its objects were put: the posterior of the words that were asked for costs about 100 network
evaluations an object, and up to twice as many more where words are in doubt. Those that lack a word are drawn again.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from energycomp.components import per_sample
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.fields import is_whole
from energycomp.images import to_output
from energycomp.inference import make_problem, read_attributes
from energycomp.models import Model
from energycomp.progress import counting
from energycomp.sampling import Composer
from energycomp.seeds import as_generator
from energycomp_scenes.graph import SceneGraph
from energycomp_scenes.placing import placed
from energycomp_scenes.reading import check_objects
from energycomp_scenes.relations import ground_of

SURE = 0.8  # posterior of all words that were asked for, of a picture that is kept
LOOKS = 2  # sweeps over the words; the second one, on more draws, is over those in doubt
LARGE = 2.0  # the code of a large object
SIZE = 2  # its place in a value
AGAIN = 20  # times that places are sought for which relations hold of large objects, too


@attrs.frozen(eq=False)
class Picture:
    """A picture of a scene graph.

    Args:
        image: Pillow image, or a tensor (3, H, W) in [0, 1], see `output_type` of `draw`.
        values: (K, *V) of its objects, those that were put there; what stayed open is 0.
        probability: the posterior that all words that were asked for are seen.
        rows: network evaluations of its samples, and of the looks at them.
    """

    image: Any
    values: Tensor
    probability: float
    tries: int
    rows: int


def draw(
    graph: SceneGraph,
    model: Model,
    n: int = 1,
    *,
    tries: int = 4,
    generator: int | torch.Generator | None = None,
    output_type: str = "pil",
    progress: bool = True,
    **options: Any,
) -> list[Picture]:
    """n pictures of a scene graph. A size that is left open is large, where objects are drawn best.

    Args:
        tries: most samples for each picture; the one that is most likely right is kept.
        generator: or a seed, of places and pictures.

    Raises:
        InputError: another model, or a graph for which no places are found, open sizes drawn large.

    >>> from energycomp import load
    >>> from energycomp_scenes import scene
    >>> how = {"tries": 1, "generator": 0, "num_inference_steps": 2, "progress": False}
    >>> (picture,) = draw(scene("a: red cube; b: sphere; a left of b"), load("clevr-small"), **how)
    >>> picture.image.size, picture.values.shape
    ((64, 64), torch.Size([2, 6]))
    """
    check_objects(model)
    objects: Any = model.conditioner
    if not (is_whole(tries) and tries > 0 and is_whole(n) and n > 0):
        raise InputError(f"got n={n!r} and tries={tries!r}; expected whole numbers, at least 1")
    if output_type not in ("pil", "pt"):
        raise InputError(f"got output_type {output_type!r}; expected 'pil' or 'pt'")
    random = as_generator(generator)
    best = dict[int, Picture]()
    rows = [0] * n
    with counting("drawing", n, unit="picture", show=progress) as bar:
        for tried in range(1, tries + 1):
            left = [k for k in range(n) if k not in best or best[k].probability < SURE]
            if not left:
                break
            # Draw a picture of each that is not likely right yet, and read it
            values, filled = _places(graph, len(left), objects, random)
            composer = Composer(per_sample([model.compose(one) for one in filled]))
            with count_rows() as sampling:
                images = composer.sample(len(left), generator=random, output_type="pt", progress=False, **options)
            # Keep the best of each
            for k, asked, one, image in zip(left, values, filled, images, strict=True):
                with count_rows() as looking:
                    sure = check_words(image, model, one, asked)
                rows[k] += sampling.rows // len(left) + looking.rows
                if k not in best or sure > best[k].probability:
                    best[k] = Picture(image, one, sure, tried, rows[k])
                best[k] = attrs.evolve(best[k], tries=tried, rows=rows[k])
            bar.advance(sum(best[k].probability >= SURE for k in left))
    pictures = [best[k] for k in range(n)]
    if output_type == "pt":
        return pictures
    made = to_output(torch.stack([one.image for one in pictures]), "pil", (0.0, 1.0))
    return [attrs.evolve(one, image=image) for one, image in zip(pictures, made, strict=True)]


def _places(graph: SceneGraph, n: int, objects: Any, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Values (n, K, *V) for which a graph holds when open sizes are large, and these with the sizes filled in."""
    values = placed(graph, n, objects=objects, generator=generator)
    for _ in range(AGAIN):
        # A large object stands elsewhere than one of open size at the same place
        filled = _fill_sizes(values)
        wrong = ~graph.holds(ground_of(filled))
        if not bool(wrong.any()):
            return values, filled
        values[wrong] = placed(graph, int(wrong.sum()), objects=objects, generator=generator)
    got = "got relations that hold of no places of large objects, which open sizes are drawn as"
    raise InputError(f"{got}; expected some that do; give the sizes, such as 'small cube'")


def _fill_sizes(values: Tensor) -> Tensor:
    """Values with large objects where the size is open."""
    sizes = torch.where(values[..., SIZE] == 0, LARGE, values[..., SIZE])
    return torch.cat([values[..., :SIZE], sizes[..., None], values[..., SIZE + 1 :]], dim=-1)


def check_words(image: Tensor, model: Model, values: Tensor, asked: Tensor) -> float:
    """The posterior that an image (3, H, W) in [0, 1] shows the words (K, *V) that were asked for, at these places."""
    problem = make_problem(model.encode(model.given(image)), model, count=len(values))
    found = read_attributes(problem, values[:, :2], sweeps=LOOKS, generator=0).probabilities(problem.posterior)
    sure = 1.0
    for attribute, chances in enumerate(found):
        words = asked[:, 2 + attribute].long()
        own = chances.gather(1, (words - 1).clamp(min=0)[:, None])[:, 0]
        sure *= float(torch.where(words > 0, own, torch.ones_like(own)).prod())
    return sure
