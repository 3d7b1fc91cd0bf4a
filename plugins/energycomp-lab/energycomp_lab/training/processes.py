"""The processes of a training run."""

import os
import warnings
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from energycomp.errors import EnergycompWarning


def make_accelerator(trackers: list[str], out: Path) -> Accelerator:
    # bf16 is a torch.autocast around the loss: accelerate's precision is one per process, for all runs.
    # find_unused_parameters: a batch may hold no unconditional row, and then its embedding gets no gradient.
    # cpu: without it, accelerate takes processes that torchrun started on a machine without a GPU for strangers.
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision="no",
        log_with=trackers or None,
        project_dir=out,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    # `accelerate launch --cpu` starts one process whatever --num_processes says; the address is all that it leaves.
    alone = {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= os.environ.keys() and "WORLD_SIZE" not in os.environ
    if alone or os.environ.get("WORLD_SIZE", "1") != str(accelerator.num_processes):
        warnings.warn(
            f"Training with {accelerator.num_processes} process, where the environment asks for more. Launch them with "
            "`accelerate launch --multi_gpu --num_processes 2`, on CPUs too, or with torchrun.",
            EnergycompWarning,
            stacklevel=3,
        )
    return accelerator
