"""Procedural solid textures in random colours: what the surfaces of scenes unlike CLEVR's are painted with."""

import math

import attrs
import torch
from torch import Tensor
from torch.nn import functional

PATTERNS = ("stripes", "checks", "dots", "noise", "marble", "bricks", "planks")
TURNED = ("stripes", "noise", "marble")  # the others stay upright: faces would cut their cells to slivers
LATTICE = 8  # the noise's period, in cells
OBJECT_CELLS, GROUND_CELLS = (1.8, 3.5), (0.4, 1.1)  # cells a scene unit
CONTRAST = 0.35  # least distance of an object's mean colour from the ground's, of encoded channels in [0, 1]
GRAIN = 0.2  # how much fine noise darkens every pattern


@attrs.frozen(eq=False)
class Texture:
    """A pattern that fills space. colors: `(2, 3)` linear albedos. lattice: `(P, P, P)` noise in [0, 1].

    frame, shift: `(3, 3)` and `(3,)`, from scene units to the pattern's cells of size 1.
    """

    pattern: str
    colors: Tensor
    frame: Tensor
    shift: Tensor
    lattice: Tensor


@attrs.frozen(eq=False)
class Textures:
    """The ground's texture, fixed to the world, and one for each of K objects, fixed to their centres and turns."""

    ground: Texture
    objects: tuple[Texture, ...]


def sample_textures(count: int, generator: torch.Generator) -> Textures:
    """Random textures of the ground and of `count` objects, each of another mean colour than the ground."""
    base = _color(generator, (0.0, 0.7), (0.35, 1.0))
    other = (base * _uniform(generator, 0.25, 0.65) + 0.15 * torch.rand(3, generator=generator)).clamp(0.02, 0.9)
    ground = _texture(torch.stack([base, other]), GROUND_CELLS, generator, upright=True)
    objects: list[Texture] = []
    while len(objects) < count:
        colors = torch.stack([_color(generator, (0.2, 1.0), (0.25, 1.0)) for _ in range(2)])
        if (_encode(colors.mean(0)) - _encode(ground.colors.mean(0))).norm() >= CONTRAST:
            objects.append(_texture(colors, OBJECT_CELLS, generator))
    return Textures(ground=ground, objects=tuple(objects))


def paint(texture: Texture, points: Tensor) -> Tensor:
    """Linear albedos `(3, N)` of `texture` at `points` `(3, N)`, in scene units."""
    cells = texture.frame @ points + texture.shift[:, None]
    share = _share(texture, cells)
    first, second = texture.colors[:, :, None]
    return (first + (second - first) * share) * (1 - GRAIN * _noise(texture.lattice, 5.3 * cells))


def _share(texture: Texture, cells: Tensor) -> Tensor:
    """How much `(N,)` of the second colour the pattern shows at `cells` `(3, N)`."""
    x, y, _ = cells
    match texture.pattern:
        case "stripes":
            return _steep((2 * math.pi * x).sin())
        case "checks":
            return cells.floor().sum(0).remainder(2)
        case "dots":
            return _steep(4 * (0.38 - (cells.remainder(1) - 0.5).norm(dim=0)))
        case "noise":
            return _steep(2.5 * (_fractal(texture.lattice, cells) - 0.5))
        case "marble":
            return 0.5 + 0.5 * (2 * math.pi * (x + 1.8 * _fractal(texture.lattice, cells))).sin()
        case "bricks":
            return _tiles(texture.lattice, torch.stack([x / 1.6, y, cells[2]]), 0.5)
        case _:
            grain = _noise(texture.lattice, cells * torch.tensor([[0.7], [6.0], [6.0]]))
            return 0.6 * _tiles(texture.lattice, torch.stack([x / 5, 1.4 * y, cells[2]]), 0.37) + 0.4 * grain


def _tiles(lattice: Tensor, cells: Tensor, slide: float) -> Tensor:
    """Joints at 1, and tiles of their own shade below 0.5; each row of tiles starts `slide` further along."""
    x, y, z = cells
    row, layer = y.floor(), z.floor()
    x = x + slide * (row + layer)
    column = x.floor()
    edge = torch.minimum((x - column - 0.5).abs() * -2 + 1, torch.minimum(_edge(y - row), _edge(z - layer)))
    shade = lattice[tuple(part.long() % LATTICE for part in (column, row, layer))]
    return torch.where(edge < 0.14, 1.0, 0.5 * shade)


def _edge(part: Tensor) -> Tensor:
    return 1 - (2 * part - 1).abs()


def _steep(value: Tensor) -> Tensor:
    return torch.sigmoid(6 * value)


def _fractal(lattice: Tensor, cells: Tensor) -> Tensor:
    octaves = (_noise(lattice, cells), _noise(lattice, 2.1 * cells + 3.7), _noise(lattice, 4.3 * cells))
    return (4 * octaves[0] + 2 * octaves[1] + octaves[2]) / 7


def _noise(lattice: Tensor, cells: Tensor) -> Tensor:
    """Value noise `(N,)` in [0, 1]: the lattice's values with smoothed steps between them."""
    low = cells.floor()
    step = cells - low
    spots = low.remainder(LATTICE) + step * step * (3 - 2 * step)
    wrapped = functional.pad(lattice[None, None], (0, 1, 0, 1, 0, 1), mode="circular")
    grid = (spots * 2 / LATTICE - 1).T.reshape(1, 1, 1, -1, 3)
    return functional.grid_sample(wrapped, grid, align_corners=True).flatten()


def _texture(colors: Tensor, span: tuple[float, float], generator: torch.Generator, upright: bool = False) -> Texture:
    pattern = PATTERNS[int(torch.randint(len(PATTERNS), (), generator=generator))]
    if upright:
        turn = _uniform(generator, 0, 2 * math.pi)
        cosine, sine = math.cos(turn), math.sin(turn)
        frame = torch.tensor([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    elif pattern in TURNED:
        frame, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator))
    else:
        frame = torch.eye(3)
    shift = LATTICE * torch.rand(3, generator=generator)
    if upright:
        shift[2] = 0.5  # the plane z = 0 runs through the middle of the cells
    return Texture(
        pattern=pattern,
        colors=colors,
        frame=frame * _uniform(generator, *span),
        shift=shift,
        lattice=torch.rand(LATTICE, LATTICE, LATTICE, generator=generator),
    )


def _color(generator: torch.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Tensor:
    """One colour `(3,)` of any hue."""
    hue, strength, bright = (_uniform(generator, *span) for span in ((0, 6), saturation, value))
    k = (torch.tensor([5.0, 3.0, 1.0]) + hue) % 6
    return bright * (1 - strength * torch.minimum(k, 4 - k).clamp(0, 1))


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _encode(linear: Tensor) -> Tensor:
    return linear.clamp_min(0).pow(1 / 2.2)
