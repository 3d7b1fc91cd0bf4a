"""fit(): one training loop on accelerate; a step draws from (seed, step) alone, so that a run resumes bit for bit."""

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import attrs
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, send_to_device
from diffusers.optimization import get_constant_schedule_with_warmup
from torch import Tensor, nn

from energycomp.errors import CheckpointError, InputError, NonFiniteError
from energycomp.files import remove_stale
from energycomp.models import Calibration
from energycomp.progress import counting
from energycomp_lab.training.checkpoint import (
    TrainingState,
    append_log,
    checkpoint_path,
    ema_state,
    ema_weights,
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    rewind_log,
    save_checkpoint,
)
from energycomp_lab.training.config import FitConfig, Step
from energycomp_lab.training.order import Order, TrainingData, batches, interrupt_flag, step_generator
from energycomp_lab.training.processes import make_accelerator
from energycomp_lab.training.trackers import Throughput, log_samples, start_trackers, stop_trackers, tracker_names
from energycomp_lab.training.validation import Standing, Validation

SMOOTHING = 0.98
Loss = Callable[[nn.Module, Any, Step], Tensor]
OnSample = Callable[[nn.Module, int], object]


@attrs.frozen(eq=False)
class Finished:
    """What a recipe measures at the end of a run, and is saved with the model.

    Args:
        documents: text files by name, such as its card, README.md.
        calibration: by which the model knows images of another kind.
    """

    documents: Mapping[str, str] = attrs.field(factory=dict)
    calibration: Calibration | None = None


@attrs.frozen(eq=False)
class FitResult:
    """What `fit` ends with.

    Args:
        step: how many were taken.
        loss: smoothed.
        checkpoint: of the averaged weights; of an earlier step where validation preferred it.
        ema_state: the averaged weights `{name: tensor}`.
        throughput: `images_per_second` and `rows_per_second` (network evaluations) over the steps of this call; empty
            where the run was finished already.
        standing: after the last evaluation, where there is a validation.
        finished: what the recipe measured; None without such a recipe.
    """

    step: int
    loss: float
    checkpoint: Path
    ema_state: dict[str, Tensor]
    throughput: dict[str, float] = attrs.field(factory=dict)
    standing: Standing | None = None
    finished: Finished | None = None


def fit(
    module: nn.Module,
    loss: Loss,
    data: TrainingData,
    config: FitConfig,
    *,
    out: str | Path,
    on_sample: OnSample | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    validation: Validation | None = None,
    progress: bool = True,
) -> FitResult:
    """Trains `module` in place with AdamW, or resumes from the newest whole checkpoint in `out`.

    A run that was killed at any moment resumes to the weights of an uninterrupted one; a finished one returns at once.

    A batch of `config.batch_size` runs as `config.micro_batches` equal parts whose gradients are averaged. Under
    `accelerate launch` each process takes its share of the parts, so the result depends on their number and not on the
    number of processes. Process 0 alone writes, samples and shows the progress.

    `out` receives `checkpoint-<step>.safetensors` every `config.save_every` steps and at the end, of which the newest
    `config.keep` stay, and with each a line of `log.jsonl`. Ctrl-C completes the step, saves and raises
    KeyboardInterrupt; a second one raises at once. In memory the parameters are held three more times: two moments and
    the average, as diffusers' EMAModel forms it.

    Args:
        loss: `loss(module, batch, step)`, a scalar, the mean over its batch. It draws from `step.generator`.
        data: map-style; `data[i]` is the same at every call, so augmentation belongs into the loss. An epoch's order
            follows from (seed, epoch).
        out: folder of the run.
        on_sample: `on_sample(module, step)` sees the averaged weights, in eval mode, every `config.sample_every` steps.
            A Pillow image that it returns is given to the trackers.
        collate_fn: makes a batch of items, as of `torch.utils.data.DataLoader`.
        validation: chooses the averaged weights that the run ends with, and may end it early. Its evaluations change no
            step; each is followed by a checkpoint, and that of the best one stays.

    Raises:
        InputError: a batch larger than `data` or not divisible, a loss that is no scalar, a tracker that is not
            installed or does not start.
        NonFiniteError: the loss or its gradient is not finite; the step is not taken.
        CheckpointError: `out` cannot be written, or was made with other settings or another module.

    >>> import tempfile
    >>> def loss(module, batch, step):
    ...     noise = torch.randn(batch.shape, generator=step.generator)
    ...     return (module(batch + noise) - batch).square().mean()
    >>> config = FitConfig(steps=4, batch_size=8, learning_rate=1e-2)
    >>> with tempfile.TemporaryDirectory() as out:
    ...     result = fit(nn.Linear(2, 2), loss, torch.randn(16, 2), config, out=out, progress=False)
    >>> result.step, result.checkpoint.name
    (4, 'checkpoint-000004.safetensors')
    """
    accelerator = make_accelerator(tracker_names(config.log_with), Path(out))
    samples = len(data) if isinstance(data, Sized) else 0
    config.check_batches(samples, accelerator.num_processes)
    run = _Run(
        accelerator=accelerator,
        config=attrs.evolve(config, micro_batches=config.micro_batches or accelerator.num_processes),
        samples=samples,
        out=Path(out),
        on_sample=on_sample,
        validation=validation,
        progress=progress,
        throughput=Throughput(accelerator.num_processes),
    )
    objective = accelerator.prepare_model(_Objective(module, loss, config.mixed_precision))
    state = _initial_state(module, config)
    _resume(run, state)
    if not run.has_ended(state):
        module.train()
        start_trackers(accelerator, config.trajectory(samples))
        try:
            order = Order(run.config, samples, run.parts, state.step)
            _train(run, state, objective, batches(data, order, collate_fn))
        finally:
            stop_trackers(accelerator)
    accelerator.wait_for_everyone()
    best = state.step if validation is None or state.standing is None else state.standing.step
    checkpoint = checkpoint_path(run.out, best)
    weights = ema_state(state) if best == state.step else ema_weights(checkpoint)
    return FitResult(
        state.step, float(state.loss or 0.0), checkpoint, weights, run.throughput.mean, standing=state.standing
    )


class _Objective(nn.Module):
    """The loss as a module: DistributedDataParallel sees one forward pass, whichever methods of `module` it calls."""

    def __init__(self, module: nn.Module, loss: Loss, mixed_precision: str) -> None:
        super().__init__()
        self.module = module
        self.loss = loss
        self.mixed_precision = mixed_precision

    def forward(self, batch: Any, step: Step, device: str) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=self.mixed_precision == "bf16"):
            value: object = self.loss(self.module, batch, step)
        if not isinstance(value, Tensor) or value.ndim != 0 or not value.requires_grad:
            got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"the loss returned {got}; expected a scalar tensor that requires grad; return the mean")
        return value.float()


@attrs.frozen(eq=False, kw_only=True)
class _Run:
    """What stays the same from step to step; `config.micro_batches` is a number."""

    accelerator: Accelerator
    config: FitConfig
    samples: int
    out: Path
    on_sample: OnSample | None
    validation: Validation | None
    progress: bool
    throughput: Throughput

    def has_ended(self, state: TrainingState) -> bool:
        return state.step >= self.config.steps or (
            self.validation is not None and self.validation.has_ended(state.standing)
        )

    @property
    def parts(self) -> range:
        """The micro batches of each batch that this process takes."""
        count = (self.config.micro_batches or 1) // self.accelerator.num_processes
        return range(self.accelerator.process_index * count, (self.accelerator.process_index + 1) * count)


def _initial_state(module: nn.Module, config: FitConfig) -> TrainingState:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise InputError("got a module with no parameter that requires grad; expected at least one; unfreeze some")
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    warmup = config.warmup_fraction * config.steps
    scheduler: torch.optim.lr_scheduler.LRScheduler
    if config.schedule == "constant":
        scheduler = get_constant_schedule_with_warmup(optimizer, math.ceil(warmup))
    else:
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=config.learning_rate,
            total_steps=config.steps,
            pct_start=config.warmup_fraction if warmup > 1.5 else 0.0,  # at exactly one step torch divides by zero
            cycle_momentum=False,
        )
    return TrainingState(module, optimizer, scheduler, [p.detach().clone() for p in module.parameters()])


def _resume(run: _Run, state: TrainingState) -> None:
    if run.accelerator.is_main_process:
        try:
            run.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"Cannot make {run.out}: {error}. Name a folder that can be written.") from error
        remove_stale(run.out)
    run.accelerator.wait_for_everyone()
    if path := newest_checkpoint(run.out):
        load_checkpoint(path, state, run.config.trajectory(run.samples))
    if state.standing is not None and not checkpoint_path(run.out, state.standing.step).exists():
        state.standing = None  # as where a checkpoint was copied from another run
    if run.accelerator.is_main_process:
        if not run.has_ended(state):
            rewind_log(run.out, state.step)
        else:  # a run killed in its last save may have left a checkpoint too many
            prune_checkpoints(run.out, state, keep=run.config.keep)


def _train(run: _Run, state: TrainingState, objective: nn.Module, batches: Iterator[Any]) -> None:
    main = run.accelerator.is_main_process
    steps = run.config.steps
    shown = counting("training", steps, done=state.step, unit="step", show=run.progress and main, leave=True)
    with shown as bar, interrupt_flag() as interrupted:
        while not run.has_ended(state):
            started = time.perf_counter()
            with run.throughput.step(run.config.batch_size):
                stop = _step(run, state, objective, batches, interrupted)
            state.seconds += time.perf_counter() - started
            rate = state.scheduler.get_last_lr()[0]
            run.accelerator.log({"loss": state.loss, "lr": rate, **run.throughput.rates}, step=state.step)
            bar.advance()
            bar.note(f"{run.throughput}, loss={state.loss:.4g}, lr={rate:.2e}")
            is_due = run.validation is not None and run.validation.is_due(state.step, steps)
            if is_due:
                _validate(run, state)
            if main and (stop or is_due or state.step % run.config.save_every == 0 or state.step == steps):
                append_log(run.out, state, is_due=is_due)
                save_checkpoint(run.out, state, run.config.trajectory(run.samples), keep=run.config.keep)
            if main and run.on_sample and run.config.sample_every and state.step % run.config.sample_every == 0:
                log_samples(run.accelerator, _sample(run.on_sample, state), state.step)
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
        with sync, step_generator(run.config.seed, state.step, part, device) as generator:
            value = objective(batch, Step(state.step, run.config.steps, generator), device.type) / len(run.parts)
            run.accelerator.backward(value)
        total[0] += value.detach()
    total[1] = float(bool(interrupted))
    loss, stop = run.accelerator.reduce(total, "mean").tolist()
    trained = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    norm = run.accelerator.clip_grad_norm_(trained, run.config.max_grad_norm).item()
    if not math.isfinite(loss) or not math.isfinite(norm):
        what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient norm is {norm} (the loss is {loss:.4g})"
        raise NonFiniteError(
            f"At step {state.step + 1} the {what}, expected finite numbers; the step was not taken. "
            "Lower learning_rate, train with mixed_precision='no', or look for such numbers in the data."
        )
    state.optimizer.step()
    state.scheduler.step()
    state.step += 1
    _average(state, run.config.ema_decay)
    state.loss = loss if state.loss is None else SMOOTHING * state.loss + (1 - SMOOTHING) * loss
    return stop > 0


@torch.no_grad()
def _average(state: TrainingState, most: float) -> None:
    """Moves the averages to the parameters, by a decay that grows with the steps up to `most`."""
    decay = min(state.step / (9 + state.step), most) if state.step > 1 else 0.0
    for average, parameter in zip(state.averages, state.module.parameters(), strict=True):
        average.sub_((1 - decay) * (average - parameter))


def _validate(run: _Run, state: TrainingState) -> None:
    """Evaluates the averaged weights in the first process; all learn of it, and end together."""
    assert run.validation is not None  # noqa: S101 - `_train` has checked it
    value = 0.0
    if run.accelerator.is_main_process:
        value = float(_sample(run.validation.measure, state))  # type: ignore[arg-type]
    [value] = broadcast_object_list([value])
    if not math.isfinite(value):
        raise NonFiniteError(
            f"At step {state.step} the validation is {value}, expected a finite number; mend `measure`."
        )
    state.standing = run.validation.judge(state.standing, state.step, value)
    run.accelerator.log({"validation": value}, step=state.step)


def _sample(on_sample: OnSample, state: TrainingState) -> object:
    trained = copy.deepcopy(state.module.state_dict())
    modes = {submodule: submodule.training for submodule in state.module.modules()}
    try:
        state.module.load_state_dict(ema_state(state))
        state.module.eval()
        with torch.no_grad():
            return on_sample(state.module, state.step)
    finally:
        state.module.load_state_dict(trained)
        for submodule, training in modes.items():
            submodule.training = training
