"""The reader of batches: what Ray Data, Hugging Face Datasets and joblib call in each of their processes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from energycomp.errors import EnergycompError, InputError, OutOfDistributionError
from energycomp_batch.parts import COLUMNS, columns_of

if TYPE_CHECKING:
    from energycomp.models import Model


@attrs.define(eq=False)
class Reader:
    """Infers the components of the images in batches of columns. It can be pickled: each process loads the model.

    A batch is a dict of columns, as the `map_batches` of Ray Data and the `map(batched=True)` of Hugging Face Datasets
    give it. It comes back with further columns, whose types do not depend on the answers:

    - `count` and `rows` (network evaluations) are integers, -1 for an image that could not be read;
    - `sure`, the probability that the answer is right, `fit`, `error`, `stderr`, `p_value` and `typicality` are floats,
      NaN where the answer has none;
    - `trusted` and `out_of_distribution` are bools, the second False where it was not tested and `typicality` is NaN;
      an image of a kind that the model does not know is not searched;
    - `objects` is a list of objects as JSON text, and `runner_up` the same of the next best answer, or null;
    - `warnings` is text, one line per warning;
    - `failed` is the reason why an image could not be read, or empty. It is no exception, so that one bad image does
      not end a job.

    Every image has the same draws, those of `seed`, so that an answer depends neither on its batch nor on its process.
    In another process than the one that made it, a reader sets torch to one thread: images are read side by side.

    Args:
        model: a name, folder or hub id, which is loaded in each process; a function without arguments that makes one;
            or a model, which is pickled as a whole.
        image: name of the column of images: paths, Pillow images, uint8 arrays, the bytes of files, or dicts with
            `bytes` or `path`, as Hugging Face Datasets stores images.
        solver, count: as `infer` takes them.
        options: of the model, as `load` takes them.
        anyway: whether images of a kind that the model does not know are read, too.

    Raises:
        InputError: a batch without the column of images, or with a column of the same name as a further one.

    >>> from energycomp.testing import bumps_model
    >>> import numpy as np
    >>> read = Reader(bumps_model, count=0)
    >>> found = read({"image": [np.zeros((16, 16, 3), dtype=np.uint8), b"no image"]})
    >>> found["count"], found["failed"][1]
    ([0, -1], 'got bytes, which cannot be decoded (cannot identify image file); expected a whole image')
    """

    model: Model | str | Path | Callable[[], Model]
    image: str = attrs.field(default="image", kw_only=True)
    solver: Any = attrs.field(default=None, kw_only=True)
    count: int | Sequence[int] | None = attrs.field(default=None, kw_only=True)
    seed: int = attrs.field(default=0, kw_only=True)
    device: str = attrs.field(default="cpu", kw_only=True)
    options: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True)
    anyway: bool = attrs.field(default=False, kw_only=True)
    _loaded: Model | None = attrs.field(default=None, init=False, repr=False)
    _process: int | None = attrs.field(factory=os.getpid, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        """The arguments alone: what is pickled is the same in every process, and holds no model that can be loaded."""
        return {field.name: getattr(self, field.name) for field in attrs.fields(type(self)) if field.init}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in {**state, "_loaded": None, "_process": None}.items():
            object.__setattr__(self, name, value)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with further columns."""
        if self.image not in batch:
            raise InputError(f"got a batch without {self.image!r} among {list(batch)}; name its column with image=")
        if taken := [name for name in COLUMNS if name in batch]:
            raise InputError(f"got a batch with a column {taken[0]!r}, which an answer has; rename it")
        self.load()
        rows = [self._row(image) for image in batch[self.image]]
        return {**batch, **{name: [row[name] for row in rows] for name in COLUMNS}}

    def load(self) -> Model:
        """The model of this process, which is loaded at the first call."""
        from energycomp.models import Model, load

        if self._process != os.getpid():
            import torch

            torch.set_num_threads(1)
            self._process = os.getpid()
        if self._loaded is None:
            given = self.model
            if isinstance(given, Model):
                self._loaded = given
            elif isinstance(given, str | Path):
                self._loaded = load(given, device=self.device, **self.options)
            else:
                self._loaded = given().to(self.device)
        return self._loaded

    def _row(self, image: Any) -> dict[str, Any]:
        """Reads one image, in any form that a column may have."""
        import torch

        from energycomp.inference import OutOfDistributionWarning, check_known, check_trusted, infer

        try:
            opened = _open(image)
            if not self.anyway:
                check_known(opened, self.load())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", OutOfDistributionWarning)  # it is in the answer
                solution = infer(
                    opened,
                    self.load(),
                    solver=self.solver,
                    count=self.count,
                    generator=torch.Generator().manual_seed(self.seed),
                    progress=False,
                )
            if not self.anyway:
                check_trusted(solution, self.load())
            return columns_of(solution.record())
        except OutOfDistributionError as error:
            return columns_of({"failed": str(error), "out_of_distribution": True})
        except EnergycompError as error:
            return columns_of({"failed": str(error)})


def _open(image: Any) -> Any:
    """Decodes bytes; other images are as `infer` takes them."""
    from energycomp.images import decode_image

    if isinstance(image, Mapping):
        content, path = image.get("bytes"), image.get("path")
        if content is None and path is None:
            raise InputError(f"got an image as a dict of {list(image)}; expected one with bytes, or with a path")
        return path if content is None else decode_image(content, str(path or "bytes"))
    return decode_image(bytes(image)) if isinstance(image, bytes | bytearray | memoryview) else image
