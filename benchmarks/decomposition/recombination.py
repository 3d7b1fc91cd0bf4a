"""Combine the parts of two images (thesis Fig. 4.7) and of two models (Fig. 4.10).

python benchmarks/decomposition/recombination.py [-n 100] [--seed 0] [--comet runs/comet-a/model runs/comet-b/model]
    [-o runs/benchmarks]

Train COMET for both worlds: energycomp train comet -o runs/comet-a, and with --option world=b -o runs/comet-b.

The objects of both images do not touch, so the image of all objects is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from tqdm import tqdm

from benchmarks.common.measure import table, write
from benchmarks.common.options import parser
from energycomp import Composer, Decomposer, load
from energycomp.components import Composition, combine
from energycomp.decomposition import add, decomposer_of
from energycomp.files import atomic_file
from energycomp.images import grid
from energycomp_datasets.shapes.shapes import GROUND, SIZE, ShapesScene, layout, render
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_decomp.comet import CometDecomposer
from energycomp_lab.evaluation import MaskRecall

COMMAND = "python benchmarks/decomposition/recombination.py"
CLEAR, TRIES = 1, 100  # pixels between objects at least; places that are tried for one
SEEN = 0.3  # of brightness in [-1, 1]: what differs by more from the ground is no ground
SHOWN, SIDE = 8, 112  # pairs in the picture, and the px of an image in it
CHUNK = 25
Pair = tuple[ShapesScene, ShapesScene]


def pairs(count: int, objects: tuple[int, int], seed: int, worlds: Sequence[str]) -> list[Pair]:
    """Pictures with so many objects each, of which none touches another of either picture."""
    rng, found = np.random.default_rng([HELD_OUT, seed, *objects]), []
    while len(found) < count:
        drawn = [layout(rng, number, world=world) for number, world in zip(objects, worlds, strict=True)]
        places = _places(rng, np.concatenate([one[:, 3] for one in drawn]))
        if places is None:
            continue
        for one, own in zip(drawn, np.split(places, [objects[0]]), strict=True):
            one[:, 1:3] = own
        a, b = (_scene(one, world) for one, world in zip(drawn, worlds, strict=True))
        if len(blobs(true((a, b))[0])) == sum(objects):
            found.append((a, b))
    return found


def _places(rng: np.random.Generator, radius: np.ndarray) -> np.ndarray | None:
    """Centres (N, 2) whose objects keep clear of each other, or None where one finds no room."""
    places: list[np.ndarray] = []
    for r in radius:
        for _ in range(TRIES):
            place = rng.uniform(r, 1 - r, 2)
            room = 0.85 * (radius[: len(places)] + r) + CLEAR / SIZE
            if not places or bool((np.hypot(*(np.stack(places) - place).T) >= room).all()):
                places.append(place)
                break
        else:
            return None
    return np.stack(places)


def _scene(objects: np.ndarray, world: str) -> ShapesScene:
    values = torch.from_numpy(objects).float()
    images, masks = render(values[None], world=world)
    return ShapesScene(images[0], masks[0], values)


def true(pair: Pair) -> tuple[Tensor, Tensor]:
    """The picture with the objects of both, (3, H, W), and their masks."""
    a, b = pair
    ground = torch.tensor(GROUND)[:, None, None]
    return a.image + b.image - ground, torch.cat([a.masks, b.masks])


def blobs(picture: Tensor) -> Tensor:
    """Masks (N, H, W) of what is connected and differs from the ground, of nine pixels or more."""
    differs = (picture - torch.tensor(GROUND)[:, None, None]).abs().amax(0) > SEEN
    numbers, count = ndimage.label(differs.numpy(), structure=np.ones((3, 3)))
    masks = [torch.from_numpy(np.asarray(numbers == k)) for k in range(1, count + 1)]
    large = [mask for mask in masks if int(mask.sum()) > 8]
    return torch.stack(large) if large else torch.zeros(0, *picture.shape[1:], dtype=torch.bool)


def added(decomposer: Decomposer, first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
    """All parts of pictures (B, 3, H, W) and of others, in one."""
    return decomposer.decode(add(decomposer.encode(first), decomposer.encode(second)), generator=generator)


def crossed(a: Any, b: Any) -> Callable[..., Tensor]:
    """All parts that one model reads from pictures and another from others: leaves of both, in one composition."""

    def made(first: Tensor, second: Tensor, generator: torch.Generator) -> Tensor:
        total = Composition.of(b.model.unconditional) * -1.0
        for decomposer, pictures in ((a, first), (b, second)):
            latents = decomposer.encode(pictures)
            leaves = [decomposer.model.leaf(latents[:, k]) for k in range(latents.shape[1])]
            total = total + combine(leaves, "product")
        if isinstance(a, CometDecomposer):
            return _descended(Composer(total), a, first, generator)
        options = {"scheduler": "DDIMScheduler", "num_inference_steps": a.model.defaults.num_inference_steps}
        pictures: Tensor = Composer(total).sample(
            len(first), generator=generator, output_type="latent", progress=False, **options
        )
        return pictures.clamp(-1, 1)

    return made


def _descended(composer: Composer, comet: CometDecomposer, like: Tensor, generator: torch.Generator) -> Tensor:
    """Gradient descent on the composed energy, from noise."""
    x = torch.randn(like.shape, generator=generator)
    for _ in range(comet.steps):
        x = x - comet.step_size * composer.eps(x, x.new_zeros(len(x)))
    return x.clamp(-1, 1)


def scored(make: Callable[..., Tensor], chosen: Sequence[Pair], seed: int, title: str) -> Tensor:
    """The pictures (N, 3, H, W) of all pairs."""
    generator, made = torch.Generator().manual_seed(seed), []
    for start in tqdm(range(0, len(chosen), CHUNK), desc=title, leave=False):
        part = chosen[start : start + CHUNK]
        first, second = (torch.stack([pair[k].image for pair in part]) for k in (0, 1))
        made.append(make(first, second, generator))
    return torch.cat(made)


def counted(made: Tensor, chosen: Sequence[Pair]) -> list[str]:
    """Objects of both that a blob matches at IoU 0.5, pictures whose number is right, and the MSE to the true sum."""
    recall, right = MaskRecall(), 0
    wanted = [true(pair) for pair in chosen]
    for picture, (_, masks) in zip(made, wanted, strict=True):
        found = blobs(picture)
        recall.update([found], [masks])
        right += len(found) == len(masks)
    error = (made - torch.stack([image for image, _ in wanted])).square().mean()
    return [f"{100 * float(recall.compute()):.1f} %", f"{100 * right / len(chosen):.0f} %", f"{float(error):.4f}"]


def shown(path: Path, chosen: Sequence[Pair], made: dict[str, Tensor]) -> None:
    """A picture with a column a pair: one, the other, and what the models make of both, by their names."""
    first, second = (torch.stack([pair[k].image for pair in chosen[:SHOWN]]) for k in (0, 1))
    images = torch.cat([first, second, *(pictures[:SHOWN] for pictures in made.values())])
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        names = ["first image", "second image", *made]
        grid(images, columns=len(first), side=SIDE, names=names).save(temporary, format="PNG")


@torch.no_grad()
def main() -> None:
    """Writes recombination.md, adding.png of two images of world a, and crossing.png of one of each world."""
    made = parser(__doc__, n=(100, "pairs"), seed=0, threads=1, out="runs/benchmarks")
    made.add_argument("--models", nargs=2, default=["decomp", "decomp-b"], help="of the worlds a and b")
    made.add_argument("--comet", nargs=2, help="folders of COMET of the worlds a and b, for comparison")
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    ways = {"Decomp Diffusion": [decomposer_of(load(name)) for name in options.models]}
    if options.comet:
        ways["COMET"] = [decomposer_of(load(name)) for name in options.comet]
    rows = []
    for name, objects, worlds in (("adding", (2, 2), "aa"), ("adding", (3, 2), "aa"), ("crossing", (2, 2), "ab")):
        chosen, images = pairs(options.n, objects, options.seed, worlds), {}
        for title, (a, b) in ways.items():
            make = crossed(a, b) if name == "crossing" else partial(added, a)
            images[title] = scored(make, chosen, options.seed, name)
            rows.append([title, " and ".join(worlds), f"{objects[0]} + {objects[1]}", *counted(images[title], chosen)])
        shown(options.out / f"{name}.png", chosen, images)
    further = f" --comet {' '.join(options.comet)}" if options.comet else ""
    note = (
        f"`{COMMAND} -n {options.n} --seed {options.seed}{further}`: {options.n} pairs of images none of whose objects "
        "touch. A blob is what is connected and differs from the ground by more than 0.3 of a range of 2; it shows an "
        "object that it covers at an intersection over union of 0.5."
    )
    head = ("model", "worlds", "objects", "found", "number of blobs right", "MSE to the true sum")
    write(options.out / "recombination", table(head, rows, note))


if __name__ == "__main__":
    main()
