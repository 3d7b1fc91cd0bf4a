"""fit(): one training loop on accelerate; a step draws from (seed, step) alone, so that a run resumes bit for bit."""

import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import send_to_device
from attrs.validators import optional
from diffusers.optimization import get_constant_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from energycomp.errors import CheckpointError, InputError, NonFiniteError
from energycomp.files import remove_stale
from energycomp.training.checkpoint import (
    TrainingState,
    append_log,
    ema_state,
    ema_weights,
    load_checkpoint,
    newest_checkpoint,
    rewind_log,
    save_checkpoint,
)
from energycomp.training.order import COUNT, FitConfig, batches, interrupt_flag, step_generator

__all__ = ["FitResult", "ema_weights", "fit"]

SMOOTHING = 0.98

Loss = Callable[[nn.Module, Any, torch.Generator], Tensor]


@attrs.frozen(eq=False)
class FitResult:
    """What `fit` ends with; `loss` is smoothed, `ema_state` holds the averaged weights `{name: tensor}`."""

    step: int
    loss: float
    checkpoint: Path
    ema_state: dict[str, Tensor]


def fit(
    module: nn.Module,
    loss: Loss,
    data: Dataset[Any],
    *,
    out: str | Path,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float = 0.01,
    schedule: Literal["one_cycle", "constant"] = "one_cycle",
    warmup_fraction: float = 0.05,
    max_grad_norm: float = 1.0,
    ema_decay: float = 0.999,
    mixed_precision: Literal["no", "bf16"] = "no",
    micro_batches: int | None = None,
    seed: int = 0,
    save_every: int = 500,
    keep: int = 2,
    sample_every: int | None = None,
    on_sample: Callable[[nn.Module, int], object] | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    num_workers: int = 0,
    progress: bool = True,
) -> FitResult:
    """Train `module` in place with AdamW, or go on from the newest whole checkpoint in `out`.

    A run that was killed at any moment resumes to the weights of an uninterrupted one; a finished one returns at once.

    `loss(module, batch, generator)` returns a scalar, the mean over its batch, and draws from `generator`: a CPU
    generator that follows from (seed, step, micro batch). `data` is map-style, `data[i]` the same at every call:
    augmentation belongs into the loss. An epoch's order follows from (seed, epoch); an incomplete batch is dropped.

    A batch of `batch_size` is run as `micro_batches` equal parts (None: one per process) whose gradients are averaged.
    Under `accelerate launch` each process takes its share of the parts, so the result depends on their number and not
    on the number of processes. Process 0 alone writes, samples and shows the progress.

    `out` receives `checkpoint-<step>` every `save_every` steps and at the end, of which the newest `keep` stay, and
    with each a line of `log.jsonl`. Every `sample_every` steps `on_sample(module, step)` sees the averaged weights, in
    eval mode. Ctrl-C completes the step, saves and raises KeyboardInterrupt; a second one raises at once.

    After n steps the average's decay is (1 + n) / (10 + n), at most `ema_decay` (diffusers' EMAModel). In memory the
    parameters are held three more times: two moments and the average.

    Raises:
        InputError: a value out of range, a batch larger than `data` or not divisible, a loss that is no scalar.
        NonFiniteError: the loss or its gradient is not finite; the step is not taken.
        CheckpointError: `out` cannot be written, or was made with other hyperparameters or another module.

    >>> import tempfile
    >>> def loss(module, batch, generator):
    ...     noise = torch.randn(batch.shape, generator=generator)
    ...     return (module(batch + noise) - batch).square().mean()
    >>> with tempfile.TemporaryDirectory() as out:
    ...     result = fit(nn.Linear(2, 2), loss, torch.randn(16, 2), out=out, steps=4, batch_size=8, learning_rate=1e-2,
    ...                  progress=False)
    >>> result.step, result.checkpoint.name
    (4, 'checkpoint-000004')
    """
    accelerator = _accelerator()
    with _input_errors():
        recipe = FitConfig(
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            schedule=schedule,
            warmup_fraction=warmup_fraction,
            max_grad_norm=max_grad_norm,
            ema_decay=ema_decay,
            mixed_precision=mixed_precision,
            micro_batches=accelerator.num_processes if micro_batches is None else micro_batches,
            seed=seed,
            samples=len(data) if isinstance(data, Sized) else 0,
        )
        recipe.check_batches(accelerator.num_processes)
        run = _Run(accelerator, recipe, Path(out), save_every, keep, sample_every, on_sample, progress)
    objective = accelerator.prepare_model(_Objective(module, loss, mixed_precision))
    state = _initial_state(module, recipe)
    _resume(run, state)
    if state.step < steps:
        module.train()
        rows = batches(recipe, data, parts=run.parts, start=state.step, collate_fn=collate_fn, num_workers=num_workers)
        _train(run, state, objective, rows)
    accelerator.wait_for_everyone()
    checkpoint = run.out / f"checkpoint-{steps:06d}"
    return FitResult(steps, float(state.loss or 0.0), checkpoint, ema_state(module, state.ema))


class _Objective(nn.Module):
    """The loss as a module: DistributedDataParallel sees one forward pass, whichever methods of `module` it calls."""

    def __init__(self, module: nn.Module, loss: Loss, mixed_precision: str) -> None:
        super().__init__()
        self.module = module
        self.loss = loss
        self.mixed_precision = mixed_precision

    def forward(self, batch: Any, generator: torch.Generator, device: str) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=self.mixed_precision == "bf16"):
            value: object = self.loss(self.module, batch, generator)
        if not isinstance(value, Tensor) or value.ndim != 0 or not value.requires_grad:
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"The loss returned {got}, expected a scalar tensor that requires grad. Return the mean.")
        return value.float()


@attrs.frozen(eq=False)
class _Run:
    accelerator: Accelerator
    recipe: FitConfig
    out: Path
    save_every: int = attrs.field(validator=COUNT)
    keep: int = attrs.field(validator=COUNT)
    sample_every: int | None = attrs.field(validator=optional(COUNT))
    on_sample: Callable[[nn.Module, int], object] | None
    progress: bool

    @property
    def parts(self) -> range:
        """The micro batches of each batch that this process takes."""
        count = self.recipe.micro_batches // self.accelerator.num_processes
        return range(self.accelerator.process_index * count, (self.accelerator.process_index + 1) * count)


def _accelerator() -> Accelerator:
    # bf16 is a torch.autocast around the loss: accelerate's precision is one per process, for all runs.
    # find_unused_parameters: a batch may hold no unconditional row, and then its embedding gets no gradient.
    # cpu: without it, accelerate takes processes that torchrun started on a machine without a GPU for strangers.
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),
        mixed_precision="no",
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    # `accelerate launch --cpu` starts one process whatever --num_processes says; the address is all that it leaves.
    alone = {"ACCELERATE_USE_CPU", "MASTER_ADDR"} <= os.environ.keys() and "WORLD_SIZE" not in os.environ
    if alone or os.environ.get("WORLD_SIZE", "1") != str(accelerator.num_processes):
        warnings.warn(
            f"Training with {accelerator.num_processes} process, where the environment asks for more. Launch them with "
            "`accelerate launch --multi_gpu --num_processes 2`, on CPUs too, or with torchrun.",
            stacklevel=3,
        )
    return accelerator


@contextmanager
def _input_errors() -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"Cannot train so: {error.args[0]}. Pass a value in that range.") from error


def _initial_state(module: nn.Module, recipe: FitConfig) -> TrainingState:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError("Got a module with no parameter that requires grad, expected at least one. Unfreeze some.")
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    warmup = recipe.warmup_fraction * recipe.steps
    scheduler: torch.optim.lr_scheduler.LRScheduler
    if recipe.schedule == "constant":
        scheduler = get_constant_schedule_with_warmup(optimizer, math.ceil(warmup))
    else:
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=recipe.learning_rate,
            total_steps=recipe.steps,
            pct_start=recipe.warmup_fraction if warmup > 1.5 else 0.0,  # at exactly one step torch divides by zero
            cycle_momentum=False,
        )
    return TrainingState(module, optimizer, scheduler, EMAModel(module.parameters(), decay=recipe.ema_decay))


def _resume(run: _Run, state: TrainingState) -> None:
    if run.accelerator.is_main_process:
        try:
            run.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"Cannot make {run.out}: {error}. Name a folder that can be written.") from error
        remove_stale(run.out)
    run.accelerator.wait_for_everyone()
    if path := newest_checkpoint(run.out):
        load_checkpoint(path, state, attrs.asdict(run.recipe))
    if run.accelerator.is_main_process and state.step < run.recipe.steps:
        rewind_log(run.out, state.step)


def _train(run: _Run, state: TrainingState, objective: nn.Module, batches: Iterator[Any]) -> None:
    main = run.accelerator.is_main_process
    steps = run.recipe.steps
    bar = tqdm(total=steps, initial=state.step, disable=not (run.progress and main), dynamic_ncols=True)
    with bar, interrupt_flag() as interrupted:
        while state.step < steps:
            started = time.perf_counter()
            stop = _step(run, state, objective, batches, interrupted)
            state.seconds += time.perf_counter() - started
            bar.update()
            bar.set_postfix(loss=f"{state.loss:.4g}", lr=f"{state.scheduler.get_last_lr()[0]:.2e}", refresh=False)
            if main and (stop or state.step % run.save_every == 0 or state.step == steps):
                _save(run, state)
            if main and run.on_sample and run.sample_every and state.step % run.sample_every == 0:
                _sample(run.on_sample, state)
            if stop:
                raise KeyboardInterrupt


def _step(
    run: _Run, state: TrainingState, objective: nn.Module, batches: Iterator[Any], interrupted: list[bool]
) -> bool:
    """One step of the optimizer; returns whether any process was interrupted."""
    device = run.accelerator.device
    state.optimizer.zero_grad()
    total = torch.zeros(2, device=device)
    for part in run.parts:
        batch = send_to_device(next(batches), device)
        sync = nullcontext() if part == run.parts[-1] else run.accelerator.no_sync(objective)
        with sync, step_generator(run.recipe.seed, state.step, part, device) as generator:
            value = objective(batch, generator, device.type) / len(run.parts)
            run.accelerator.backward(value)
        total[0] += value.detach()
    total[1] = float(bool(interrupted))
    loss, stop = run.accelerator.reduce(total, "mean").tolist()
    trained = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    norm = run.accelerator.clip_grad_norm_(trained, run.recipe.max_grad_norm).item()
    if not math.isfinite(loss) or not math.isfinite(norm):
        what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient norm is {norm} (the loss is {loss:.4g})"
        raise NonFiniteError(
            f"At step {state.step + 1} the {what}, expected finite numbers; the step was not taken. "
            "Lower learning_rate, train with mixed_precision='no', or look for such numbers in the data."
        )
    state.optimizer.step()
    state.scheduler.step()
    state.ema.step(state.module.parameters())
    state.step += 1
    state.loss = loss if state.loss is None else SMOOTHING * state.loss + (1 - SMOOTHING) * loss
    return stop > 0


def _save(run: _Run, state: TrainingState) -> None:
    if state.loss is not None and (state.best is None or state.loss < state.best["loss"]):
        state.best = {"step": state.step, "loss": state.loss}
    append_log(run.out, state)
    save_checkpoint(run.out, state, attrs.asdict(run.recipe), keep=run.keep)


def _sample(on_sample: Callable[[nn.Module, int], object], state: TrainingState) -> None:
    parameters = list(state.module.parameters())
    modes = {submodule: submodule.training for submodule in state.module.modules()}
    state.ema.store(parameters)
    try:
        state.ema.copy_to(parameters)
        state.module.eval()
        with torch.no_grad():
            on_sample(state.module, state.step)
    finally:
        state.ema.restore(parameters)
        for submodule, training in modes.items():
            submodule.training = training
