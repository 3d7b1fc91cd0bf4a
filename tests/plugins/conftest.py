"""Distributions on disk, as pip would write them."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from energycomp import plugins

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Writes a module and its dist-info, as pip would, to a folder on sys.path, and discovers again."""
    modules = []

    def write(name: str, source: str, *, distribution: str | None = None, version: str = "1.0") -> None:
        module = f"fake_{name}"
        distribution = distribution or f"energycomp-{name}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[energycomp]\n{name} = {module}\n")
        modules.append(module)
        plugins.reload()

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        patch.delenv("ENERGYCOMP_PLUGINS", raising=False)
        patch.delenv("ENERGYCOMP_DISABLE_PLUGINS", raising=False)
        yield write
    for module in modules:
        sys.modules.pop(module, None)
    plugins.reload()
