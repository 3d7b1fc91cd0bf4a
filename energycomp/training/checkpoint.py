"""Checkpoints of a training run: safetensors and JSON under a manifest, from which it resumes bit for bit."""

import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from energycomp.errors import CheckpointError
from energycomp.files import atomic_directory, atomic_file, discard, read_tensors, verify, write_tensors

__all__ = [
    "TrainingState",
    "append_log",
    "ema_state",
    "ema_weights",
    "load_checkpoint",
    "newest_checkpoint",
    "rewind_log",
    "save_checkpoint",
]

MODULE, EMA, OPTIMIZER, STATE = "module.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"
LOG = "log.jsonl"


@attrs.define(eq=False)
class TrainingState:
    """All that a training run carries from one step to the next; the rest follows from the step."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    ema: EMAModel
    step: int = 0
    loss: float | None = None
    best: dict[str, float] | None = None
    seconds: float = 0.0


def ema_state(module: nn.Module, ema: EMAModel) -> dict[str, Tensor]:
    """The `state_dict` of a module with its parameters averaged: `{name: tensor}`, buffers as they are.

    >>> module = nn.Linear(2, 1)
    >>> averaged = ema_state(module, EMAModel(module.parameters()))
    >>> averaged.keys() == module.state_dict().keys()
    True
    """
    averages = {id(p): average for p, average in zip(module.parameters(), ema.shadow_params, strict=True)}
    averaged = {name: averages[id(p)] for name, p in module.named_parameters(remove_duplicate=False)}
    return {name: averaged.get(name, tensor).detach().clone() for name, tensor in module.state_dict().items()}


def ema_weights(path: str | Path) -> dict[str, Tensor]:
    """The averaged weights `{name: tensor}` in a checkpoint folder, for `module.load_state_dict`, verified.

    A run may be going on: its checkpoints are whole at any moment.

    Raises:
        CheckpointError: no checkpoint, or a damaged one.

    >>> ema_weights("run/checkpoint-000500")
    Traceback (most recent call last):
    energycomp.errors.CheckpointError: run/checkpoint-000500 is damaged: ...
    """
    verify(path)
    return read_tensors(Path(path) / EMA)


def newest_checkpoint(out: str | Path) -> Path | None:
    """The checkpoint of `out` with the highest step that verifies, or None; a warning names each damaged one.

    >>> newest_checkpoint("absent") is None
    True
    """
    for _, path in sorted(_checkpoints(Path(out)), reverse=True):
        try:
            verify(path)
        except CheckpointError as error:
            warnings.warn(f"Passing over a checkpoint. {error}", stacklevel=2)
        else:
            return path
    return None


def save_checkpoint(out: str | Path, state: TrainingState, hyperparameters: Mapping[str, Any], *, keep: int) -> Path:
    """Write `out/checkpoint-<step>`, then remove all but the newest `keep` checkpoints; returns the new folder.

    Raises:
        CheckpointError: it cannot be written; the older checkpoints are as they were.

    >>> import tempfile
    >>> module = nn.Linear(2, 1)
    >>> optimizer = torch.optim.AdamW(module.parameters())
    >>> scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    >>> state = TrainingState(module, optimizer, scheduler, EMAModel(module.parameters()), step=3)
    >>> with tempfile.TemporaryDirectory() as out:
    ...     save_checkpoint(out, state, {"seed": 0}, keep=1).name
    'checkpoint-000003'
    """
    out = Path(out)
    path = out / f"checkpoint-{state.step:06d}"
    with atomic_directory(path) as folder:
        write_tensors(folder / MODULE, state.module.state_dict())
        write_tensors(folder / EMA, ema_state(state.module, state.ema))
        write_tensors(folder / OPTIMIZER, dict(_optimizer_tensors(state)))
        content = {
            "step": state.step,
            "loss": state.loss,
            "best": state.best,
            "seconds": state.seconds,
            "hyperparameters": dict(hyperparameters),
            "scheduler": state.scheduler.state_dict(),
            "optimizer": [
                {key: value for key, value in group.items() if key != "params"}
                for group in state.optimizer.param_groups
            ],
            "ema": {key: value for key, value in state.ema.state_dict().items() if key != "shadow_params"},
        }
        (folder / STATE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    older = sorted((step, other) for step, other in _checkpoints(out) if step < state.step)
    newer = [other for step, other in _checkpoints(out) if step > state.step]  # damaged: the run resumed before them
    for other in newer + [other for _, other in older[: max(0, len(older) + 1 - keep)]]:
        discard(other)
    return path


def load_checkpoint(path: str | Path, state: TrainingState, hyperparameters: Mapping[str, Any]) -> None:
    """Put a verified checkpoint into `state`, in place.

    Raises:
        CheckpointError: it has other hyperparameters or another set of tensors; `state` is unchanged then.

    >>> import tempfile
    >>> module = nn.Linear(2, 1)
    >>> optimizer = torch.optim.AdamW(module.parameters())
    >>> scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    >>> state = TrainingState(module, optimizer, scheduler, EMAModel(module.parameters()), step=3)
    >>> with tempfile.TemporaryDirectory() as out:
    ...     path = save_checkpoint(out, state, {"seed": 0}, keep=1)
    ...     state.step = 4
    ...     load_checkpoint(path, state, {"seed": 0})
    ...     state.step
    3
    """
    path = Path(path)
    try:
        content = json.loads((path / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Cannot read {path / STATE}: {error}. Delete {path} to go on from an older one."
        ) from error
    _check_hyperparameters(path, content["hyperparameters"], hyperparameters)
    weights, averages, moments = (read_tensors(path / name) for name in (MODULE, EMA, OPTIMIZER))
    _check_tensors(path, weights, state.module.state_dict())
    state.module.load_state_dict(weights)
    with torch.no_grad():
        for (name, _), average in zip(state.module.named_parameters(), state.ema.shadow_params, strict=True):
            average.copy_(averages[name])
    state.ema.load_state_dict(content["ema"])
    _restore_optimizer(state, content["optimizer"], moments)
    state.scheduler.load_state_dict(content["scheduler"])
    state.step, state.loss, state.best = content["step"], content["loss"], content["best"]
    state.seconds = content["seconds"]


def append_log(out: str | Path, state: TrainingState) -> None:
    """Add `{step, loss, lr, seconds}` to `out/log.jsonl`; the loss is smoothed, the seconds are those of training.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = Path(out) / LOG
    rate = state.scheduler.get_last_lr()[0]
    line = {"step": state.step, "loss": state.loss, "lr": rate, "seconds": round(state.seconds, 3)}
    try:
        with path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error}. Free some space or fix its permissions.") from error


def rewind_log(out: str | Path, step: int) -> None:
    r"""Drop the lines of `out/log.jsonl` after `step`, and one that a killed run left half written.

    Raises:
        CheckpointError: the file cannot be read or written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as out:
    ...     _ = (Path(out) / "log.jsonl").write_text('{"step": 5}\n{"step": 10}\n{"st')
    ...     rewind_log(out, 5)
    ...     (Path(out) / "log.jsonl").read_text()
    '{"step": 5}\n'
    """
    path = Path(out) / LOG
    if not path.exists():
        return
    kept = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error}. Fix its permissions or remove it.") from error
    for line in lines:
        with suppress(ValueError, TypeError, KeyError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    with atomic_file(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")


def _checkpoints(out: Path) -> Iterator[tuple[int, Path]]:
    for path in out.glob("checkpoint-*"):
        if match := re.fullmatch(r"checkpoint-(\d{6,})", path.name):
            yield int(match[1]), path


def _optimized(state: TrainingState) -> list[tuple[str, nn.Parameter]]:
    """Names and parameters in the order of the optimizer, which numbers its state by position."""
    names = {id(parameter): name for name, parameter in state.module.named_parameters()}
    return [(names[id(p)], p) for group in state.optimizer.param_groups for p in group["params"]]


def _optimizer_tensors(state: TrainingState) -> Iterator[tuple[str, Tensor]]:
    """`<parameter name>/<moment>`: the slash never occurs in a parameter name."""
    for name, parameter in _optimized(state):
        for key, value in state.optimizer.state.get(parameter, {}).items():
            yield f"{name}/{key}", value


def _restore_optimizer(state: TrainingState, groups: list[dict[str, Any]], moments: Mapping[str, Tensor]) -> None:
    entries: dict[str, dict[str, Tensor]] = {}
    for flat, tensor in moments.items():
        name, key = flat.rsplit("/", 1)
        entries.setdefault(name, {})[key] = tensor
    restored = {}
    for index, (name, parameter) in enumerate(_optimized(state)):
        if name in entries:
            restored[index] = {key: _in_layout_of(parameter, tensor) for key, tensor in entries[name].items()}
    blank = state.optimizer.state_dict()
    merged = [
        {**saved, "betas": tuple(saved["betas"]), "params": group["params"]}
        for saved, group in zip(groups, blank["param_groups"], strict=True)
    ]
    state.optimizer.load_state_dict({"state": restored, "param_groups": merged})


def _in_layout_of(parameter: Tensor, tensor: Tensor) -> Tensor:
    """The layout (channels_last) decides which kernel runs, and so the last bit."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype, device="cpu").copy_(tensor)


def _check_hyperparameters(path: Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    names = sorted(saved.keys() | given.keys())
    differences = [
        f"{name}: got {given.get(name)!r}, the checkpoint has {saved.get(name)!r}"
        for name in names
        if saved.get(name) != given.get(name)
    ]
    if differences:
        raise CheckpointError(
            f"{path} belongs to a run with other hyperparameters. {'; '.join(differences)}. "
            "Use the same values to resume it, or another `out` to start a new run."
        )


def _check_tensors(path: Path, saved: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    differences = [f"{name} only in the checkpoint" for name in sorted(saved.keys() - given.keys())]
    differences += [f"{name} only in the module" for name in sorted(given.keys() - saved.keys())]
    for name in sorted(saved.keys() & given.keys()):
        got, expected = given[name], saved[name]
        if (got.shape, got.dtype) != (expected.shape, expected.dtype):
            differences.append(
                f"{name}: got {tuple(got.shape)} {got.dtype}, "
                f"the checkpoint has {tuple(expected.shape)} {expected.dtype}"
            )
    if differences:
        raise CheckpointError(
            f"{path} holds other tensors than the module: {'; '.join(differences[:5])}"
            f"{f' and {len(differences) - 5} more' if len(differences) > 5 else ''}. "
            "Build the module as it was to resume, or use another `out` to start a new run."
        )
