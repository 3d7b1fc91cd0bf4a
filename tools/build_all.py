"""Builds the wheels and sdists of all packages, and tries them in an environment that knows nothing else of energycomp.

1. Builds `energycomp` and every package in plugins/ with hatchling, and prints what the wheels contain.
2. Installs the wheels into an empty virtual environment. Their dependencies are those of the running environment, or,
   with `--with-dependencies`, are installed truly.
3. In an empty folder: the Python of the README, `energycomp sample`, `infer`, `data` and `train`, and the time of
   `import energycomp`.
4. The same Python, `sample`, `infer` and `edit` with the wheels of `pip install energycomp-clevr` alone.

It needs hatchling and hatch-fancy-pypi-readme, and no network but for `--with-dependencies`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGES = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
READING = (
    "sample clevr '0.3,0.45' '0.7,0.6' --steps 20 -o scene.png",
    "infer clevr scene.png --count 2 -o out",
    "edit clevr scene.png --remove 1 --count 2 --steps 20 -o edited.png",
)
COMMANDS = (
    *READING,
    "data decomp -n 64 -o shapes",
    "train decomp --data shapes --steps 2 --option batch_size=2 --option sample_every=0 -o run",
    "plugins",
)
# energycomp-clevr and what it depends on
ALONE = (
    "energycomp", "energycomp_cli", "energycomp_edit", "energycomp_samplers", "energycomp_solvers", "energycomp_clevr"
)  # fmt: skip
WHERE = "import pathlib, energycomp, energycomp_clevr as other; print(energycomp.__file__, other.__file__)"
SECONDS = "import time; t = time.perf_counter(); import energycomp; print(time.perf_counter() - t)"


class Summary(NamedTuple):
    """What a wheel holds."""

    name: str
    size: int
    files: int
    weights: int  # bytes
    cards: int
    entry_points: bool
    licence: bool


def build(packages: list[Path], out: Path) -> list[Path]:
    """The wheels; the sdists lie beside them."""
    out.mkdir(parents=True, exist_ok=True)
    for package in packages:
        _run([sys.executable, "-m", "hatchling", "build", "-d", str(out.resolve())], cwd=package)
    return sorted(out.glob("*.whl"))


def summary(wheel: Path) -> Summary:
    with zipfile.ZipFile(wheel) as archive:
        infos = archive.infolist()
    names = [info.filename for info in infos]
    return Summary(
        wheel.name.split("-")[0],
        wheel.stat().st_size,
        len(names),
        sum(info.file_size for info in infos if info.filename.endswith(".safetensors")),
        sum("/weights/" in name and name.endswith("README.md") for name in names),
        any(name.endswith("entry_points.txt") for name in names),
        any(name.endswith("licenses/LICENSE") for name in names),
    )


def environment(folder: Path, wheels: list[Path], *, with_dependencies: bool) -> Path:
    """The Python of a new virtual environment with the wheels in it."""
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    if wheels:
        _run([*pip, *([] if with_dependencies else ["--no-deps", "--no-index"]), *map(str, wheels)])
    if not with_dependencies:
        # Paths in a .pth file come after the environment's own, and editable installs behind them are not followed.
        own = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
        theirs = [path for path in sys.path if path.endswith("-packages")]
        (own / "dependencies.pth").write_text("\n".join(theirs) + "\n")
    return python


def try_out(python: Path, folder: Path, commands: Sequence[str]) -> float:
    """Runs what a newcomer runs in an empty folder; returns the seconds of `import energycomp`."""
    folder.mkdir()
    places = _python(python, folder, WHERE).split()
    if not all(Path(place).is_relative_to(python.parents[1]) for place in places):
        raise SystemExit(f"got {' and '.join(places)}; expected the packages of the new environment")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.findall(r"```python\n(import energycomp\n.*?)```", readme, flags=re.DOTALL)[0]
    _timed("Python of the README", python, folder, block)
    for command in commands:
        code = f"import shlex, sys; from energycomp_cli import main; sys.argv[1:] = shlex.split({command!r}); main()"
        _timed(f"energycomp {command}", python, folder, code)
    return min(float(_python(python, folder, SECONDS)) for _ in range(5))


def _python(python: Path, folder: Path, code: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ENERGYCOMP_"))}
    return _run([str(python), "-c", code], cwd=folder, env={**kept, "ENERGYCOMP_CACHE": str(folder / "cache")})


def _timed(what: str, python: Path, folder: Path, code: str) -> None:
    start = time.perf_counter()
    _python(python, folder, code)
    print(f"{time.perf_counter() - start:6.1f} s  {what}", flush=True)


def _run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:300]}\n{done.stdout}{done.stderr}")
    return done.stdout


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "dist", help="folder of wheels and sdists")
    parser.add_argument("--with-dependencies", action="store_true", help="install the dependencies truly")
    parser.add_argument("--build-only", action="store_true", help="do not try the wheels")
    options = parser.parse_args(arguments)
    wheels = build(PACKAGES, options.out)
    print(f"{'package':24}{'MB':>8}{'files':>8}{'MB of weights':>16}{'cards':>8}")
    for one in map(summary, wheels):
        print(f"{one.name:24}{one.size / 1e6:8.2f}{one.files:8}{one.weights / 1e6:16.2f}{one.cards:8}")
        if not (one.entry_points and one.licence):
            raise SystemExit(f"{one.name} lacks its entry points or its licence")
    if options.build_only:
        return
    with tempfile.TemporaryDirectory() as folder:
        true = options.with_dependencies
        python = environment(Path(folder) / "venv", wheels, with_dependencies=true)
        seconds = try_out(python, Path(folder) / "empty", COMMANDS)
        few = [wheel for wheel in wheels if wheel.name.split("-")[0] in ALONE]
        print(f"{' '.join(ALONE)} alone:", flush=True)
        try_out(environment(Path(folder) / "few", few, with_dependencies=true), Path(folder) / "alone", READING)
    print(f"{seconds:6.2f} s  import energycomp, the least of 5")


if __name__ == "__main__":
    main()
