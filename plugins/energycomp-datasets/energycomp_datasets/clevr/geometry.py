"""The CLEVR camera and its rays; the shapes as intersections of intervals."""

import math
from functools import reduce

import torch
from torch import Tensor

from energycomp.errors import InputError

CAMERA_POSITION = (7.48, -6.51, 5.34)  # scene units, z up; the camera looks at the origin
HALF_WIDTH = 240 / 525  # tangent of half the horizontal field of view
HALF_HEIGHT = 160 / 525
SHAPES = ("cube", "sphere", "cylinder")
MORE_SHAPES = ("cone", "egg", "tower", "gem")  # not CLEVR's; their indices follow on those of SHAPES
STRETCHED = {4: (1, 0.68), 5: (0, 0.5)}  # egg and tower: the shape that they are, and how wide for its height
FAR = 1e6
Coordinates = tuple[Tensor, ...]  # x, y, z apart
CORNER = 1 / 1.5  # |x| + |y| + |z| <= 1.5 on the gem
CHAMFER = 1 / 1.88  # |x| + |y| <= 1.88 on the unit box: the official cubes have round edges


def camera_basis(camera: Tensor) -> Tensor:
    """Rows right, up, forward `(3, 3)` of a camera at `camera` `(3,)` that looks at the origin."""
    forward = -camera / camera.norm()
    right = torch.stack([forward[1], -forward[0], torch.zeros_like(forward[0])])
    right = right / right.norm()
    return torch.stack([right, torch.linalg.cross(right, forward), forward])


def project(points: Tensor, camera: Tensor) -> Tensor:
    """Image coordinates `(..., 2)` in [0, 1] (x right, y down, origin top left) of `points` `(..., 3)`.

    They are `pixel_coords / (480, 320)` of the official records. Points outside the frame leave [0, 1].

    >>> project(torch.zeros(1, 3), torch.tensor(CAMERA_POSITION))
    tensor([[0.5000, 0.5000]])
    """
    right, up, depth = ((points - camera) @ camera_basis(camera).T).unbind(-1)
    return torch.stack([0.5 + right / depth / (2 * HALF_WIDTH), 0.5 - up / depth / (2 * HALF_HEIGHT)], -1)


def unproject(places: Tensor, heights: Tensor, camera: Tensor) -> Tensor:
    """The points `(K, 3)` at `heights` `(K,)` above the ground that `project` sees at `places` `(K, 2)`.

    >>> camera = torch.tensor(CAMERA_POSITION)
    >>> point = torch.tensor([[1.0, -2.0, 0.7]])
    >>> torch.allclose(unproject(project(point, camera), point[:, 2], camera), point, atol=1e-4)
    True
    """
    right, up, forward = camera_basis(camera)
    x, y = (2 * places[:, :1] - 1) * HALF_WIDTH, (1 - 2 * places[:, 1:]) * HALF_HEIGHT
    direction = forward + x * right + y * up
    distance = (heights - camera[2]) / direction[:, 2]
    if bool((distance <= 0).any() | ~torch.isfinite(distance).all()):
        raise InputError(
            f"got the places {places.tolist()} with one above the horizon; expected places of objects on the ground; "
            "look at the picture"
        )
    return camera + distance[:, None] * direction


def ray_grid(camera: Tensor, height: int, width: int) -> Tensor:
    """Directions `(3, height, width)` of the rays through the pixel centres, of unit length along the forward axis."""
    right, up, forward = camera_basis(camera)
    x: Tensor = ((torch.arange(width) + 0.5) * 2 / width - 1) * HALF_WIDTH
    y = (1 - (torch.arange(height) + 0.5) * 2 / height) * HALF_HEIGHT
    across = right[:, None, None] * x
    down = up[:, None, None] * y[:, None]
    grid: Tensor = forward[:, None, None] + across + down
    return grid


def to_local(vectors: Tensor, size: float, cosine: float, sine: float) -> tuple[Tensor, Tensor, Tensor]:
    """The x, y, z parts of `vectors` `(3, ...)` in the frame where an object turned about z has unit size."""
    x, y, z = vectors
    cosine, sine = cosine / size, sine / size
    return x * cosine + y * sine, y * cosine - x * sine, z / size


def interval(shape: int, origin: Coordinates, direction: Coordinates) -> tuple[Tensor, Tensor]:
    """Ray parameters `(enter, leave)` of the unit shape; the ray misses where `enter >= leave`.

    `shape` indexes `SHAPES + MORE_SHAPES`; `origin` and `direction` are the local x, y, z parts, which broadcast.
    """
    if shape in STRETCHED:
        shape, width = STRETCHED[shape]
        origin, direction = (_widen(parts, 1 / width) for parts in (origin, direction))
    if shape == 0:
        return _slabs(_chamfers(origin), _chamfers(direction))
    if shape == 3:
        return _cone(origin, direction)
    if shape == 6:
        return _slabs(_facets(origin), _facets(direction))
    axes = 3 if shape == 1 else 2
    a = _dot(direction[:axes], direction[:axes]).clamp_min(1e-12)
    b = _dot(origin[:axes], direction[:axes])
    c = _dot(origin[:axes], origin[:axes]) - 1
    discriminant = b * b - a * c
    root = discriminant.clamp_min(0).sqrt()
    enter, leave = (-b - root) / a, (-b + root) / a
    if shape == 1:
        return enter, leave
    low, high = _slabs(origin[2:], direction[2:])
    return torch.maximum(enter, low), torch.minimum(leave, high)


def _cone(origin: Coordinates, direction: Coordinates) -> tuple[Tensor, Tensor]:
    """The cone whose base is the unit disc at z = -1 and whose tip is at z = 1."""
    o, d = ((*parts[:2], parts[2] * -0.5) for parts in (origin, direction))
    o = (*o[:2], o[2] + 0.5)  # the third part is the radius at that height
    a = _dot(d[:2], d[:2]) - d[2] * d[2]
    a = torch.where(a.abs() < 1e-9, 1e-9, a)
    b = _dot(o[:2], d[:2]) - o[2] * d[2]
    discriminant = b * b - a * (_dot(o[:2], o[:2]) - o[2] * o[2])
    root = discriminant.clamp_min(0).sqrt()
    first, second = (-b - root) / a, (-b + root) / a
    # A ray steeper than the cone leaves it through the base only: it is inside beyond a root, on the base's side.
    steep = a < 0
    down = d[2] > 0
    near = torch.where(steep, torch.where(down, torch.maximum(first, second), -FAR), first)
    far = torch.where(steep, torch.where(down, FAR, torch.minimum(first, second)), second)
    low, high = _slabs(origin[2:], direction[2:])
    return torch.maximum(near, low), torch.minimum(far, high)


def _widen(parts: Coordinates, factor: float) -> Coordinates:
    x, y, z = parts
    return x * factor, y * factor, z


def _facets(parts: Coordinates) -> Coordinates:
    """The axes and the corner directions of a box whose corners are cut off, scaled so that each slab is [-1, 1]."""
    x, y, z = parts
    corners = (x + y + z, x + y - z, x - y + z, x - y - z)
    return (x, y, z, *(part * CORNER for part in corners))


def _dot(first: Coordinates, second: Coordinates) -> Tensor:
    return reduce(torch.add, (a * b for a, b in zip(first, second, strict=True)))


def _chamfers(parts: Coordinates) -> Coordinates:
    """The box's axes and its six edge directions, scaled so that each slab is [-1, 1]."""
    x, y, z = parts
    return (x, y, z, *((a + sign * b) * CHAMFER for a, b in ((x, y), (y, z), (z, x)) for sign in (1, -1)))


def _slabs(origin: Coordinates, direction: Coordinates) -> tuple[Tensor, Tensor]:
    bounds = []
    for o, d in zip(origin, direction, strict=True):
        inverse = 1 / d
        middle = -o * inverse
        reach = inverse.abs()
        bounds.append((middle - reach, middle + reach))
    enters, leaves = zip(*bounds, strict=True)
    return reduce(torch.maximum, enters), reduce(torch.minimum, leaves)


def normal(shape: int, local: Coordinates, bevel: float = 18.0) -> Tensor:
    """Unit normals `(3, N)` in the local frame at surface points `local`; `bevel` is a power that rounds the edges."""
    if shape in STRETCHED:
        shape, width = STRETCHED[shape]
        facing = normal(shape, _widen(local, 1 / width), bevel)
        return torch.nn.functional.normalize(facing / torch.tensor([[width], [width], [1.0]]), dim=0)
    x, y, z = local
    if shape == 3:
        return _cone_normal(local)
    if shape == 6:
        return _facet_normal(local)
    if shape == 0:
        parts = [p.sign() * p.abs().pow(bevel) for p in local]
    elif shape == 1:
        parts = [x, y, z]
    else:
        side = (x * x + y * y).pow(bevel / 2)
        parts = [x * side, y * side, z.sign() * z.abs().pow(bevel)]
    return torch.nn.functional.normalize(torch.stack(parts), dim=0)


def _cone_normal(local: Coordinates) -> Tensor:
    x, y, z = local
    radius = (x * x + y * y).sqrt().clamp_min(1e-6)
    side = torch.stack([x / radius, y / radius, torch.full_like(z, 0.5)]) / math.sqrt(1.25)
    base = torch.tensor([0.0, 0.0, -1.0])[:, None]
    return torch.where(z < -1 + 1e-4, base, side)


def _facet_normal(local: Coordinates) -> Tensor:
    sides = torch.stack(_facets(local))  # (7, N), the largest is the facet that the point lies on
    axes = torch.stack(_facets(torch.eye(3).unbind()))
    facing = torch.nn.functional.normalize(axes, dim=1)[sides.abs().argmax(0)].T
    return facing * sides.gather(0, sides.abs().argmax(0)[None]).sign()
