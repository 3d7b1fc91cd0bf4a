"""What `energycomp train` runs: a recipe ties model, loss, data and settings together."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeVar, runtime_checkable

import attrs
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.nn import functional

from energycomp.errors import InputError
from energycomp.images import from_bytes
from energycomp.models import load_weights
from energycomp.seeds import as_generator, torch_seed
from energycomp_lab.training.checkpoint import newest_checkpoint, read_checkpoint
from energycomp_lab.training.config import FitConfig
from energycomp_lab.training.fit import Finished, FitResult, Loss, OnSample, fit
from energycomp_lab.training.order import TrainingData
from energycomp_lab.training.validation import Validation

TIMED = 3  # steps, behind two that load kernels and fill caches
T = TypeVar("T")


class Trained(Protocol):
    """What a run trains and stores: a `Model`, or a part of one, such as a codec."""

    @property
    def trained(self) -> nn.Module:
        """What has weights."""

    def to(self, device: Any, /) -> Any:
        """Itself, or a copy, on a device."""

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Writes its folder."""


@runtime_checkable
class Trainable(Protocol):
    """What the factory of a recipe makes: `Recipe`, or several runs in a row."""

    @property
    def model(self) -> Trained:
        """Whose networks are trained in place."""

    @property
    def config(self) -> FitConfig:
        """The settings; `steps` are those of the whole."""

    def run(
        self,
        out: str | Path,
        *,
        minutes: float | None = None,
        on_sample: OnSample | None = None,
        progress: bool = True,
        **changes: Any,
    ) -> FitResult:
        """Trains in the folder `out`.

        Args:
            minutes: that the run may take, about, in place of a number of steps.
            changes: fields of `FitConfig`, in place of those of `config`.
        """


@attrs.frozen(eq=False, kw_only=True)
class Recipe:
    """One call of `fit`, as data.

    Args:
        model: what is trained, and saved in the end.
        module: of the model, such as `model.trained`: its network and what is trained beside it.
        loss, data, config, collate_fn, validation: as of `fit`.
        can_sample: whether the model draws samples while it trains.
        finish: `finish(out)` measures the model, which has its weights, at the end of a run in the folder `out`, and
            sets what it keeps beside them.
    """

    model: Trained
    module: nn.Module
    loss: Loss
    data: TrainingData
    config: FitConfig
    collate_fn: Callable[[list[Any]], Any] | None = None
    can_sample: bool = True
    validation: Validation | None = None
    finish: Callable[[Path], Finished] | None = None

    def run(
        self,
        out: str | Path,
        *,
        minutes: float | None = None,
        on_sample: OnSample | None = None,
        progress: bool = True,
        **changes: Any,
    ) -> FitResult:
        """Trains in the folder `out`, as `fit` does; `changes` replace fields of `config`.

        Args:
            minutes: that the run may take, about: a few steps are timed, unless `out` has a checkpoint, whose number of
                steps stays.
        """
        config = attrs.evolve(self.config, **changes)
        if minutes is not None:
            config = attrs.evolve(config, steps=self._steps_within(60 * minutes, Path(out), config))
        result = fit(
            self.module,
            self.loss,
            self.data,
            config,
            out=out,
            on_sample=on_sample if self.can_sample else None,
            collate_fn=self.collate_fn,
            validation=self.validation,
            progress=progress,
        )
        if self.finish is None or not PartialState().is_main_process:
            return result
        load_weights(self.module, result.ema_state, str(result.checkpoint))
        self.module.to("cpu").eval()
        return attrs.evolve(result, finished=self.finish(Path(out)))

    def _steps_within(self, seconds: float, out: Path, config: FitConfig) -> int:
        if path := newest_checkpoint(out):
            return int(read_checkpoint(path)[0]["hyperparameters"]["steps"])
        # Train for a few steps, and put the weights back
        weights = copy.deepcopy(self.module.state_dict())
        quick = attrs.evolve(config, save_every=TIMED, log_with=None)
        with TemporaryDirectory() as folder:
            for steps in (2, TIMED):
                settings = attrs.evolve(quick, steps=steps)
                timed = fit(
                    self.module,
                    self.loss,
                    self.data,
                    settings,
                    out=Path(folder) / str(steps),
                    collate_fn=self.collate_fn,
                    progress=False,
                )
        self.module.load_state_dict(weights)
        share = 0.0 if self.validation is None else self.validation.share
        steps = max(1, int((1 - share) * seconds * timed.throughput["images_per_second"] / config.batch_size))
        return int(broadcast_object_list([steps])[0])


def start(init: T | None, build: Callable[[], T]) -> T:
    """The model to start from: `init`, or a new one, whose weights are the same at every call.

    >>> start("trained", lambda: "new"), start(None, lambda: "new")
    ('trained', 'new')
    """
    if init is not None:
        return init
    with torch_seed(0):
        return build()


def augment(
    images: Tensor,
    generator: int | torch.Generator,
    *,
    exposure: float = 0.05,
    tint: float = 0.02,
    jitter: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Random flips, exposure, tint and position of a batch of images.

    Args:
        images: (B, 3, H, W), uint8.
        generator: draws whether each is flipped, its exposure and its tint, on the CPU.
        exposure, tint: standard deviations of a factor of brightness, and of what is added to each channel.
        jitter: the most by which an image is moved and scaled, as a share of its size; its edge fills what that bares.

    Returns:
        Images (B, 3, H, W) in [-1, 1], and which are flipped left to right, (B,) bool.

    >>> images, flipped = augment(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.Generator())
    >>> images.shape, flipped.dtype
    (torch.Size([2, 3, 8, 8]), torch.bool)
    """
    size = len(images)
    device = images.device
    generator = as_generator(generator)

    flipped = (torch.rand(size, generator=generator) < 0.5).to(device)
    scaled = from_bytes(images)
    scaled = exposed(torch.where(flipped[:, None, None, None], scaled.flip(3), scaled), generator, exposure, tint)
    if jitter:
        zoom, right, down = 1 + jitter * (2 * torch.rand(3, size, generator=generator) - 1)
        zero = torch.zeros(size)
        moves = torch.stack(
            [torch.stack([zoom, zero, 2 * right - 2], 1), torch.stack([zero, zoom, 2 * down - 2], 1)], 1
        )
        grid = functional.affine_grid(moves.to(device), list(scaled.shape), align_corners=False)
        scaled = functional.grid_sample(scaled, grid, padding_mode="border", align_corners=False)
    return scaled.clamp(-1, 1).contiguous(memory_format=torch.channels_last), flipped


def exposed(images: Tensor, generator: torch.Generator, exposure: float = 0.05, tint: float = 0.02) -> Tensor:
    """Changes exposure and tint of images (B, 3, H, W) in [-1, 1], without clipping; see `augment`."""

    def random(channels: int) -> Tensor:
        return torch.randn(len(images), channels, 1, 1, generator=generator).to(images.device)

    brighter = (images + 1) * (1 + exposure * random(1)) - 1
    return brighter + tint * random(3) if tint else brighter


def collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """A ragged batch, for `fit(collate_fn=)`: pictures with the values of as many components as each has.

    Args:
        items: each with `image` (C, H, W) and `values` (K, *V), K of its own.

    Returns:
        `image` (B, C, H, W), flat `values` (R, *V) and their `owner` (R,).

    >>> one, two = ({"image": torch.zeros(3, 8, 8), "values": torch.rand(k, 2)} for k in (1, 2))
    >>> collate([one, two])["owner"]
    tensor([0, 1, 1])
    """
    counts = torch.tensor([len(item["values"]) for item in items])
    return {
        "image": torch.stack([item["image"] for item in items]),
        "values": torch.cat([item["values"] for item in items]),
        "owner": torch.repeat_interleave(torch.arange(len(items)), counts),
    }


def option_number(name: str, given: float | str, *, most: float = math.inf) -> float:
    """Reads a number of at least 0, given to a recipe as such or as typed after `--option`.

    Raises:
        InputError: no number, or one above `most`.

    >>> option_number("contrast", "0.05")
    0.05
    """
    try:
        number = float(given)
    except ValueError:
        number = math.nan
    if not 0.0 <= number <= most or number == math.inf:
        bounds = "a number of 0 or more" if most == math.inf else f"a number from 0 to {most:g}"
        raise InputError(f"got {name}={given}; expected {bounds}; pass for example --option {name}=0.2")
    return number
