"""Trackers of accelerate, such as TensorBoard, Weights & Biases and MLflow: numbers and samples of a training run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from PIL import Image

from energycomp.denoisers import count_rows
from energycomp.errors import InputError, first_line

PROJECT = "energycomp"  # under which trackers show the run
SMOOTHING = 0.9


def tracker_names(log_with: str | None) -> list[str]:
    """Splits names of trackers at commas. Raises `InputError` where accelerate has none of that name, or its package is
    missing.
    """
    names = [name.strip() for name in (log_with or "").split(",") if name.strip()]
    known = sorted(map(str, LOGGER_TYPE_TO_CLASS))
    available = set(map(str, get_available_trackers()))
    for name in names:
        if name not in known:
            raise InputError(f"got log_with={name!r}; expected trackers of accelerate: {', '.join(known)}")
        if name not in available:
            raise InputError(
                f"got log_with={name!r}, whose package is not installed; expected it for this tracker; pip install "
                f"{name.replace('_', '-')}, or leave it out: log.jsonl is written always"
            )
    return names


def start_trackers(accelerator: Accelerator, settings: Mapping[str, Any]) -> None:
    """Starts the trackers of an accelerator; None among the settings is a text, since not every tracker takes it.
    Raises `InputError` where one does not start, such as without an account.
    """
    try:
        config = {name: "none" if value is None else value for name, value in settings.items()}
        accelerator.init_trackers(PROJECT, config=config)
    except Exception as error:  # of the tracker's package
        names = ", ".join(map(str, accelerator.log_with))
        raise InputError(
            f"got log_with={names!r}, which does not start ({type(error).__name__}: {first_line(error)[:200]}); "
            "expected a tracker that is set up; log in to it, or leave it out"
        ) from error


def stop_trackers(accelerator: Accelerator) -> None:
    """Completes what trackers write. `Accelerator.end_training` would end the processes of a next run, too."""
    for tracker in accelerator.trackers:
        tracker.finish()


def log_samples(accelerator: Accelerator, image: object, step: int) -> None:
    """Gives an image of samples to the trackers that take images; anything else is no image and left out."""
    if not isinstance(image, Image.Image):
        return
    shown = {"samples": np.asarray(image.convert("RGB"))[None]}
    for tracker in accelerator.trackers:
        if log_images := getattr(tracker, "log_images", None):
            log_images(shown, step=step, **({"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}))


@attrs.define
class Throughput:
    """Images and network evaluations per second of all processes, over the last steps (`rates`) and all (`mean`)."""

    processes: int = 1
    seconds: float = 0.0
    totals: dict[str, int] = attrs.field(factory=dict)
    rates: dict[str, float] = attrs.field(factory=dict)

    @contextmanager
    def step(self, images: int) -> Iterator[None]:
        """Measures a step of training on so many images."""
        started = time.perf_counter()
        with count_rows() as spent:
            yield
        seconds = max(time.perf_counter() - started, 1e-9)
        self.seconds += seconds
        for name, number in (("images_per_second", images), ("rows_per_second", spent.rows * self.processes)):
            self.totals[name] = self.totals.get(name, 0) + number
            self.rates[name] = SMOOTHING * self.rates.get(name, number / seconds) + (1 - SMOOTHING) * number / seconds

    @property
    def mean(self) -> dict[str, float]:
        """The rates over all steps; empty before the first."""
        return {name: number / self.seconds for name, number in self.totals.items()}

    def __str__(self) -> str:
        images, rows = (self.rates.get(name, 0.0) for name in ("images_per_second", "rows_per_second"))
        return f"{images:.3g} images/s" + (f", {rows:.3g} NFE/s" if rows else "")
