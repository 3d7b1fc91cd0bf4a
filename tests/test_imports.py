"""What a first command imports: no compiler of torch, no diffusers to read, no UNet of it to sample."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from energycomp.imports import light_diffusers
from energycomp.models import on_meta

HEAVY = "'torch._dynamo', 'scipy', 'torchvision', 'torchmetrics', 'transformers', 'diffusers.models.unets.unet_2d'"


def printed(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_sampling_and_the_checks_import_neither_the_compiler_nor_the_unets_and_the_compiler_works_then() -> None:
    code = (
        "import sys, energycomp; model, _ = map(energycomp.load, ('clevr-small', 'decomp'))\n"
        "from energycomp.sampling import Composer\n"
        "Composer(model(0.3, 0.4)).sample(num_inference_steps=1)\n"
        "import energycomp_lab.checks\n"
        f"print(sorted({{{HEAVY}}} & sys.modules.keys()))\n"
        "import torch\nprint(torch.compile(lambda x: x + 1, backend='eager')(torch.zeros(1)).item())"
    )
    assert printed(code) == "[]\n1.0\n"


UNUSED = "'diffusers', 'huggingface_hub', 'matplotlib', 'sympy', 'torch._dynamo', 'torchmetrics', 'torchvision'"


def test_loading_and_reading_import_no_diffusers(tmp_path: Path) -> None:
    Image.new("RGB", (320, 240), "gray").save(tmp_path / "gray.png")
    code = (
        f"import sys, energycomp; energycomp.load('clevr')\nprint(sorted({{{UNUSED}, 'scipy'}} & sys.modules.keys()))\n"
        f"sys.argv = ['energycomp', 'infer', 'clevr', {str(tmp_path / 'gray.png')!r}, '--anyway', '--json']\n"
        "from energycomp_cli.commands import main\nmain()\n"
    )
    loaded, answer, left = printed(
        f"import atexit, sys\natexit.register(lambda: print(sorted({{{UNUSED}}} & sys.modules.keys())))\n{code}"
    ).splitlines()
    assert (loaded, left) == ("[]", "[]")
    assert '"count"' in answer


def test_diffusers_looks_for_packages_when_it_is_asked() -> None:
    code = (
        "from importlib import metadata\nbefore = metadata.packages_distributions\n"
        "from energycomp.imports import light_diffusers\nwith light_diffusers():\n    import diffusers\n"
        "from diffusers.utils.import_utils import _package_map as packages\n"
        "assert packages == before() and metadata.packages_distributions is before\nprint(packages['PIL'])"
    )
    assert printed(code) == "['pillow']\n"


def test_a_compiler_that_is_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    there = type(sys)("torch._dynamo")
    monkeypatch.setitem(sys.modules, "torch._dynamo", there)
    with light_diffusers():
        assert sys.modules["torch._dynamo"] is there
    assert sys.modules["torch._dynamo"] is there


@pytest.mark.parametrize(
    ("fill", "options"), [(nn.init.normal_, {}), (nn.init.zeros_, {}), (nn.init.uniform_, {"a": -1.0, "b": 1.0})]
)
def test_parameters_on_meta_are_not_filled(fill: Any, options: Mapping[str, float]) -> None:
    with on_meta():
        tensor = torch.empty(2, 3)
        assert fill(tensor, **options) is tensor
        assert nn.Linear(2, 3).weight.is_meta
    assert fill(torch.full((2, 3), 7.0), **options).max() < 7
