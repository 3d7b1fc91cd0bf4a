"""Checkpoints of a training run: one safetensors file each, from which the run resumes bit for bit."""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors import safe_open
from torch import Tensor, nn

from energycomp.errors import CheckpointError, EnergycompWarning
from energycomp.files import atomic_file, read_tensors, write_tensors
from energycomp_cli import append_line
from energycomp_lab.training.validation import Standing

LOG = "log.jsonl"


@attrs.define(eq=False)
class TrainingState:
    """All that a training run carries from one step to the next; `averages` has one tensor per parameter."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    averages: list[Tensor]
    step: int = 0
    loss: float | None = None
    standing: Standing | None = None
    seconds: float = 0.0


def ema_state(state: TrainingState) -> dict[str, Tensor]:
    """The `state_dict` of the module with its parameters averaged: `{name: tensor}`, buffers as they are."""
    averages = {id(p): average for p, average in zip(state.module.parameters(), state.averages, strict=True)}
    averaged = {name: averages[id(p)] for name, p in state.module.named_parameters(remove_duplicate=False)}
    return {name: averaged.get(name, tensor).detach().clone() for name, tensor in state.module.state_dict().items()}


def ema_weights(path: str | Path) -> dict[str, Tensor]:
    """The averaged weights `{name: tensor}` in a checkpoint, for `module.load_state_dict`, verified.

    A run may be going on: its checkpoints are whole at any moment.

    Raises:
        CheckpointError: no checkpoint, or a damaged one.

    >>> ema_weights("run/checkpoint-000500.safetensors")
    Traceback (most recent call last):
    energycomp.errors.CheckpointError: Cannot read run/checkpoint-000500.safetensors: ...
    """
    return read_checkpoint(Path(path))[1]["ema"]


def newest_checkpoint(out: str | Path) -> Path | None:
    """The checkpoint of `out` with the highest step that verifies, or None; a warning names each damaged one."""
    for _, path in sorted(_checkpoints(Path(out)), reverse=True):
        try:
            read_checkpoint(path)
        except CheckpointError as error:
            warnings.warn(f"Passing over a checkpoint. {error}", EnergycompWarning, stacklevel=2)
        else:
            return path
    return None


def save_checkpoint(out: str | Path, state: TrainingState, hyperparameters: Mapping[str, Any], *, keep: int) -> Path:
    """Writes `out/checkpoint-<step>.safetensors`, then removes all but the newest `keep` checkpoints and the best one.

    The file holds weights, averages and the optimizer's moments as tensors, and the rest as JSON in its metadata, with
    a sha256 over both.

    Raises:
        CheckpointError: it cannot be written; the older checkpoints are as they were.
    """
    path = checkpoint_path(out, state.step)
    optimizer = state.optimizer.state_dict()
    moments = {f"{index}.{key}": value for index, each in optimizer["state"].items() for key, value in each.items()}
    kinds = {"module": state.module.state_dict(), "ema": ema_state(state), "optimizer": moments}
    tensors = {f"{kind}/{name}": tensor for kind, named in kinds.items() for name, tensor in named.items()}
    content = {
        "step": state.step,
        "loss": state.loss,
        "standing": None if state.standing is None else attrs.asdict(state.standing),
        "seconds": state.seconds,
        "hyperparameters": dict(hyperparameters),
        "scheduler": state.scheduler.state_dict(),
        "optimizer": optimizer["param_groups"],
    }
    text = json.dumps(content)
    with atomic_file(path) as temporary:
        write_tensors(temporary, tensors, {"state": text, "sha256": _digest(text, tensors)})
    prune_checkpoints(out, state, keep=keep)
    return path


def checkpoint_path(out: str | Path, step: int) -> Path:
    return Path(out) / f"checkpoint-{step:06d}.safetensors"


def prune_checkpoints(out: str | Path, state: TrainingState, *, keep: int) -> None:
    """Removes all but the best checkpoint and the newest `keep` up to a state; those of later steps are damaged."""
    found = sorted(_checkpoints(Path(out)))
    kept = [path for number, path in found if number <= state.step][-keep:]
    if state.standing is not None:
        kept.append(checkpoint_path(out, state.standing.step))
    for _, path in found:
        if path not in kept:
            try:
                path.unlink()
            except OSError as error:
                raise CheckpointError(f"Cannot remove {path}: {error}. Check the permissions of its folder.") from error


def load_checkpoint(path: str | Path, state: TrainingState, hyperparameters: Mapping[str, Any]) -> None:
    """Puts a checkpoint into `state`, in place, unless it is damaged or of other hyperparameters or tensors."""
    path = Path(path)
    content, tensors = read_checkpoint(path)
    advice = "Use the same values to resume it, or another `out` to start a new run."
    problem = f"{path} belongs to a run with other hyperparameters"
    _check_same(problem, content["hyperparameters"], hyperparameters, advice)
    saved, own = map(_shapes, (tensors["module"], state.module.state_dict()))
    advice = "Build the module as it was to resume, or use another `out` to start a new run."
    _check_same(f"{path} holds other tensors than the module", saved, own, advice)
    state.module.load_state_dict(tensors["module"])
    with torch.no_grad():
        for (name, _), average in zip(state.module.named_parameters(), state.averages, strict=True):
            average.copy_(tensors["ema"][name])
    _restore_optimizer(state.optimizer, content["optimizer"], tensors["optimizer"])
    state.scheduler.load_state_dict(content["scheduler"])
    state.step, state.loss, state.seconds = content["step"], content["loss"], content["seconds"]
    standing = content.get("standing")
    state.standing = None if standing is None else Standing(**standing)


def append_log(out: str | Path, state: TrainingState, *, is_due: bool = False) -> None:
    """Adds `{step, loss, lr, seconds}` to `out/log.jsonl`; the loss is smoothed, the seconds are those of training.

    Args:
        is_due: whether there was an evaluation at this step, whose value is added, too.
    """
    rate = state.scheduler.get_last_lr()[0]
    line = {"step": state.step, "loss": state.loss, "lr": rate, "seconds": round(state.seconds, 3)}
    if is_due and state.standing is not None:
        line["validation"] = state.standing.value
    append_line(Path(out) / LOG, line)


def rewind_log(out: str | Path, step: int) -> None:
    """Drops the lines of `out/log.jsonl` after `step`, and one that a killed run left half written."""
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


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """The JSON of a checkpoint, and its tensors `{module, ema, optimizer: {name: tensor}}`, verified."""
    tensors = read_tensors(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    text = metadata.get("state", "")
    if metadata.get("sha256") != _digest(text, tensors):
        raise CheckpointError(
            f"{path} is damaged: it is altered, its sha256 is not the one that was saved. Delete it to resume from an "
            "older one."
        )
    kinds: dict[str, dict[str, Tensor]] = {"module": {}, "ema": {}, "optimizer": {}}
    for key, tensor in tensors.items():
        kind, _, name = key.partition("/")
        kinds[kind][name] = tensor
    return json.loads(text), kinds


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _checkpoints(out: Path) -> Iterator[tuple[int, Path]]:
    for path in out.glob("checkpoint-*.safetensors"):
        if match := re.fullmatch(r"checkpoint-(\d{6,})", path.stem):
            yield int(match[1]), path


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[object, ...]]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]], moments: Mapping[str, Tensor]
) -> None:
    # torch.distributed.checkpoint flattens an optimizer too, but not one with parameters that had no gradient yet.
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for flat, tensor in moments.items():
        index, _, key = flat.partition(".")
        like = parameters[int(index)]
        if tensor.shape == like.shape:  # the layout (channels_last) decides which kernel runs, and so the last bit
            tensor = torch.empty_like(like, dtype=tensor.dtype, device="cpu").copy_(tensor)  # noqa: PLW2901
        state.setdefault(int(index), {})[key] = tensor
    groups = [{**group, "betas": tuple(group["betas"])} for group in groups]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _check_same(problem: str, saved: Mapping[str, Any], given: Mapping[str, Any], advice: str) -> None:
    differences = [
        f"{name} only in the {'checkpoint' if name in saved else 'module'}"
        if (name in saved) != (name in given)
        else f"{name}: got {given[name]!r}, the checkpoint has {saved[name]!r}"
        for name in sorted(saved.keys() | given.keys())
        if name not in saved or name not in given or saved[name] != given[name]
    ]
    if differences:
        more = f" and {len(differences) - 5} more" if len(differences) > 5 else ""
        raise CheckpointError(f"{problem}: {'; '.join(differences[:5])}{more}. {advice}")
