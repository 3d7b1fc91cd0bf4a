"""Light arriving at points of a CLEVR scene: area lights with soft shadows, ambient light, rubber and metal."""

import math

import torch
from torch import Tensor

from energycomp_datasets.clevr.geometry import FAR, interval, normal, to_local
from energycomp_datasets.clevr.lighting import LIGHT_AXES
from energycomp_datasets.clevr.scenes import COLORS, Scene
from energycomp_datasets.clevr.textures import paint

LIGHT_RADII = (0.5, 0.5, 0.5, 1.5)  # scene units
LIGHT_SAMPLES = 4
GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
# Material weights are non-negative least-squares fits to the metal and rubber pixels of 60 official images.
RUBBER_DIFFUSE = 0.95
# By kind of face, those of cube, sphere and cylinder: flat brushed faces blur what they reflect.
METAL_DIFFUSE = (0.15, 0.03, 0.17)
METAL_MIRROR = (0.72, 0.85, 0.72)
METAL_GLOW = (1.0, 2.0, 1.0)  # factor on the lobes
FACES = (0, 1, 2, 2, 1, 0, 0)  # the kind of each of SHAPES + MORE_SHAPES
METAL_LOBES = ((6, 0.022), (20, 0.03), (60, 0.03), (250, 0.035), (1000, 0.8))  # (power, weight) of the lights' images
METAL_IN_METAL = 0.6  # brightness of metal that metal reflects, without a second bounce
SKY = 0.025  # what metal reflects above the horizon, in linear light
SKY_BEHIND = 0.085  # and, on top of it, far behind the scene
BEHIND = (-0.755, 0.656)  # horizontal direction away from the camera


def frame_of(scene: Scene, k: int) -> tuple[float, float, float]:
    """Size and the rotation's cosine and sine of object `k`, as `to_local` takes them."""
    turn = float(scene.rotations[k])
    return float(scene.sizes[k]), math.cos(turn), math.sin(turn)


def surface_normals(scene: Scene, points: Tensor, ids: Tensor) -> Tensor:
    """Unit outward normals `(3, N)` at `points` `(3, N)` on the objects `ids` `(N,)`."""
    out = torch.empty_like(points)
    for k in range(len(scene.sizes)):
        chosen = (ids == k).nonzero()[:, 0]
        size, cosine, sine = frame_of(scene, k)
        offset = points[:, chosen] - scene.positions[k][:, None]
        x, y, z = normal(int(scene.shapes[k]), to_local(offset, size, cosine, sine))
        out[:, chosen] = torch.stack([x * cosine - y * sine, x * sine + y * cosine, z])
    return out


def albedos(scene: Scene) -> Tensor:
    """Linear albedos `(K, 3)`: the palette is used as linear light, as the official generator hands it to Blender."""
    palette = torch.tensor(list(COLORS.values())) / 255
    return (palette[scene.colors] * scene.lighting.tints).clamp(0.02, 1.0)


def surface_albedos(scene: Scene, points: Tensor, ids: Tensor) -> Tensor:
    """Linear albedos `(3, N)` at `points` `(3, N)` on the objects `ids` `(N,)`."""
    if scene.textures is None:
        return albedos(scene)[ids].T
    out = torch.empty_like(points)
    for k, texture in enumerate(scene.textures.objects):
        chosen = (ids == k).nonzero()[:, 0]
        _, cosine, sine = frame_of(scene, k)
        local = to_local(points[:, chosen] - scene.positions[k][:, None], 1.0, cosine, sine)
        out[:, chosen] = paint(texture, torch.stack(local)) * scene.lighting.tints[k][:, None]
    return out.clamp(0.02, 1.0)


def ground_albedo(scene: Scene, points: Tensor) -> Tensor:
    """Linear albedo `(3, N)`, or `(3, 1)` where it is the same all over, of the ground at `points` `(3, N)`."""
    return scene.lighting.floor[:, None] if scene.textures is None else paint(scene.textures.ground, points)


def light_samples(scene: Scene, samples: int = LIGHT_SAMPLES) -> Tensor:
    """Points `(L, S, 3)` spread over the discs of the lights, which face the origin."""
    centres = scene.lighting.positions
    radii = torch.tensor(LIGHT_RADII)[:, None, None]
    axis = torch.nn.functional.normalize(-centres, dim=1)
    right = torch.nn.functional.normalize(torch.stack([axis[:, 1], -axis[:, 0], torch.zeros(len(axis))], 1), dim=1)
    up = torch.linalg.cross(right, axis)
    steps = torch.arange(samples)
    radius = ((steps + 0.5) / samples).sqrt() if samples > 1 else torch.zeros(1)
    disc = torch.stack([radius * (steps * GOLDEN_ANGLE).cos(), radius * (steps * GOLDEN_ANGLE).sin()])  # (2, S)
    spread: Tensor = radii * (disc[0, :, None] * right[:, None] + disc[1, :, None] * up[:, None])
    return centres[:, None] + spread


def visibility(scene: Scene, points: Tensor, samples: int = LIGHT_SAMPLES) -> Tensor:
    """Share `(L, N)` of each light that `points` `(3, N)` see past the objects."""
    lights = light_samples(scene, samples).permute(2, 0, 1)[..., None]  # (3, L, S, 1)
    open_ = torch.ones(*lights.shape[1:3], points.shape[1], dtype=torch.bool)
    for k in range(len(scene.sizes)):
        frame = frame_of(scene, k)
        centre = scene.positions[k]
        origin = to_local(points - centre[:, None], *frame)
        target = to_local(lights - centre[:, None, None, None], *frame)
        direction = tuple(t - o for t, o in zip(target, origin, strict=True))
        enter, leave = interval(int(scene.shapes[k]), origin, direction)
        open_ &= (enter >= leave) | (leave < 0.02) | (enter > 1)
    return open_.float().mean(1)


def irradiance(scene: Scene, points: Tensor, normals: Tensor, seen: Tensor | None = None) -> Tensor:
    """Light `(3, N)` on `points` `(3, N)` with `normals` `(3, N)`; `seen` `(L, N)` is the lights' visibility."""
    lighting = scene.lighting
    out = lighting.ambient[:, None]
    for light in range(len(lighting.positions)):
        out = out + lighting.colors[light][:, None] * _arriving(scene, light, points, normals, seen)
    return out


def _arriving(scene: Scene, light: int, points: Tensor, normals: Tensor, seen: Tensor | None) -> Tensor:
    position = scene.lighting.positions[light]
    x, y, z = position[:, None] - points
    inverse = (x * x + y * y + z * z).rsqrt()
    weight: Tensor = ((x * normals[0] + y * normals[1] + z * normals[2]) * inverse).clamp_min(0)
    if light < 3:
        axis = LIGHT_AXES[light]
        weight = weight * ((x * axis[0] + y * axis[1] + z * axis[2]) * inverse).clamp_min(0) * inverse * inverse
    return weight if seen is None else weight * seen[light]


def openness(scene: Scene, points: Tensor, normals: Tensor) -> Tensor:
    """Share `(N,)` of the ambient light that the objects, taken as spheres, leave to `points`."""
    out = torch.ones(points.shape[1])
    for centre, size in zip(scene.positions, scene.sizes, strict=True):
        offset = centre[:, None] - points
        square = (offset * offset).sum(0)
        cosine = (offset * normals).sum(0) * square.rsqrt()
        out = out * (1 - cosine.clamp_min(0) * (size * size / square).clamp_max(1) * 0.9)
    return out


def ground(scene: Scene, points: Tensor, albedo: Tensor, shadows: bool = True) -> Tensor:
    """Linear colour `(3, N)` of the ground of `albedo` `(3, N)` at `points` `(3, N)`."""
    up = torch.zeros_like(points)
    up[2] = 1
    seen = visibility(scene, points) if shadows else None
    shade = openness(scene, points, up)
    return albedo * irradiance(scene, points, up, seen) * (0.9 + 0.1 * shade)


def objects(scene: Scene, points: Tensor, rays: Tensor, ids: Tensor) -> Tensor:
    """Linear colour `(3, N)` of the objects `ids` `(N,)` at `points` `(3, N)` seen along unit `rays` `(3, N)`."""
    normals = surface_normals(scene, points, ids)
    lifted = points + 0.01 * normals
    seen = visibility(scene, lifted)
    metal = scene.materials[ids] == 1
    faces = torch.tensor(FACES)[scene.shapes[ids]]
    color = torch.where(metal, torch.tensor(METAL_DIFFUSE)[faces], RUBBER_DIFFUSE) * irradiance(
        scene, points, normals, seen
    )
    chosen = metal.nonzero()[:, 0]
    if len(chosen):
        facing = normals[:, chosen]
        mirrored = rays[:, chosen] - 2 * (rays[:, chosen] * facing).sum(0) * facing
        mirror, glow = torch.tensor([METAL_MIRROR, METAL_GLOW])[:, faces[chosen]]
        color[:, chosen] += scene.lighting.mirror * mirror * reflected(scene, lifted[:, chosen], mirrored)
        color[:, chosen] += scene.lighting.glow * glow * highlights(scene, points[:, chosen], mirrored, seen[:, chosen])
    return surface_albedos(scene, points, ids) * color


def highlights(scene: Scene, points: Tensor, mirrored: Tensor, seen: Tensor) -> Tensor:
    """Images of the lights `(3, N)` in metal, a sum of lobes about the mirror directions; `seen` `(L, N)`."""
    lighting = scene.lighting
    out = torch.zeros_like(points)
    for light in range(3):
        toward = torch.nn.functional.normalize(lighting.positions[light][:, None] - points, dim=0)
        cosine = (toward * mirrored).sum(0).clamp_min(0)
        lobes = sum(weight * cosine.pow(power) for power, weight in METAL_LOBES)
        out = out + lighting.colors[light][:, None] * lobes * seen[light]
    return out


def reflected(scene: Scene, points: Tensor, rays: Tensor) -> Tensor:
    """Linear colour `(3, N)` that unit `rays` `(3, N)` from `points` meet: objects, ground or sky, one bounce."""
    down = rays[2] < -1e-3
    depth = torch.where(down, -points[2] / rays[2], FAR)
    ids = torch.full(depth.shape, -1, dtype=torch.long)
    for k in range(len(scene.sizes)):
        frame = frame_of(scene, k)
        origin = to_local(points - scene.positions[k][:, None], *frame)
        enter, leave = interval(int(scene.shapes[k]), origin, to_local(rays, *frame))
        near = (enter < leave) & (enter > 0.01) & (enter < depth)
        depth = torch.where(near, enter, depth)
        ids = torch.where(near, k, ids)
    away = (rays[0] * BEHIND[0] + rays[1] * BEHIND[1]).clamp_min(0)
    out = (scene.lighting.sky * (SKY + SKY_BEHIND * away.pow(3))).expand(3, -1).clone()
    met = (down & (ids < 0)).nonzero()[:, 0]
    spots = points[:, met] + rays[:, met] * depth[met]
    out[:, met] = ground(scene, spots, ground_albedo(scene, spots), shadows=False)
    met = (ids >= 0).nonzero()[:, 0]
    spots = points[:, met] + rays[:, met] * depth[met]
    light = irradiance(scene, spots, surface_normals(scene, spots, ids[met]))
    strength = torch.where(scene.materials[ids[met]] == 1, METAL_IN_METAL, RUBBER_DIFFUSE)
    out[:, met] = surface_albedos(scene, spots, ids[met]) * light * strength
    return out
