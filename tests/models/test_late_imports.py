"""Modules of plugins that are imported while a model is loaded: their constants are made in memory, not on meta."""

import json
import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from energycomp.models import save_pretrained
from energycomp.testing import stripes_model, tiny_model

# Each module holds a constant; one is larger than what a network may make beside its weights.
MODULES = {
    "network": "from energycomp.testing.models import Stripes as Network",
    "function": "from energycomp.denoisers import TwoStageUNet as Network\nTABLE = torch.ones(2_000_000)",
    "encoder": """
from energycomp.testing import StripesEncoder
class Encoder(StripesEncoder):
    def __init__(self, **config):
        import late.constructor
        super().__init__(**config)
    def forward(self, samples):
        import late.forward
        return super().forward(samples)
""",
    "constructor": "",
    "forward": "",
    "conditioner": """
from energycomp.components import Condition
from energycomp.testing import UnitSquare
class Learned:
    def __init__(self):
        self.square, self.module = UnitSquare(), torch.nn.Linear(2, 2)
        self.value_shape, self.token_shape = self.square.value_shape, self.square.token_shape
        self.support, self.parse, self.describe = self.square.support, self.square.parse, self.square.describe
    def config(self):
        return {}
    def __call__(self, values):
        return Condition(self.module(self.square(values).rows))
""",
    "decomposer": "from energycomp_decomp import DiffusionDecomposer as Decomposer",
}
HOOKS = """
from energycomp.plugins import hookimpl

def function(**config):
    from late.function import Network
    return Network(**config)

@hookimpl
def energycomp_register(add):
    add.network("late", "late.network:Network")
    add.network("late_function", function)
    add.encoder("late", "late.encoder:Encoder")
    add.conditioner("late", "late.conditioner:Learned")
    add.decomposer("late", "late.decomposer:Decomposer")
"""
CHILD = """
import json, sys, torch
from energycomp.decomposition import decomposer_of
from energycomp.models import from_pretrained
decomposer_of(from_pretrained("stripes"))
from_pretrained("learned")
found = {n: str(m.SCALE.device) for n, m in sys.modules.items() if n.startswith("late.")}
held = [(n, v) for n, m in list(sys.modules.items()) for v in list(vars(m).values())]
meta = [n for n, v in held if isinstance(v, torch.Tensor) and v.is_meta]
print(json.dumps([found, meta]))
"""


def test_a_module_that_loading_imports_keeps_its_constants_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "late").mkdir()
    (tmp_path / "late" / "__init__.py").write_text(HOOKS)
    for name, source in MODULES.items():
        (tmp_path / "late" / f"{name}.py").write_text(f"import torch\n{source}\nSCALE = torch.ones(2_000_000)\n")
    info = tmp_path / "late-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[energycomp]\nlate = late\n")
    monkeypatch.syspath_prepend(tmp_path)
    from late.conditioner import Learned  # type: ignore[import-not-found]

    names = {"network_name": "late", "encoder_name": "late", "decomposer_name": "late"}
    save_pretrained(attrs.evolve(stripes_model(), **names), tmp_path / "stripes")
    learned = attrs.evolve(tiny_model(), conditioner=Learned(), conditioner_name="late", network_name="late_function")
    save_pretrained(learned, tmp_path / "learned")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", CHILD], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found, meta = json.loads(done.stdout)
    assert found == {f"late.{name}": "cpu" for name in MODULES}
    assert meta == []
