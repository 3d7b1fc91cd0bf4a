"""What tests of several folders of the core share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Halved:
    """A codec whose latents are half as large as the images, in numbers and in size."""

    identity, latent_shape = "halved", (3, 16, 16)

    def encode(self, images: Any) -> Any:
        return images[:, :, ::2, ::2] / 2

    def decode(self, latents: Any) -> Any:
        return latents.repeat_interleave(2, 2).repeat_interleave(2, 3) * 2

    def config(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def halved() -> Halved:
    return Halved()


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """Changes the config and the tensors of a saved model, and gives it an honest manifest."""
    from energycomp.files import atomic_directory, read_tensors, write_tensors

    def change(folder: Path, edit: Callable[[dict[str, Any], dict[str, Any]], object]) -> None:
        config = json.loads((folder / "config.json").read_text())
        tensors = read_tensors(folder / "model.safetensors")
        edit(config, tensors)
        with atomic_directory(folder) as temporary:
            (temporary / "config.json").write_text(json.dumps(config))
            write_tensors(temporary / "model.safetensors", tensors)

    return change
