"""What reads images in the processes of other machines: these import it by its name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from energycomp_batch.work import ReadTask


@attrs.frozen
class Instant:
    """Answers at once with the sum of an image's bytes; a process ends with each image whose name has `deadly` in it.

    Args:
        log: folder in which each answer leaves a file.
        wait: seconds for an image.
    """

    log: Path
    wait: float = 0.0

    def __call__(self) -> Callable[[ReadTask], dict[str, Any]]:
        return self.answer

    def answer(self, task: ReadTask) -> dict[str, Any]:
        if "deadly" in task.picture.name:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.wait)
        (self.log / f"{task.picture.name}-{time.time_ns()}").touch()
        return {**task.head, "count": sum(task.picture.content) % 7, "objects": [], "rows": 1}
