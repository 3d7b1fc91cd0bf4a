"""Runs that go on from the checkpoints of another folder, or of a repository of the hub."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from energycomp.errors import CheckpointError, NotFoundError
from energycomp.files import atomic_file
from energycomp.models import HubSource
from energycomp_lab.training.checkpoint import newest_checkpoint, read_checkpoint

PATTERN = "checkpoint-*.safetensors"
EXPECTED = "the folder of a run, one of its checkpoints, or the hub id of a repository with them"


def copy_checkpoints(source: str, out: Path) -> bool:
    """Copies the newest whole checkpoint of a run to `out`, from which `fit` continues; whether the source has one.

    A run of several parts has a folder for each, with checkpoints of its own. A folder of `out` that has a checkpoint
    already stays as it is, so that the same command continues its own run. Of several processes the first copies.

    Args:
        source: folder of a run, a checkpoint, or "owner/name" or "owner/name@revision" on the hub.

    Raises:
        NotFoundError: the source is none of these.
        HubError: the download broke off.
        CheckpointError: the checkpoint that `source` names is damaged, or `out` cannot be written.
    """
    folders = _folders(source)
    if os.environ.get("RANK", "0") == "0":
        for name, checkpoint in folders.items():
            target = out / name
            if newest_checkpoint(target) is None:
                try:
                    target.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    raise CheckpointError(f"Cannot make {target}: {error}. Name another folder.") from error
                with atomic_file(target / checkpoint.name) as temporary:
                    shutil.copyfile(checkpoint, temporary)
    return bool(folders)


def _folders(source: str) -> dict[str, Path]:
    """The newest whole checkpoint of each part of a run, by the name of its folder."""
    path = Path(source)
    if os.path.isfile(path):  # noqa: PTH113 - False for a name that is too long
        if not path.match(PATTERN):
            raise NotFoundError(f"got {source!r}, a file that is no checkpoint; expected {EXPECTED}")
        read_checkpoint(path)
        return {".": path}
    if not os.path.isdir(path):  # noqa: PTH112
        hub = HubSource.parse(source)
        if hub is None:
            raise NotFoundError(f"got {source!r}, which does not exist; expected {EXPECTED}")
        path = hub.download([PATTERN, f"*/{PATTERN}"], EXPECTED)
    newest: dict[str, Path] = {}
    for folder in sorted({file.parent for file in [*path.glob(PATTERN), *path.glob(f"*/{PATTERN}")]}):
        if (checkpoint := newest_checkpoint(folder)) is not None:
            newest[str(folder.relative_to(path))] = checkpoint
    return newest
