"""Record what a refactoring must not change, and compare two records.

python benchmarks/freeze.py --out before.json                # at the old commit
python benchmarks/freeze.py --out after.json                 # at the new commit
python benchmarks/freeze.py --compare before.json after.json

Sections, each selected by `--only`:

- names: the public names `energycomp.__all__`
- commands: the commands of `energycomp --help`, each with its options
- weights: a sha256 digest of the tensors of each file of shipped weights
- samples: the pixels of one sample of each registered model
- figures: `energycomp evaluate` and composed samples, of few images

The script uses only the top-level API, the command line and the files of installed packages, so one copy runs on
commits whose modules are in different places. All five sections take about ten minutes on one core,
nearly all for figures.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

COUNTERS = {"seen"}  # last part of the names of tensors that count training samples
TIMES = re.compile(r"seconds|minutes|time")  # keys of results that differ between two runs of the same code
COMPOSED = {
    "clevr": lambda model: [model(0.3, 0.45), model(0.7, 0.6)],
    "clevr-places": lambda model: [model(0.3, 0.45), model(0.7, 0.6)],
    "faces": lambda model: [model(smiling=True)],
    "text": lambda model: [model("a red cube"), model("a blue sphere")],
}
DECOMPOSED = ("decomp", "decomp-b", "lit", "slots", "slots-sprites")
EVALUATED = {
    "clevr, 3-5 objects": ("clevr", "--data", "synthetic:3-5", "-n", "20"),
    "clevr-places, 3-5 objects": ("clevr-places", "--data", "synthetic:3-5", "-n", "20"),
    "clevr-places, 6-8 objects": ("clevr-places", "--data", "synthetic:6-8", "-n", "20"),
    "faces": ("faces", "-n", "20"),
    "decomp": ("decomp", "-n", "20"),
    "lit": ("lit", "-n", "20"),
    "slots": ("slots", "-n", "20", "--samples", "20"),
    "slots-sprites": ("slots-sprites", "-n", "20", "--samples", "20"),
    "text": ("text", "-n", "12"),
}


def names() -> dict[str, Any]:
    """Public names of the top-level package."""
    import energycomp

    return {name: type(getattr(energycomp, name)).__name__ for name in energycomp.__all__ if name != "__version__"}


def commands() -> dict[str, Any]:
    """Option names by command, read from the help texts."""
    found = re.findall(r"^│ ([a-z][a-z-]*) ", _run("--help").partition("Commands")[2], re.MULTILINE)
    return {name: sorted(_options(_run(name, "--help"))) for name in found}


def _options(text: str) -> Iterator[str]:
    """Options of the rows of a help text; a row has them before the type `<...>`."""
    for line in text.splitlines():
        if line.startswith("│") and re.match(r"│ *\*? *-", line):
            yield from re.findall(r"(?<![\w-])--?[a-z][\w-]*", line.partition("<")[0])


def weights() -> dict[str, Any]:
    """Two digests by file: of names and values, and of the values alone, in float32 where they are floats."""
    import torch
    from safetensors.torch import load_file

    result = {}
    for path, shown in _shipped():
        tensors = {name: value for name, value in load_file(path).items() if name.split(".")[-1] not in COUNTERS}
        floats = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
        values = {
            name: _digest(str(value.dtype).encode(), str(tuple(value.shape)).encode(), _bytes(value, torch))
            for name, value in floats.items()
        }
        named = _digest(*(f"{name} {values[name]}".encode() for name in sorted(values)))
        kept = _digest(*(value.encode() for value in sorted(values.values())))
        result[shown] = {"tensors": len(values), "named": named, "values": kept}
    return result


def _shipped() -> Iterator[tuple[Path, str]]:
    for distribution in importlib.metadata.distributions():
        package = distribution.metadata["Name"].replace("-", "_")
        if package.startswith("energycomp_") and (spec := importlib.util.find_spec(package)):
            folder = Path(str(spec.origin)).parent
            for path in sorted(folder.rglob("*.safetensors")):
                yield path, f"{package}/{path.relative_to(folder)}"


def _bytes(value: Any, torch: Any) -> bytes:
    return bytes(value.contiguous().flatten().view(torch.uint8).numpy())


def samples() -> dict[str, Any]:
    """One image of each model: composed of a few components, or decomposed and decoded, in few steps."""
    import torch

    import energycomp

    result = {}
    for name, compose in COMPOSED.items():
        model = energycomp.load(name)
        image = energycomp.Composer(compose(model)).sample(
            1, generator=torch.Generator().manual_seed(0), scheduler="ddim", num_inference_steps=5, output_type="pt"
        )
        result[name] = _image(2 * image - 1)
    for name in DECOMPOSED:
        model = energycomp.load(name)
        decomposer = energycomp.decomposer_of(model)
        latents = decomposer.encode(_drawn(model.denoiser.sample_shape), generator=torch.Generator().manual_seed(0))
        image = decomposer.decode(latents, generator=torch.Generator().manual_seed(0), num_inference_steps=5)
        result[name] = _image(image)
        result[f"{name}, latents"] = _statistics(latents)
        if hasattr(decomposer, "sample"):
            result[f"{name}, own scene"] = _image(decomposer.sample(1, generator=torch.Generator().manual_seed(0)))
    return result


def _drawn(shape: Iterable[int]) -> Any:
    """An image (1, 3, H, W) of two rectangles on a gradient."""
    import torch

    _, height, width = shape
    image = torch.linspace(-0.6, -0.2, width).expand(1, 3, height, width).clone()
    image[:, 0, height // 5 : height // 2, width // 5 : width // 2] = 0.8
    image[:, 2, height // 2 : 4 * height // 5, width // 2 : 4 * width // 5] = 0.7
    return image


def _statistics(values: Any) -> dict[str, float]:
    values = values.detach().double()
    return {"mean": round(float(values.mean()), 6), "std": round(float(values.std()), 6)}


def _image(image: Any) -> dict[str, Any]:
    """Pixels rounded to bytes, their digest, and the statistics before rounding."""
    pixels = ((image.detach().clamp(-1, 1) + 1) * 127.5).round().byte().numpy().tobytes()
    packed = base64.b64encode(zlib.compress(pixels, 9)).decode()
    return {**_statistics(image), "sha256": _digest(pixels), "pixels": packed}


def figures() -> dict[str, Any]:
    """Results of `energycomp evaluate` and of the benchmark of composed samples."""
    result = {}
    for title, arguments in EVALUATED.items():
        found = json.loads(_run("evaluate", *arguments, "--seed", "0", "--json"))
        result[title] = {key: value for key, value in _flat(found) if not TIMES.search(key)}
        print(title, file=sys.stderr, flush=True)
    script = next(Path("benchmarks").rglob("composed_samples.py"))
    for line in _output(str(script), "-n", "4").splitlines():
        found = json.loads(line)
        kept = {key: value for key, value in found.items() if not TIMES.search(key)}
        result[f"composed samples, {found['objects']} objects"] = kept
    return result


def _run(*arguments: str) -> str:
    return _output("-m", "energycomp", *arguments)


def _output(*arguments: str) -> str:
    environment = {**os.environ, "COLUMNS": "250", "TERM": "dumb", "NO_COLOR": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested mappings and lists, by keys joined by dots."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list) and any(isinstance(inner, (dict, list)) for inner in value):
        for number, inner in enumerate(value):
            yield from _flat(inner, f"{key}.{number}" if key else str(number))
    else:
        yield key, value


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    section.__name__: section for section in (names, commands, weights, samples, figures)
}


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Rows (what, before, after) of all that differs, in the sections that both records have."""
    for section in sorted(before.keys() & after.keys()):
        old, new = before[section], after[section]
        if section == "weights":
            old, new = _by_values(old), _by_values(new)
        for item in sorted(old.keys() | new.keys()):
            if section == "commands":
                left, right = set(old.get(item, ())), set(new.get(item, ()))
                if left != right or (item in old) != (item in new):
                    gone, added = " ".join(sorted(left - right)), " ".join(sorted(right - left))
                    yield f"commands {item}", gone or ("-" if item in old else "absent"), added or "-"
                continue
            left, right = dict(_flat(old.get(item, {}), item)), dict(_flat(new.get(item, {}), item))
            pixels = [side.pop(f"{item}.pixels") for side in (left, right) if f"{item}.pixels" in side]
            if len(pixels) == 2:
                left.pop(f"{item}.sha256"), right.pop(f"{item}.sha256")
                if pixels[0] != pixels[1]:
                    yield f"{section} {item}", "(pixels)", _pixel_difference(*pixels)
            for key in sorted(left.keys() | right.keys()):
                one, other = (str(side.get(key, "absent")) for side in (left, right))
                if one != other:
                    yield f"{section} {key}", one[:60], other[:60]


def _by_values(files: Mapping[str, Any]) -> dict[str, Any]:
    """Files by the digest of their values, so that a file that moved and kept its tensors does not differ."""
    return {entry["values"][:16]: {"tensors": entry["tensors"]} for entry in files.values()}


def _pixel_difference(before: str, after: str) -> str:
    left, right = (zlib.decompress(base64.b64decode(text)) for text in (before, after))
    if len(left) != len(right):
        return f"{len(right)} bytes, before {len(left)}"
    differences = [abs(a - b) for a, b in zip(left, right, strict=True)]
    changed = sum(map(bool, differences))
    return f"{changed} of {len(left)} bytes differ, at most by {max(differences)}"


def main() -> None:
    """Writes a record as JSON, or prints a table of what differs between two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the JSON file to write; standard output by default")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="a section; all of them by default")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("BEFORE", "AFTER"), help="two records to compare")
    options = parser.parse_args()
    if options.compare:
        before, after = (json.loads(path.read_text()) for path in options.compare)
        rows = list(compare(before, after))
        for what, old, new in rows:
            print(f"{what:60}  {old:60}  {new}")
        print(f"{len(rows)} differences in {', '.join(sorted(before.keys() & after.keys()))}")
        raise SystemExit(bool(rows))
    record = {section: SECTIONS[section]() for section in options.only or SECTIONS}
    text = json.dumps(record, indent=1, sort_keys=True)
    print(text) if options.out is None else options.out.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
