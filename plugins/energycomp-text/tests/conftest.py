"""What the tests share: a tiny Stable Diffusion pipeline and its folder, and copies of folders that are changed."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from energycomp_text.testing import TINY, tiny_pipeline


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def folder(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipelines") / "sd"
    pipe.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the tiny pipeline of a family, which is made once."""
    root = tmp_path_factory.mktemp("families")

    def made(name: str) -> Path:
        if not (root / name).exists():
            TINY[name]().save_pretrained(root / name)
        return root / name

    return made


@pytest.fixture
def copied(saved: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of such a folder, to be changed."""
    return lambda name: Path(shutil.copytree(saved(name), tmp_path / name))
