"""The lamps of a scene of CLEVR."""

import attrs
import torch
from torch import Tensor

# Key, fill, back and sun: places, facing, colours and ambient light are least-squares fits to 60 official images.
LIGHT_POSITIONS = ((6.39, -3.04, 3.68), (-4.43, -3.58, 2.76), (-0.40, 2.99, 4.96), (11.66, -6.63, 25.82))
LIGHT_AXES = ((0.784, -0.519, 0.341), (-0.615, -0.509, 0.602), (0.277, 0.620, 0.734))  # not for the sun
LIGHT_COLORS = ((6.71, 6.24, 5.36), (1.14, 1.24, 1.57), (2.93, 2.93, 2.93), (0.04, 0.04, 0.04))
LIGHT_JITTER = (1.2, 1.2, 1.2, 2.0)  # the official generator moves the first three by up to 1
AMBIENT = 0.14
FLOOR = 0.8


@attrs.frozen(eq=False)
class Lighting:
    """Lights key, fill, back, sun and the camera's response, all in linear light.

    positions: `(L, 3)`. colors: `(L, 3)` power times tint. ambient: `(3,)`. floor: `(3,)` ground albedo.
    tints: `(K, 3)` factors on the objects' albedos. exposure, gamma: factors on the response.
    blur: weight of each neighbour in the final 3-tap filter, below zero sharpens.
    mirror, glow, sky: factors on what metal mirrors, on the lights' images in it, and on the sky that it mirrors.
    """

    positions: Tensor
    colors: Tensor
    ambient: Tensor
    floor: Tensor
    tints: Tensor
    exposure: float = 1.0
    gamma: float = 1.0
    blur: float = 0.0
    mirror: float = 1.0
    glow: float = 1.0
    sky: float = 1.0


def default_lighting(count: int) -> Lighting:
    """The base scene's lights without jitter, for `count` objects."""
    return Lighting(
        positions=torch.tensor(LIGHT_POSITIONS),
        colors=torch.tensor(LIGHT_COLORS),
        ambient=torch.full((3,), AMBIENT),
        floor=torch.full((3,), FLOOR),
        tints=torch.ones(count, 3),
    )


def sample_lighting(count: int, generator: torch.Generator, amount: float = 1.0) -> Lighting:
    """Lights moved and dimmed at random, a little more than in the official images, for `count` objects.

    `amount` scales how much everything varies, see `Variety.lights`.
    """

    def around(*shape: int) -> Tensor:
        return amount * (torch.rand(shape, generator=generator) * 2 - 1)

    base = default_lighting(count)
    return Lighting(
        positions=base.positions + around(4, 3) * torch.tensor(LIGHT_JITTER)[:, None],
        colors=base.colors * (1 + 0.2 * around(4, 1)) * (1 + 0.06 * around(4, 3)),
        ambient=base.ambient * (1 + 0.2 * around(1)) * (1 + 0.03 * around(3)),
        floor=base.floor * (1 + 0.1 * around(1)) * (1 + 0.015 * around(3)),
        tints=(1 + 0.15 * around(count, 1)) * (1 + 0.1 * around(count, 3)),
        exposure=float(1 + 0.12 * around(1)),
        gamma=float(1 + 0.06 * around(1)),
        blur=float(0.01 + 0.06 * around(1)),
        mirror=float(1 + 0.2 * around(1)),
        glow=float(2 ** around(1)),
        sky=float(2 ** around(1)),
    )
