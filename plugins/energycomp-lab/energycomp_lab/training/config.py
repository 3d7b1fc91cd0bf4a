"""The settings of a training run, and what a loss learns about the step at hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import attrs
import torch

from energycomp.errors import InputError

UNRELATED = ("save_every", "keep", "sample_every", "num_workers", "log_with")  # they may change when a run resumes


def _field(legal: Callable[[Any], bool], expected: str, **options: Any) -> Any:
    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not legal(value):
            raise InputError(f"got {attribute.name}={value!r}; expected {expected}; pass a value in that range")

    return attrs.field(validator=check, **options)


def _count(**options: Any) -> Any:
    return _field(lambda value: type(value) is int and value >= 1, "a whole number of at least 1", **options)


def _count_or_none(expected: str) -> Any:
    legal: Callable[[Any], bool] = lambda value: value is None or (type(value) is int and value >= 1)  # noqa: E731
    return _field(legal, f"a whole number of at least 1, or None for {expected}", default=None)


def _number(legal: Callable[[float], bool], expected: str, **options: Any) -> Any:
    return _field(lambda value: isinstance(value, int | float) and legal(value), expected, **options)


@attrs.frozen(kw_only=True)
class FitConfig:
    """The settings of `fit`; all but the last five decide the trajectory, and a run resumes with the same ones only.

    Args:
        steps: of the optimizer, AdamW.
        batch_size: samples in a step; an epoch's incomplete last batch is dropped.
        learning_rate: at its peak.
        weight_decay: of AdamW.
        schedule: "one_cycle", up and down; or "constant", after a linear warm-up.
        warmup_fraction: share of the steps in which the learning rate rises.
        max_grad_norm: to which gradients are clipped.
        ema_decay: greatest decay of the averaged weights; after n steps it is (1 + n) / (10 + n) at most.
        mixed_precision: "bf16" runs the loss under torch.autocast.
        micro_batches: equal parts of a batch whose gradients are averaged; None for one per process.
        seed: of the order of the data and of the random numbers of each step.
        save_every: steps between checkpoints.
        keep: number of checkpoints that stay.
        sample_every: steps between calls of `on_sample`; None for none.
        num_workers: processes that load data; 0 for this one.
        log_with: trackers of accelerate, with commas between them, such as "tensorboard" or "wandb"; None for none.

    Raises:
        InputError: a value out of range.

    >>> FitConfig(steps=100, batch_size=8, learning_rate=1e-3).schedule
    'one_cycle'
    """

    steps: int = _count()
    batch_size: int = _count()
    learning_rate: float = _number(lambda value: 0 < value < math.inf, "a number above 0")
    weight_decay: float = _number(lambda value: 0 <= value < math.inf, "a number of at least 0", default=0.01)
    schedule: Literal["one_cycle", "constant"] = _field(
        lambda value: value in ("one_cycle", "constant"), "'one_cycle' or 'constant'", default="one_cycle"
    )
    warmup_fraction: float = _number(lambda value: 0 <= value < 1, "a share from 0 to below 1", default=0.05)
    max_grad_norm: float = _number(lambda value: value > 0, "a number above 0", default=1.0)
    ema_decay: float = _number(lambda value: 0 <= value <= 1, "a number from 0 to 1", default=0.999)
    mixed_precision: Literal["no", "bf16"] = _field(
        lambda value: value in ("no", "bf16"), "'no' or 'bf16'", default="no"
    )
    micro_batches: int | None = _count_or_none("one per process")
    seed: int = _field(lambda value: type(value) is int, "a whole number", default=0)
    save_every: int = _count(default=500)
    keep: int = _count(default=2)
    sample_every: int | None = _count_or_none("none")
    num_workers: int = _field(lambda value: type(value) is int and value >= 0, "a whole number", default=0)
    log_with: str | None = _field(
        lambda value: value is None or (isinstance(value, str) and value != ""), "names of trackers", default=None
    )

    def trajectory(self, samples: int) -> dict[str, Any]:
        """What decides the weights of a run on so many samples: a checkpoint resumes with equal values only."""
        settings = attrs.asdict(self, filter=lambda attribute, _: attribute.name not in UNRELATED)
        return {**settings, "samples": samples}

    def check_batches(self, samples: int, processes: int) -> None:
        """Raises InputError where the data cannot fill a batch, or the processes cannot share it."""
        if self.batch_size > samples:
            raise InputError(
                f"got data with {samples} samples; expected at least batch_size={self.batch_size}; give more data, "
                "in a dataset with __len__, or lower batch_size"
            )
        parts = self.micro_batches or processes
        if self.batch_size % parts or parts % processes:
            raise InputError(
                f"got batch_size={self.batch_size} and micro_batches={parts} on {processes} processes; expected "
                "micro_batches to divide batch_size and to be a multiple of the processes; change one of them"
            )


@attrs.frozen(eq=False)
class Step:
    """The step of the optimizer that a loss is called for.

    Args:
        number: of the step, from 0.
        steps: of the whole run.
        generator: on the CPU; it follows from seed, step and micro batch, so that a resumed run draws the same numbers.

    >>> Step(number=5, steps=20, generator=torch.Generator()).fraction
    0.25
    """

    number: int
    steps: int
    generator: torch.Generator

    @property
    def fraction(self) -> float:
        """The share of the run that is done before this step, in [0, 1)."""
        return self.number / self.steps
