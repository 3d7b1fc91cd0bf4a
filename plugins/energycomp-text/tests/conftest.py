"""What the tests share: a tiny Stable Diffusion pipeline, and the folder of the pipeline that a file of tests has."""

from pathlib import Path
from typing import Any

import pytest

from energycomp_text.testing import tiny_pipeline


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def folder(pipe: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipelines") / "sd"
    pipe.save_pretrained(path)
    return path
