"""Parts of networks as ONNX files, exported once and kept in the cache."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from energycomp.errors import CheckpointError, EnergycompWarning
from energycomp.files import atomic_directory, cache_folder
from energycomp.manifest import verify

FILE = "part.onnx"


@contextmanager
def onnx_file(part: nn.Module, example: Sequence[Tensor], key: str, *, fresh: bool) -> Iterator[Path]:
    """The ONNX file of a part: that of the cache, or a new one, which is temporary where that cannot be written."""
    folder = cache_folder() / "engines" / key
    if not _is_kept(folder, fresh=fresh):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with atomic_directory(folder) as temporary:
                _export(part, example, temporary / FILE)
        except (CheckpointError, OSError) as error:
            _warn(f"got the folder {folder.parent}, which cannot be written ({error}); the export is not kept")
            with TemporaryDirectory() as unkept:
                _export(part, example, Path(unkept) / FILE)
                yield Path(unkept) / FILE
            return
    yield folder / FILE


def is_plain(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors are on the CPU and no floats but float32, the precision in which energies are compared."""
    return all(
        tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.bool, torch.int64) for tensor in tensors
    )


def _is_kept(folder: Path, *, fresh: bool) -> bool:
    """Whether the cache has an export that can be used; warns of one that cannot."""
    if not folder.exists():
        return False
    try:
        verify(folder)
    except CheckpointError:
        fresh = True
    if fresh:
        _warn(f"got {folder}, which is damaged or of another network; it is exported again")
    return not fresh


def traced(part: nn.Module, example: Sequence[Tensor]) -> torch.export.ExportedProgram:
    """The graph of a part, for any number of rows."""
    rows = tuple({0: torch.export.Dim.DYNAMIC} for _ in example)
    return torch.export.export(part, tuple(example), dynamic_shapes=(rows,))


def _export(part: nn.Module, example: Sequence[Tensor], file: Path) -> None:
    """Costs about 5 CPU seconds a part; the exporter's remarks for developers are not shown."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(traced(part, example), (), file, dynamo=True, verbose=False)
    finally:
        logging.disable(disabled)


def _warn(text: str) -> None:
    warnings.warn(text, EnergycompWarning, stacklevel=5)
