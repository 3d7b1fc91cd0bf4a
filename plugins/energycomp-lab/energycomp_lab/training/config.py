"""The settings of a training run, and what a loss learns about the step at hand."""

from __future__ import annotations

from typing import Any, Literal

import attrs
import torch

from energycomp.errors import InputError
from energycomp.fields import is_whole, legal, number, one_of, plain, whole

UNRELATED = ("save_every", "keep", "sample_every", "num_workers", "log_with")  # they may change when a run resumes


@attrs.frozen(kw_only=True)
class FitConfig:
    """The settings of `fit`; all but the last five decide the trajectory, and a run resumes with the same ones only.

    Args:
        steps: of the optimizer, AdamW.
        batch_size: samples in a step; an epoch's incomplete last batch is dropped.
        learning_rate: at its peak.
        schedule: "one_cycle", up and down; or "constant", after a linear warm-up.
        warmup_fraction: share of the steps in which the learning rate rises.
        max_grad_norm: to which gradients are clipped.
        ema_decay: greatest decay of the averaged weights; after n steps it is (1 + n) / (10 + n) at most.
        mixed_precision: "bf16" runs the loss under torch.autocast.
        micro_batches: equal parts of a batch whose gradients are averaged; None for one per process.
        seed: of the order of the data and of the random numbers of each step.
        save_every: steps between checkpoints, of which the newest `keep` stay.
        sample_every: steps between calls of `on_sample`; None for none.
        num_workers: processes that load data; 0 for this one.
        log_with: trackers of accelerate, with commas between them, such as "tensorboard" or "wandb"; None for none.

    Raises:
        InputError: a value out of range.

    >>> FitConfig(steps=100, batch_size=8, learning_rate=1e-3).schedule
    'one_cycle'
    """

    steps: int = attrs.field(validator=whole(1, None))
    batch_size: int = attrs.field(validator=whole(1, None))
    learning_rate: float = attrs.field(validator=number())
    weight_decay: float = attrs.field(default=0.01, validator=number(least=0))
    schedule: Literal["one_cycle", "constant"] = attrs.field(
        default="one_cycle", validator=one_of(("one_cycle", "constant"))
    )
    warmup_fraction: float = attrs.field(default=0.05, validator=number(least=0, below=1))
    max_grad_norm: float = attrs.field(default=1.0, validator=number())
    ema_decay: float = attrs.field(default=0.999, validator=number(least=0, most=1))
    mixed_precision: Literal["no", "bf16"] = attrs.field(default="no", validator=one_of(("no", "bf16")))
    micro_batches: int | None = attrs.field(default=None, validator=whole(1, None, or_none=True))
    seed: int = attrs.field(default=0, validator=legal(is_whole, "a whole number"))
    save_every: int = attrs.field(default=500, validator=whole(1, None))
    keep: int = attrs.field(default=2, validator=whole(1, None))
    sample_every: int | None = attrs.field(default=None, validator=whole(1, None, or_none=True))
    num_workers: int = attrs.field(default=0, validator=whole(0, None))
    log_with: str | None = attrs.field(
        default=None, validator=legal(lambda v: isinstance(v, str) and v != "", "names of trackers", or_none=True)
    )

    def trajectory(self, samples: int) -> dict[str, Any]:
        """What decides the weights of a run on so many samples: a checkpoint resumes with equal values only."""
        settings = attrs.asdict(
            self, filter=lambda attribute, _: attribute.name not in UNRELATED, value_serializer=plain
        )
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
