"""Repainting: sampling a composition in one region of an image, drawing one over another, and where the two differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor

from energycomp.components import Composition, convert, native_type, predict, predict_all
from energycomp.inference import draw_bank
from energycomp.progress import progress as bar
from energycomp.sampling import make_scheduler, sample
from energycomp.seeds import as_generator

DRAWS = 8  # draws of the noise bank that a difference is averaged over
MODES = 2  # directions of these draws that are decoded: nearly all of their squares lie in them
RESTORED = 8  # steps from one call of `restore` to the next: it decodes and encodes images, which takes longer
REDRAWN = 0.9  # the share of the schedule at which `redraw` begins


def repaint(
    composition: Composition,
    picture: Tensor,
    freedom: Tensor,
    *,
    restore: Callable[[Tensor], Tensor] | None = None,
    num_inference_steps: int = 50,
    scheduler: Any = "DDIMScheduler",
    generator: int | torch.Generator | None = None,
    progress: bool = True,
) -> Tensor:
    """Samples a composition in one region of an image and keeps the image elsewhere.

    Each pixel uses the image itself as its x0 prediction down to the noise level `freedom`, and the prediction of the
    composition below that level. With the values 0 and 1 this is inpainting. A step in which no pixel is free costs no
    network evaluation.

    Args:
        composition: of mass 1.
        picture: the image, encoded, (1, C, H, W), as the result is.
        freedom: (1, 1, H, W) in [0, 1], the share of the schedule in which each pixel is free.
        restore: of the predictions of free pixels, what is known of them: pixels of an image within a latent. It is
            called in every eighth step, and in the last one.
        scheduler: as `make_scheduler` takes it.

    >>> from energycomp.testing import Gaussian
    >>> left = (torch.arange(4) < 2).float().expand(1, 1, 4, 4)
    >>> dark = Composition.of(Gaussian(torch.full((1, 4, 4), -0.5), 1e-4))
    >>> painted = repaint(dark, torch.full((1, 1, 4, 4), 0.5), left, num_inference_steps=10, progress=False)
    >>> painted[0, 0, 0].round(decimals=2)
    tensor([-0.5000, -0.5000,  0.5000,  0.5000])
    """
    space = composition.noised_space
    kind = native_type(composition)
    alphas_cumprod = space.alphas_cumprod
    steps = count()

    def held(x_t: Tensor, timestep: Tensor, prediction_type: Any) -> Tensor:
        signal, noise = space.levels(timestep, x_t.dtype)
        free = freedom > (timestep / len(alphas_cumprod))[:, None, None, None]
        x0 = picture.expand_as(x_t)
        step = next(steps)
        if bool(free.any()):
            x0 = torch.where(free, predict(composition, x_t, timestep, prediction_type="sample"), x0)
            if restore is not None and (step % RESTORED == 0 or step >= num_inference_steps - 1):
                x0 = restore(x0)
        return convert(x0, x_t, signal, noise, source="sample", target=prediction_type)

    chosen = make_scheduler(scheduler, alphas_cumprod, prediction_type=kind, value_range=space.value_range)
    return sample(
        held,
        picture.shape,
        chosen,
        num_inference_steps=num_inference_steps,
        generator=generator,
        progress=progress,
        device=picture.device,
    )


def redraw(
    before: Composition,
    after: Composition,
    picture: Tensor,
    *,
    num_inference_steps: int = 50,
    generator: int | torch.Generator | None = None,
    progress: bool = True,
) -> Tensor:
    """Draws one composition over an image of another one; what neither says stays (FlowEdit; Kulikov et al., 2024).

    With D the x0 prediction at the noise level sigma, n new noise and y the picture, z goes in each step towards
    y + D_after(z + sigma n) - D_before(y + sigma n), by the share of sigma that the step takes away. The inputs are
    scaled as the schedule has them. Costs the evaluations of both compositions in each step.

    Args:
        before, after: of mass 1.
        picture: encoded, (1, C, H, W), as the result is.

    >>> from energycomp.testing import Gaussian
    >>> dark, bright = (Composition.of(Gaussian(torch.full((1, 4, 4), mean), 1e-4)) for mean in (-0.5, 0.25))
    >>> picture = torch.tensor([-0.6, -0.5, -0.4, -0.4]).expand(1, 1, 4, 4)
    >>> redraw(dark, bright, picture, num_inference_steps=10, progress=False)[0, 0, 0].round(decimals=2)
    tensor([0.1500, 0.2500, 0.3500, 0.3500])
    """
    space = after.noised_space
    random = as_generator(generator)
    timesteps = torch.linspace(REDRAWN * len(space.alphas_cumprod), 0, num_inference_steps + 1)[:-1].long()
    timesteps = timesteps.to(picture.device)
    levels = [space.levels(timestep[None], picture.dtype) for timestep in timesteps]
    left = [float(noise / signal) for signal, noise in levels]
    found = picture
    for k, (signal, noise) in enumerate(bar(levels, "drawing words", unit="step", show=progress)):
        added = noise * torch.randn(picture.shape, generator=random).to(picture)
        timestep = timesteps[k, None].to(picture)
        new, old = (
            predict(composition, signal * each + added, timestep, prediction_type="sample")
            for composition, each in ((after, found), (before, picture))
        )
        share = 1.0 - (left[k + 1] if k + 1 < len(left) else 0.0) / left[k]
        found = found + share * (picture + new - old - found)
    return found


def differences(
    pairs: Sequence[tuple[Composition, Composition]],
    picture: Tensor,
    *,
    timesteps: tuple[float, float],
    draws: int = DRAWS,
    decode: Callable[[Tensor], Tensor] | None = None,
    generator: int | torch.Generator | None = None,
) -> Tensor:
    """The root mean square difference of the x0 predictions of P pairs of compositions at each pixel, (P, 1, H, W).

    Components of both compositions cancel before the network is called, and what several pairs have in common, such as
    u, is evaluated once: where `after` drops one component of `before`, the cost is 2 `draws` network evaluations under
    the product rule. The picture is an encoded image (1, C, H, W), and `timesteps` are the least and the greatest of
    the draws. With `decode` of a codec, pixels are those of images: of the picture, and of the picture and the two main
    directions of that difference.

    >>> from energycomp.testing import Gaussian
    >>> u, a = (Composition.of(Gaussian(torch.full((1, 4, 4), mean), 1.0)) for mean in (0.0, 1.0))
    >>> differences([(u, a), (u, u)], torch.zeros(1, 1, 4, 4), timesteps=(200, 700), generator=0).amax((1, 2, 3)) > 0
    tensor([ True, False])
    """
    changes = [before - after for before, after in pairs]
    space = changes[0].noised_space
    bank = draw_bank(draws, space.sample_shape, space.alphas_cumprod, timesteps=timesteps, generator=generator)
    signal, noise = space.levels(bank.timestep, picture.dtype)
    found = []
    for eps in predict_all(changes, bank.noised(picture, space.alphas_cumprod), bank.timestep):
        x0 = eps * noise / signal / draws**0.5
        if decode is not None:
            # Decode the main directions of the draws in place of each draw
            before, *after = decode(torch.cat([picture, picture + _main(x0)])).split(1)
            x0 = torch.cat(after) - before
        found.append(x0.square().sum(0).mean(0, keepdim=True).sqrt())
    return torch.stack(found)


def _main(draws: Tensor) -> Tensor:
    """Two vectors whose squares sum up to nearly those of all draws (S, C, H, W): (2, C, H, W), in their direction."""
    share, size, direction = torch.linalg.svd(draws.flatten(1), full_matrices=False)
    sign = torch.where(share.sum(0) < 0, -1.0, 1.0).to(size)
    return ((sign * size)[:MODES, None] * direction[:MODES]).reshape(-1, *draws.shape[1:])
