"""The training and the accuracy of the classifier of rooms: rendered rooms, and corruptions that make one invalid."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from energycomp.images import from_bytes, to_bytes
from energycomp_datasets.rooms.arrow_room import (
    FLOOR,
    FRONT,
    JITTER,
    PALETTE,
    PLACES,
    SHAPES,
    SIZE,
    WALL,
    layout,
    render,
)
from energycomp_datasets.rooms.classifier import INVALID, OBJECTS, RIGHT, VERDICTS, Classifier, load_classifier
from energycomp_datasets.synthetic import HELD_OUT
from energycomp_lab.training import Step

CHUNK = 300  # images that are rendered at once
SOFT, NOISY, DRIFT, GAIN = 0.5, 0.04, 0.25, 0.08  # px of blur, noise, colour and brightness of valid images
BLURRED = (1.8, 3.2)  # px
FADED = (0.4, 0.8)  # share of the ground's colour
LEANING = 0.2  # most share of another shape that an object of a valid image may have
CROSSED = (0.4, 0.6)  # share of another image
AWAY = 0.16  # least distance of a wrong place from those where something may stand
SMEARED = (0.2, 0.35)  # of the side
PATCH = 6  # half the side of a noisy patch, px
PATCH_NOISE = 0.8  # standard deviation


def draw_labelled(size: int, *, seed: int) -> TensorDataset:
    """Images (3, 32, 32) uint8, labels (5,) and verdicts, of which right, wrong and invalid ones are as many.

    The labels: the shapes of the left, middle and right object, at which the arrow points, and whether the image is
    valid; those of an invalid image are those of the room that it was made from.
    """
    drawn = [_chunk(np.random.default_rng([seed, start]), min(CHUNK, size - start)) for start in range(0, size, CHUNK)]
    images, labels, verdicts = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    return TensorDataset(to_bytes(images), labels, verdicts)


def _chunk(rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
    verdicts = np.arange(count) % 3
    made_from = np.where(verdicts == INVALID, rng.integers(2, size=count), verdicts)
    shapes, target = _kinds(rng, made_from == RIGHT)
    objects = layout(rng, shapes, target)
    objects[..., 4:7] = _drift(rng, objects[..., 4:7])
    images = _lean(rng, objects)
    failed = np.flatnonzero(verdicts == INVALID)
    kinds = rng.permutation(len(failed)) % len(CORRUPTIONS)
    for kind, corrupt in enumerate(CORRUPTIONS.values()):
        chosen = failed[kinds == kind]
        if len(chosen):
            images[chosen] = corrupt(rng, objects[chosen])
    labels = torch.from_numpy(np.column_stack([shapes, target, verdicts != INVALID]))
    return _soften(rng, images), labels, torch.from_numpy(verdicts)


def corrupt_rooms(kind: str, count: int, *, seed: int) -> Tensor:
    """Images (B, 3, 32, 32) in [-1, 1] of right rooms under one of `CORRUPTIONS`."""
    rng = np.random.default_rng([seed, *kind.encode()])
    objects = layout(rng, *_kinds(rng, np.ones(count, dtype=bool)))
    return _soften(rng, CORRUPTIONS[kind](rng, objects))


def _kinds(rng: np.random.Generator, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shapes (B, 3) and targets (B,) of rooms that are right, or wrong: the arrow points elsewhere, or none is odd."""
    count = len(right)
    odd, target = rng.integers(3, size=count), rng.integers(3, size=count)
    common = rng.integers(3, size=count)
    step = rng.integers(1, 3, size=count)
    shapes = np.where(np.arange(3) == odd[:, None], ((common + step) % 3)[:, None], common[:, None])
    target = np.where(right, odd, np.where(target == odd, (odd + step) % 3, target))
    alike = np.where(
        rng.random((count, 1)) < 0.5, common[:, None], (common[:, None] + step[:, None] * np.arange(3)) % 3
    )
    without = ~right & (rng.random(count) < 0.5)
    return np.where(without[:, None], alike, shapes), target


def _drift(rng: np.random.Generator, colours: Tensor) -> Tensor:
    """Colours that lean towards others, as those of a learned decoder do."""
    others = torch.from_numpy(np.asarray(PALETTE)[rng.integers(len(PALETTE), size=colours.shape[:2])]).float()
    share = torch.from_numpy(rng.uniform(0, DRIFT, colours.shape[:2]) * (rng.random(colours.shape[:2]) < 0.4)).float()
    return torch.lerp(colours, others, share[..., None])


def _lean(rng: np.random.Generator, objects: Tensor) -> Tensor:
    """Images in which some shapes, and the arrow, have a little of another, as where a decoder is not quite sure."""
    others = objects.clone()
    changed = torch.from_numpy(rng.random((len(objects), 4)) < 0.4)
    step = torch.from_numpy(rng.integers(1, len(SHAPES), (len(objects), 4)))
    others[..., 0] = torch.where(changed, (objects[..., 0] + step) % len(SHAPES), objects[..., 0])
    share = _uniform(rng, 0, LEANING, len(objects))[:, None, None, None]
    return torch.lerp(render(objects).images, render(others).images, share)


def _soften(rng: np.random.Generator, images: Tensor) -> Tensor:
    """A little blur, noise and brightness, which leave an image readable."""
    count = len(images)
    images = _blur(images, _uniform(rng, 0, SOFT, count))
    images = (images + 1) * _uniform(rng, 1 - GAIN, 1 + GAIN, count)[:, None, None, None] - 1
    noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32))
    return (images + noise * _uniform(rng, 0, NOISY, count)[:, None, None, None]).clamp(-1, 1)


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Each image (B, 3, H, W) under a Gaussian of its own width (B,), px."""
    count, channels = images.shape[:2]
    reach = math.ceil(2.5 * float(sigma.max()))
    steps = torch.arange(-reach, reach + 1)
    kernels = torch.softmax(-(steps**2) / (2 * sigma[:, None] ** 2).clamp(min=1e-4), 1)
    kernels = kernels.repeat_interleave(channels, 0)[:, None]  # (B*3, 1, taps)
    rows = F.pad(images, (reach,) * 4, mode="replicate").flatten(0, 1)[None]
    rows = F.conv2d(rows, kernels[:, :, None], groups=count * channels)
    return F.conv2d(rows, kernels[..., None], groups=count * channels)[0].unflatten(0, (count, channels))


def _uniform(rng: np.random.Generator, low: float, high: float, count: int) -> Tensor:
    return torch.from_numpy(rng.uniform(low, high, count)).float()


def _some(rng: np.random.Generator, objects: Tensor, least: int = 0) -> tuple[Tensor, Tensor]:
    """Every room's number (B,), and of each an object or the arrow, (B,)."""
    return torch.arange(len(objects)), torch.from_numpy(rng.integers(least, 4, len(objects)))


def _other(rng: np.random.Generator, objects: Tensor, alike: float = 0.5) -> Tensor:
    """Rooms in which every shape is another, in its place, and the arrow points elsewhere; a share in like colours."""
    kinds = (objects[..., 0].long().numpy() + rng.integers(1, len(SHAPES), (len(objects), 4))) % len(SHAPES)
    others = layout(rng, kinds[:, :3], kinds[:, 3])
    others[..., 1:4] = objects[..., 1:4]
    same = torch.from_numpy(rng.random(len(objects)) < alike)
    others[same, :, 4:7] = objects[same, :, 4:7]
    return others


def _pair(rng: np.random.Generator, objects: Tensor, alike: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Images of the rooms, those in which one object is another's, and that object's number."""
    rows, k = _some(rng, objects)
    others = objects.clone()
    others[rows, k] = _other(rng, objects, alike)[rows, k]
    return render(objects).images, render(others).images, k


def _remove_one(rng: np.random.Generator, objects: Tensor) -> Tensor:
    rows, k = _some(rng, objects)
    left = objects.clone()
    left[rows, k, 7] = 0
    return render(left).images


def _cross(rng: np.random.Generator, objects: Tensor) -> Tensor:
    share = _uniform(rng, *CROSSED, len(objects))[:, None, None, None]
    return torch.lerp(render(objects).images, render(_other(rng, objects)).images, share)


def _cross_object(rng: np.random.Generator, objects: Tensor) -> Tensor:
    first, second, _ = _pair(rng, objects)
    return torch.lerp(first, second, _uniform(rng, *CROSSED, len(objects))[:, None, None, None])


def _halve(rng: np.random.Generator, objects: Tensor) -> Tensor:
    """One half of an object is that of another colour and shape, on the left or, of the three objects, above."""
    first, second, k = _pair(rng, objects, alike=0.0)
    centre = objects[torch.arange(len(objects)), k, 1:3]
    above = torch.from_numpy(rng.random(len(objects)) < 0.5) & (k < 3)
    axis = (torch.arange(SIZE) + 0.5) / SIZE
    left, upper = axis < centre[:, :1], axis < centre[:, 1:]
    half = torch.where(above[:, None, None], upper[:, :, None], left[:, None, :])
    return torch.where(half[:, None], first, second)


def _fade(rng: np.random.Generator, objects: Tensor) -> Tensor:
    rows, k = _some(rng, objects)
    ground = torch.tensor([WALL] * 3 + [FLOOR])[k]
    faded = objects.clone()
    faded[rows, k, 4:7] = torch.lerp(objects[rows, k, 4:7], ground, _uniform(rng, *FADED, len(objects))[:, None])
    return render(faded).images


def _add_noise(rng: np.random.Generator, objects: Tensor) -> Tensor:
    """Noise about an object or the arrow."""
    rows, k = _some(rng, objects)
    images = render(objects).images
    centre = objects[rows, k, 1:3] * SIZE
    axis = torch.arange(SIZE) + 0.5
    across, down = ((axis - centre[:, i : i + 1]).abs() < PATCH for i in range(2))
    patch = (down[:, :, None] & across[:, None, :])[:, None]
    noise = torch.from_numpy(rng.standard_normal(images.shape, dtype=np.float32)) * PATCH_NOISE
    return torch.where(patch, images + noise, images).clamp(-1, 1)


def _move_one(rng: np.random.Generator, objects: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rooms with one of their three objects where nothing should be, the room's number and the object's."""
    rows = torch.arange(len(objects))
    k = torch.from_numpy(rng.integers(3, size=len(objects)))
    places = rng.uniform(0.12, 0.88, (64 * len(objects), 2))
    beyond = np.maximum(np.abs(places[:, None] - np.asarray([*PLACES, FRONT])) - np.asarray(JITTER), 0)
    places = places[(np.hypot(*beyond.transpose(2, 0, 1)) > AWAY).all(1)][: len(objects)]
    moved = objects.clone()
    moved[rows, k, 1:3] = torch.from_numpy(places).float()
    return moved, rows, k


def _double(rng: np.random.Generator, objects: Tensor) -> Tensor:
    """One object in two places."""
    moved, rows, k = _move_one(rng, objects)
    second = render(moved)
    return torch.where(second.masks[rows, k][:, None], second.images, render(objects).images)


def _smear(rng: np.random.Generator, objects: Tensor) -> Tensor:
    """One object or the arrow, averaged over places along a line."""
    rows, k = _some(rng, objects)
    angle = _uniform(rng, 0, 2 * math.pi, len(objects))
    length = _uniform(rng, *SMEARED, len(objects))
    step = torch.stack([angle.cos(), angle.sin()], 1) * length[:, None]
    images = []
    for share in torch.linspace(-0.5, 0.5, 7):
        moved = objects.clone()
        moved[rows, k, 1:3] += share * step
        images.append(render(moved).images)
    return torch.stack(images).mean(0)


CORRUPTIONS: dict[str, Callable[[np.random.Generator, Tensor], Tensor]] = {
    "missing": _remove_one,
    "crossed": _cross,
    "object crossed": _cross_object,
    "halved": _halve,
    "blurred": lambda rng, objects: _blur(render(objects).images, _uniform(rng, *BLURRED, len(objects))),
    "faded": _fade,
    "noisy": _add_noise,
    "moved": lambda rng, objects: render(_move_one(rng, objects)[0]).images,
    "doubled": _double,
    "smeared": _smear,
}


def classifier_loss(network: nn.Module, batch: Tensor, step: Step) -> Tensor:
    """Cross-entropy of all heads, a loss for `energycomp.fit`, on as many rendered images as the batch (B, ...) has."""
    seed = int(torch.randint(HELD_OUT, (), generator=step.generator))
    with torch.autocast(batch.device.type, enabled=False):  # rendering stays in float32
        rendered, labels, _ = (part.to(batch.device) for part in draw_labelled(len(batch), seed=seed).tensors)
    samples = from_bytes(rendered).contiguous(memory_format=torch.channels_last)
    shapes, target, valid = (logits.float() for logits in network(samples))
    there = labels[:, -1].bool()
    kinds = labels[there, :OBJECTS]
    aims = labels[there, OBJECTS]
    read = F.cross_entropy(shapes[there].flatten(0, 1), kinds.flatten()) + F.cross_entropy(target[there], aims)
    return read + F.binary_cross_entropy_with_logits(valid, there.float())


@torch.no_grad()
def confusion(classifier: Classifier, count: int, *, seed: int) -> Tensor:
    """The confusion matrix (3, 3) of `count` held-out scenes: true verdicts in rows, predicted verdicts in columns."""
    drawn, _, true = draw_labelled(count, seed=HELD_OUT + seed).tensors
    found = torch.cat([classifier.verdicts(from_bytes(part)) for part in drawn.split(CHUNK)])
    return torch.bincount(true * len(VERDICTS) + found, minlength=len(VERDICTS) ** 2).unflatten(0, (len(VERDICTS), -1))


def classifier_accuracy(count: int, *, seed: int, classifier: Classifier | None = None) -> float:
    """The share of held-out scenes, equally many of each verdict, that the classifier gets right."""
    table = confusion(classifier or load_classifier(), count, seed=seed)
    return float(table.trace() / table.sum())
