"""Is anything let in? Mutated weights, pickles, configs and pictures: an error of ours, or the right result.

python benchmarks/fuzz.py [--weights 2000] [--configs 500] [--pictures 2000] [--infer 200] [--seed 0] [--only PART ...]

About five minutes on two cores. Each part runs in its own process (Linux; no network). The table is printed and
written to `-o`, with one line for each kind of case; the exit status is 1 if a case was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_attacks
import fuzz_configs
import fuzz_pictures
import fuzz_weights
import numpy as np
from fuzz_watch import Tally, expect, outcome, resident
from tqdm import tqdm

from energycomp.images import open_image
from energycomp.models import save_pretrained
from energycomp.testing import tiny_model

PICTURE_BYTES = 256e6  # what `open_image` promises to stay under

Part = Callable[[argparse.Namespace, Path], Tally]


def main() -> int:
    """Runs every part in its own process and writes the table."""
    options = parse()
    if options.part:
        with tempfile.TemporaryDirectory() as folder:
            tally = PARTS[options.part](options, Path(folder))
        megabytes = {kind: taken / 1e6 for kind, taken in tally.memory.items()}
        print(json.dumps({"verdicts": tally.verdicts, "wrong": tally.wrong, "slowest": tally.slowest, "mb": megabytes}))
        return 0
    results = {part: apart(part, options) for part in options.only or PARTS}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(f"{table(results)}\n{details(results)}", encoding="utf-8")
    print(table(results))
    for part, result in results.items():
        for line in result["wrong"]:
            print(f"{part}: {line}", file=sys.stderr)
    return int(any(result["wrong"] for result in results.values()))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=int, default=2000, help="mutated weight files and manifests")
    parser.add_argument("--configs", type=int, default=500, help="fuzzed configs")
    parser.add_argument("--pictures", type=int, default=2000, help="mutated pictures")
    parser.add_argument("--infer", type=int, default=200, help="mutated pictures through `energycomp infer`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="these parts")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--part", choices=list(PARTS), help="run one part here and print its result as JSON")
    return parser.parse_args()


def apart(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """A part in a fresh process, so that its memory is its own; the hub is not asked."""
    counts = [f"--{name}={getattr(options, name)}" for name in ("weights", "configs", "pictures", "infer", "seed")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--part", part, *counts]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603
    return json.loads(done.stdout)


def weights(options: argparse.Namespace, folder: Path) -> Tally:
    """Mutated weight files and manifests."""
    saved, rng, tally = fuzz_weights.Saved.make(folder / "saved"), np.random.default_rng(options.seed), Tally()
    for _ in tqdm(range(options.weights), desc="weights"):
        kind, files = fuzz_weights.case(saved, rng)
        tally.add(kind, lambda files=files: fuzz_weights.judge(saved, files, folder / "model"))
    return tally


def _attacks(attacks: Callable[[fuzz_attacks.Attacked], Any]) -> Part:
    def part(_: argparse.Namespace, folder: Path) -> Tally:
        (folder / "attacked").mkdir()
        attacked = fuzz_attacks.Attacked(fuzz_weights.Saved.make(folder / "saved"), folder / "attacked")
        tally = Tally()
        for kind, prepare, may_load in tqdm(list(attacks(attacked)), desc=attacks.__name__):
            tally.add(kind, lambda prepare=prepare, may_load=may_load: attacked.judge(prepare, may_load=may_load))
        return tally

    return part


def configs(options: argparse.Namespace, folder: Path) -> Tally:
    """Fuzzed configs of two networks."""
    bases, tally = fuzz_configs.bases(folder), Tally()
    with tqdm(total=options.configs, desc="configs") as bar:

        def each(kind: str, base: fuzz_configs.Base, text: str) -> None:
            tally.add(kind, lambda: fuzz_configs.judge(base, text, folder / "model"))
            bar.update()

        for kind, base in bases.items():
            fuzz_configs.run(each, kind, base, options.configs // len(bases), options.seed)
    return tally


def pictures(options: argparse.Namespace, folder: Path) -> Tally:
    """Sound pictures of every kind, then mutated ones, and paths that hold none."""
    sound, rng = fuzz_pictures.pictures(), np.random.default_rng(options.seed)
    fuzz_pictures.judge(sound["PNG RGB"].data, folder)
    (folder / "odd").mkdir()
    tally = Tally(baseline=resident(), limit=PICTURE_BYTES)
    for picture in sound.values():
        tally.add("sound", lambda picture=picture: fuzz_pictures.judge_right(picture, folder))
    for action in fuzz_pictures.odd_paths(folder / "odd").values():
        tally.add("no picture", lambda action=action: fuzz_pictures.judge_path(action))
    for _ in tqdm(range(options.pictures), desc="pictures"):
        name = fuzz_weights.pick(rng, list(sound))
        data = fuzz_pictures.mutate(sound[name].data, rng)
        tally.add(f"mutated {name.split()[0].strip(',').upper()}", lambda data=data: fuzz_pictures.judge(data, folder))
    return tally


def bombs(_: argparse.Namespace, folder: Path) -> Tally:
    """Files that ask for much; another process makes them, since that takes memory, too."""
    subprocess.run([sys.executable, fuzz_pictures.__file__, folder], check=True)  # noqa: S603
    fuzz_pictures.judge(fuzz_pictures.pictures()["PNG RGB"].data, folder)
    tally = Tally(baseline=resident(), limit=PICTURE_BYTES)
    for file in tqdm(sorted(folder.glob("*.bomb")), desc="bombs"):
        tally.add(file.stem, lambda file=file: fuzz_pictures.judge_bomb(file))
    return tally


def infer(options: argparse.Namespace, folder: Path) -> Tally:
    """Mutated pictures in a folder, and paths that hold none, through the command line."""
    tally, sound, rng = Tally(), fuzz_pictures.pictures(), np.random.default_rng(options.seed + 1)
    save_pretrained(tiny_model(solver="pursuit", draws=2, counts=(0, 1)), folder / "model")
    (folder / "odd").mkdir()
    fuzz_pictures.odd_paths(folder / "odd")
    (folder / "pictures").mkdir()
    for number in range(options.infer):
        data = fuzz_pictures.mutate(fuzz_weights.pick(rng, list(sound.values())).data, rng)
        (folder / "pictures" / f"{number:04d}.png").write_bytes(data)
    lines: dict[str, dict[str, Any]] = {}

    def run(path: str | Path, *expected: int) -> str:
        command = [sys.executable, "-m", "energycomp", "infer", folder / "model", path, "--json"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603
        expect(done.returncode in expected and "Traceback" not in done.stderr, f"{path}: {done.stderr[-300:]}")
        lines.update({Path(line["image"]).name: line for line in map(json.loads, done.stdout.splitlines())})
        return "refused" if done.returncode == 2 else "right"

    def same(file: Path) -> str:
        image, _ = outcome(lambda: open_image(file))
        expect(("failed" in lines[file.name]) == (image is None), f"{file.name}: {lines[file.name]}")
        return "refused" if image is None else "right"

    tally.add("a folder of mutated pictures", lambda: run(folder / "pictures", 0, 1))
    for file in tqdm(sorted((folder / "pictures").iterdir()), desc="infer"):
        tally.add("a mutated picture", lambda file=file: same(file))
    for path in ("pipe.png", "text.png", "sparse.png", "n" * 300, "/dev/zero"):
        tally.add("no picture", lambda path=path: run(folder / "odd" / path, 2))
    return tally


PARTS: dict[str, Part] = {
    "weights": weights,
    "pickles": _attacks(fuzz_attacks.pickles),
    "names": _attacks(fuzz_attacks.names),
    "links": _attacks(fuzz_attacks.links),
    "configs": configs,
    "pictures": pictures,
    "bombs": bombs,
    "infer": infer,
}


def table(results: dict[str, dict[str, Any]]) -> str:
    """One line a part: verdicts, the most memory that a case took, the slowest case."""
    lines = [
        "| part | cases | refused | right | other legal values | wrong | memory of a case | slowest case |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for part, result in results.items():
        total = sum((np.array(counted(counts)) for counts in result["verdicts"].values()), np.zeros(5, dtype=int))
        cells = " | ".join(f"{number:,}" for number in total)
        lines.append(f"| {part} | {cells} | {max(result['mb'].values()):.0f} MB | {result['slowest']:.1f} s |")
    return "\n".join(lines) + "\n"


def details(results: dict[str, dict[str, Any]]) -> str:
    """One line a kind of case."""
    lines = [
        "| part | kind | cases | refused | right | other legal values | wrong | memory of a case |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for part, result in results.items():
        for kind, counts in sorted(result["verdicts"].items()):
            cells = " | ".join(f"{number:,}" for number in counted(counts))
            lines.append(f"| {part} | {kind} | {cells} | {result['mb'][kind]:.0f} MB |")
    return "\n".join(lines) + "\n"


def counted(counts: dict[str, int]) -> tuple[int, ...]:
    """Cases, refused, right, other legal values, wrong."""
    refused, other, wrong = (counts.get(name, 0) for name in ("refused", "other legal values", "wrong"))
    cases = sum(counts.values())
    return cases, refused, cases - refused - other - wrong, other, wrong


if __name__ == "__main__":
    sys.exit(main())
