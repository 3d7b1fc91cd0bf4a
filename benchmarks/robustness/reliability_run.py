"""The run that reliability.py disturbs: a small denoiser under `energycomp_lab.training.fit`.

python benchmarks/robustness/reliability_run.py OUT

It says "start" and its process id, and in the end "rows" and what it trained on. An error of energycomp is one line on
stderr and exit code 2, as on its command line.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

SAMPLES, BATCH, STEPS, EVERY, KEEP = 64, 8, 48, 4, 2


def main() -> int:
    """Trains in OUT; the environment may choose an operation to stop at, see `announce`."""
    import torch

    from energycomp.errors import EnergycompError

    torch.set_num_threads(1)
    if pattern := os.environ.get("RELIABILITY_AT"):
        announce(pattern, int(os.environ["RELIABILITY_NTH"]), hold=os.environ["RELIABILITY_HOLD"] == "True")
    print("start", os.getpid(), flush=True)
    try:
        rows = train(Path(sys.argv[1]))
    except EnergycompError as error:
        print(f"energycomp: {error}", file=sys.stderr)
        return 2
    sys.stdout.write(f"rows {json.dumps(rows)}\n")  # in one piece: several processes write to the same pipe
    sys.stdout.flush()
    return 0


def train(out: Path) -> list[int]:
    """The run: a small denoiser on random images; returns the samples that this process saw."""
    import torch
    from torch.utils.data import TensorDataset

    from energycomp.testing import tiny_model
    from energycomp_lab.training import FitConfig, Step, denoising_loss, fit

    model, rows = tiny_model(), list[int]()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(SAMPLES, *model.denoiser.sample_shape, generator=generator) * 2 - 1
    data = TensorDataset(images, torch.rand(SAMPLES, 2, generator=generator), torch.arange(SAMPLES))

    def loss(module: nn.Module, batch: Sequence[Tensor], step: Step) -> Tensor:
        samples, places, index = batch
        rows.extend(index.tolist())
        condition, owner = model.conditioner(places), torch.arange(len(samples))
        return denoising_loss(model.denoiser, samples, condition, owner, module=module, generator=step.generator)

    config = FitConfig(steps=STEPS, batch_size=BATCH, micro_batches=2, learning_rate=1e-3, save_every=EVERY, keep=KEEP)
    fit(model.denoiser.network, loss, data, config, out=out, progress=False)
    return rows


def announce(pattern: str, nth: int, *, hold: bool) -> None:
    """Says "here" before the nth file operation that matches, and waits there to be killed if `hold`.

    An operation is Python's audit event and the names of its paths, "os.rename .a.tmp-0f a", and for a file that is
    made "new".
    """
    reached = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal reached
        if not event.startswith(("open", "os.")):
            return
        names = [Path(part).name for part in arguments if isinstance(part, str | Path)]
        flags = arguments[2] if event == "open" else 0
        new = ["new"] if isinstance(flags, int) and flags & os.O_CREAT else []
        if re.match(pattern, " ".join([event, *names, *new])):
            reached += 1
            if reached == nth:
                print("here", flush=True)
                while hold:
                    time.sleep(60)

    sys.addaudithook(hook)


if __name__ == "__main__":
    sys.exit(main())
