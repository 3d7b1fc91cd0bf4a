"""Load damaged weights, configs and images, and hand-made attacks: is each refused or loaded correctly?

python benchmarks/robustness/fuzz.py [--weights 2000] [--configs 500] [--images 2000] [--infer 200] [--seed 0]
    [--only PART ...] [-o runs/fuzz]

About five minutes on two CPU cores. Each part runs in its own process (Linux; no network access). The table is printed
and written to `-o`, together with one line per kind of case. The exit status is 1 if a case was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.common.memory import resident
from benchmarks.robustness import fuzz_attacks, fuzz_images, fuzz_models, fuzz_mutations
from benchmarks.robustness.fuzz_models import Saved
from benchmarks.robustness.fuzz_watch import Tally, expect, outcome
from energycomp.images import open_image
from energycomp.models import save_pretrained
from energycomp.testing import tiny_model

IMAGE_BYTES = 256e6  # the limit that `open_image` promises
COUNTS = {
    "weights": (2000, "damaged weight files and manifests"),
    "configs": (500, "damaged configs"),
    "images": (2000, "damaged images"),
    "infer": (200, "damaged images through `energycomp infer`"),
}

Part = Callable[[argparse.Namespace, Path], Tally]


def main() -> int:
    """Runs each part in its own process and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (count, what) in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, default=count, help=what)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), help="run these parts")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--part", choices=list(PARTS), help="run one part in this process and print its result as JSON")
    options = parser.parse_args()
    if options.part:
        with tempfile.TemporaryDirectory() as folder:
            tally = PARTS[options.part](options, Path(folder))
        megabytes = {kind: taken / 1e6 for kind, taken in tally.memory.items()}
        print(json.dumps({"verdicts": tally.verdicts, "wrong": tally.wrong, "slowest": tally.slowest, "mb": megabytes}))
        return 0
    results = {part: in_own_process(part, options) for part in options.only or PARTS}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(f"{table(results)}\n{details(results)}", encoding="utf-8")
    print(table(results))
    for part, result in results.items():
        for line in result["wrong"]:
            print(f"{part}: {line}", file=sys.stderr)
    return int(any(result["wrong"] for result in results.values()))


def in_own_process(part: str, options: argparse.Namespace) -> dict[str, Any]:
    """Runs a part in a new process, so that its memory is its own, without access to the hub."""
    counts = [f"--{name}={getattr(options, name)}" for name in (*COUNTS, "seed")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--part", part, *counts]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)  # noqa: S603
    return json.loads(done.stdout)


def weights(options: argparse.Namespace, folder: Path) -> Tally:
    """Damaged weight files and manifests."""
    saved, tally = Saved.make(folder / "saved"), Tally()

    def each(case: tuple[str, fuzz_models.Files]) -> None:
        tally.add(case[0], lambda: fuzz_models.judge_weights(saved, case[1], folder / "model"))

    fuzz_mutations.run(fuzz_models.damaged(saved), options.weights, options.seed, each)
    return tally


def _attacks(attacks: Callable[[fuzz_attacks.Attacked], Any]) -> Part:
    def part(_: argparse.Namespace, folder: Path) -> Tally:
        (folder / "attacked").mkdir()
        attacked, tally = fuzz_attacks.Attacked(Saved.make(folder / "saved"), folder / "attacked"), Tally()
        for kind, prepare, may_load in tqdm(list(attacks(attacked)), desc=attacks.__name__):
            tally.add(kind, lambda prepare=prepare, may_load=may_load: attacked.judge(prepare, may_load=may_load))
        return tally

    return part


def configs(options: argparse.Namespace, folder: Path) -> Tally:
    """Damaged configs of two networks."""
    tally, networks = Tally(), fuzz_models.two_networks(folder)
    for kind, saved in networks.items():
        fuzz_mutations.run(
            fuzz_mutations.json_texts(saved.config),
            options.configs // len(networks),
            options.seed,
            lambda text, kind=kind, saved=saved: tally.add(
                kind, lambda: fuzz_models.judge_config(saved, text, folder / "model")
            ),
        )
    return tally


def images(options: argparse.Namespace, folder: Path) -> Tally:
    """Valid images of every kind, then damaged ones, and paths without an image."""
    sound = fuzz_images.sound_images()
    fuzz_images.judge(sound["PNG RGB"].data, folder)
    (folder / "odd").mkdir()
    tally = Tally(baseline=resident(), limit=IMAGE_BYTES)
    for image in sound.values():
        tally.add("sound", lambda image=image: fuzz_images.judge_right(image, folder))
    for action in fuzz_images.odd_paths(folder / "odd").values():
        tally.add("no image", lambda action=action: fuzz_images.judge_path(action))

    def each(case: tuple[str, bytes]) -> None:
        kind = case[0].split()[0].strip(",").upper()
        tally.add(f"damaged {kind}", lambda: fuzz_images.judge(case[1], folder))

    data = {name: image.data for name, image in sound.items()}
    fuzz_mutations.run(fuzz_mutations.images(data), options.images, options.seed, each)
    return tally


def bombs(_: argparse.Namespace, folder: Path) -> Tally:
    """Files that need much memory; another process makes them, since that needs memory too."""
    code = f"from benchmarks.robustness.fuzz_images import write_bombs; write_bombs({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
    fuzz_images.judge(fuzz_images.sound_images()["PNG RGB"].data, folder)
    tally = Tally(baseline=resident(), limit=IMAGE_BYTES)
    for file in tqdm(sorted(folder.glob("*.bomb")), desc="bombs"):
        tally.add(file.stem, lambda file=file: fuzz_images.judge_bomb(file))
    return tally


def infer(options: argparse.Namespace, folder: Path) -> Tally:
    """A folder of damaged images, and paths without an image, on the command line."""
    tally, lines = Tally(), {}
    save_pretrained(tiny_model(solver="pursuit", draws=2, counts=(0, 1)), folder / "model")
    for name in ("odd", "images"):
        (folder / name).mkdir()
    fuzz_images.odd_paths(folder / "odd")
    data = {name: image.data for name, image in fuzz_images.sound_images().items()}

    def save(case: tuple[str, bytes]) -> None:
        number = len(list((folder / "images").iterdir()))
        (folder / "images" / f"{number:04d}.png").write_bytes(case[1])

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

    fuzz_mutations.run(fuzz_mutations.images(data), options.infer, options.seed + 1, save)
    tally.add("a folder of damaged images", lambda: run(folder / "images", 0, 1))
    for file in sorted((folder / "images").iterdir()):
        tally.add("a damaged image", lambda file=file: same(file))
    for path in ("pipe.png", "text.png", "sparse.png", "n" * 300, "/dev/zero"):
        tally.add("no image", lambda path=path: run(folder / "odd" / path, 2))
    return tally


PARTS: dict[str, Part] = {
    "weights": weights,
    "pickles": _attacks(fuzz_attacks.pickles),
    "names": _attacks(fuzz_attacks.names),
    "links": _attacks(fuzz_attacks.links),
    "configs": configs,
    "images": images,
    "bombs": bombs,
    "infer": infer,
}
VERDICTS = "cases | refused | right | other legal values | wrong | memory of a case"


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One line per part: verdicts, the largest memory and the longest time of a case."""
    lines = [f"| part | {VERDICTS} | slowest case |", "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for part, result in results.items():
        cells = counted(*result["verdicts"].values())
        lines.append(f"| {part} | {cells} | {max(result['mb'].values()):.0f} MB | {result['slowest']:.1f} s |")
    return "\n".join(lines) + "\n"


def details(results: Mapping[str, Mapping[str, Any]]) -> str:
    """One line per kind of case."""
    lines = [f"| part | kind | {VERDICTS} |", "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for part, result in results.items():
        for kind, counts in sorted(result["verdicts"].items()):
            lines.append(f"| {part} | {kind} | {counted(counts)} | {result['mb'][kind]:.0f} MB |")
    return "\n".join(lines) + "\n"


def counted(*counts: Mapping[str, int]) -> str:
    """Cells: cases, refused, right, other legal values, wrong."""
    cases = sum(sum(count.values()) for count in counts)
    refused, other, wrong = (
        sum(count.get(name, 0) for count in counts) for name in ("refused", "other legal values", "wrong")
    )
    return " | ".join(f"{number:,}" for number in (cases, refused, cases - refused - other - wrong, other, wrong))


if __name__ == "__main__":
    sys.exit(main())
