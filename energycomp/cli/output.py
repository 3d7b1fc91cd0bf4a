"""Output of the commands: reports as text or JSON, and results as JSON lines that a later run continues."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from energycomp.cli.files import RESULTS, save_png
from energycomp.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from PIL import Image

    from energycomp.inference import Ranking, Solution
    from energycomp.models import Model

__all__ = [
    "REDRAWN",
    "Results",
    "append_line",
    "model_fingerprint",
    "open_records",
    "print_json",
    "print_report",
    "print_table",
    "ranking_record",
    "read_lines",
    "solution_record",
    "wrong_components",
]

EVALUATION = "evaluation.jsonl"  # the records of `energycomp evaluate`, by image
REDRAWN = "-redrawn"  # ends the name of the file of an image beside samples of its components


def print_report(report: Any, lines: Sequence[str], as_json: bool) -> None:
    """Prints the report as one line of JSON, or its text lines."""
    typer.echo(json.dumps(report) if as_json else "\n".join(lines))


def print_json(report: Any) -> None:
    """Prints indented JSON."""
    typer.echo(json.dumps(report, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints rows of text under a header; no columns, no header. What is not text already is printed as it is."""
    from rich.console import Console

    from energycomp.show import rich_table

    Console().print(rich_table(columns, rows))


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; [] where there is no file. Cuts off an incomplete last line.

    Raises:
        CheckpointError: the file cannot be read, or a complete line is not a JSON object.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     append_line(Path(folder) / "log.jsonl", {"step": 1})
    ...     with (Path(folder) / "log.jsonl").open("a") as file:
    ...         _ = file.write('{"step": ')
    ...     read_lines(Path(folder) / "log.jsonl")
    [{'step': 1}]
    """
    path = Path(path)
    try:
        if not path.exists():
            return []
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
    except OSError as error:
        raise CheckpointError(f"Cannot read {path}: {error}. Expected a file of JSON lines; name another.") from error
    records = []
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise CheckpointError(
                f"Line {number} of {path} is not a JSON object. Expected a file that energycomp wrote; "
                "remove the line or name another folder."
            )
        records.append(record)
    return records


def append_line(path: str | Path, record: dict[str, Any]) -> None:
    """Appends one object as a line, in one write.

    Raises:
        CheckpointError: the file cannot be written.
    """
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    try:
        with Path(path).open("ab", buffering=0) as file:
            written = file.write(line)
    except OSError as error:
        raise CheckpointError(f"Cannot write {path}: {error}. Free some space or name another folder.") from error
    if written != len(line):
        raise CheckpointError(f"Cannot write {path}: no space for {len(line)} bytes. Free some and run again.")


def solution_record(model: Model, solution: Solution) -> dict[str, Any]:
    """A solution as JSON: components as the conditioner describes them, each with its gain and probability."""
    import attrs

    from energycomp.inference import view_of

    if solution.view is None:  # of a function in place of `infer`
        solution = attrs.evolve(solution, view=view_of(model, solution.conditions, runner_up=solution.runner_up))
    return solution.record()


def ranking_record(ranking: Ranking, index: int) -> dict[str, Any]:
    """What one image of a ranking shows, as JSON."""
    columns = zip(
        ranking.components, ranking.negated, ranking.lift[index].tolist(), ranking.stderr[index].tolist(),
        ranking.p_value[index].tolist(), ranking.shown[index].tolist(), strict=True,
    )  # fmt: skip
    keys = ("component", "negated", "lift", "stderr", "p_value", "shown")
    return {
        "complete": bool(ranking.complete[index]),
        "lifts": [dict(zip(keys, column, strict=True)) for column in columns],
        "missing": list(ranking.missing[index]),
        "unwanted": list(ranking.unwanted[index]),
    }


def wrong_components(ranking: Ranking, index: int) -> list[str]:
    """What is wrong with an image of a ranking: components that it lacks, and negated ones that it shows."""
    lacks = [f"without {name}" for name in ranking.missing[index]]
    return lacks + [f"with {name}" for name in ranking.unwanted[index]]


class Results:
    """The answers in a folder, in results.jsonl: one line per image and settings; the last such line counts.

    An image is identified by its path and content, the settings by the options of the command and the model's weights.

    Args:
        model: the model that reads the images.
        folder: where the answers are kept; None keeps none.
        settings: what the answers depend on, as JSON.
    """

    def __init__(self, model: Model, folder: Path | None, settings: dict[str, Any]) -> None:
        from energycomp.files import remove_stale

        self.model, self.folder = model, folder
        self.settings = {**settings, "fingerprint": model_fingerprint(model)}
        self._lines: dict[str, dict[str, Any]] = {}
        self._owners: dict[str, str] = {}
        if folder is not None:
            remove_stale(folder)
            for record in read_lines(folder / RESULTS):
                self._keep(record)

    def known(self, path: Path) -> dict[str, Any] | None:
        """The line of an image that was read under these settings; raises `InputError` for an unreadable file."""
        return self._lines.get(_key(self._head(path)))

    def add(self, path: Path, image: Image.Image, answer: dict[str, Any]) -> dict[str, Any]:
        """Keeps an answer and returns its line; writes the marked image first, so that each line has its image."""
        from energycomp.inference import View

        record = {**self._head(path), **answer, "picture": None}
        if self.folder is None:
            return record
        record["name"] = self._free_name(path)
        view = View(self.model.processor.frame(image), tuple(answer["objects"]))
        if len(view.places) == answer["count"]:
            record["picture"] = f"{record['name']}.png"
            save_png(view.picture(), self.folder / record["picture"])
        append_line(self.folder / RESULTS, record)
        self._keep(record)
        return record

    def _head(self, path: Path) -> dict[str, Any]:
        try:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"got {path}, which cannot be read ({error.strerror}); check its permissions") from error
        return {"image": str(path.resolve()), "sha256": digest, "settings": self.settings}

    def _keep(self, record: dict[str, Any]) -> None:
        self._lines[_key(record)] = record
        if (name := record.get("name") or Path(record.get("picture") or "").stem) and self.folder is not None:
            for file in (name, f"{name}{REDRAWN}"):
                self._owners[file] = str(record.get("image"))

    def _free_name(self, path: Path) -> str:
        """The file's own name, with a number where a file of another image has that name, or will have it."""
        owner, name, number = str(path.resolve()), path.stem, 1
        while any(self._owners.get(file, owner) != owner for file in (name, f"{name}{REDRAWN}")):
            number += 1
            name = f"{path.stem}-{number}"
        return name


def _key(record: dict[str, Any]) -> str:
    return json.dumps([record.get(part) for part in ("image", "sha256", "settings")], sort_keys=True)


def open_records(folder: Path, settings: dict[str, Any]) -> tuple[list[dict[str, Any]], Callable[[Any], None]]:
    """The records in a folder, of an evaluation with these settings, and what appends one.

    The first line of evaluation.jsonl holds the settings, and each further line the record of one image.

    Raises:
        InputError: the folder holds an evaluation with other settings.
    """
    path, settings = folder / EVALUATION, json.loads(json.dumps(settings))
    lines = read_lines(path)
    if not lines:
        append_line(path, {"settings": settings})
    elif (earlier := lines[0].get("settings")) != settings:
        known = earlier if isinstance(earlier, dict) else {}
        differ = [name for name in {**known, **settings} if known.get(name) != settings.get(name)]
        raise InputError(
            f"got -o {folder}, which holds an evaluation with other settings ({', '.join(differ)}); expected the "
            "same ones; repeat that command, or name another folder"
        )
    return lines[1:], partial(append_line, path)


def model_fingerprint(model: Model) -> str:
    """Identifies what changes an answer and is not in the settings: weights, noise schedule and defaults."""
    from energycomp.files import fingerprint

    settings = repr((model.defaults, model.processor, model.denoiser.rule))
    return fingerprint({settings: model.denoiser.alphas_cumprod, **model.trained.state_dict()})
