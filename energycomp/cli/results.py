"""What `energycomp infer -o` writes: a marked picture of each, then its line in results.jsonl."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energycomp.cli.jsonlines import append_line, read_lines
from energycomp.errors import InputError
from energycomp.files import atomic_file, fingerprint, remove_stale
from energycomp.viz import overlay

if TYPE_CHECKING:
    from PIL import Image

    from energycomp.models import Model

__all__ = ["Results"]

NAME = "results.jsonl"


class Results:
    """The answers in a folder: one line for each picture and settings, the last one counts.

    A picture is known by its path and content, the settings by what was asked for and the model's weights.

    Args:
        model: whose answers they are.
        folder: where they are kept; None keeps none.
        settings: what the answers depend on, as JSON.
    """

    def __init__(self, model: Model, folder: Path | None, settings: dict[str, Any]) -> None:
        self.model, self.folder = model, folder
        self.settings = {**settings, "fingerprint": _fingerprint(model)}
        self._lines: dict[str, dict[str, Any]] = {}
        self._owners: dict[str, str] = {}
        if folder is not None:
            remove_stale(folder)
            for record in read_lines(folder / NAME):
                self._keep(record)

    def known(self, path: Path) -> dict[str, Any] | None:
        """The line of a picture, if it was read under these settings; raises `InputError` for a file without access."""
        return self._lines.get(_key(self._head(path)))

    def add(self, path: Path, image: Image.Image, answer: dict[str, Any]) -> dict[str, Any]:
        """Keeps an answer, marked picture first, so that a line vouches for its picture; returns the line."""
        record = {**self._head(path), **answer, "picture": None}
        if self.folder is None:
            return record
        places = [(entry["x"], entry["y"]) for entry in answer["objects"] if {"x", "y"} <= entry.keys()]
        if len(places) == answer["count"]:
            record["picture"] = self._free_name(path)
            with atomic_file(self.folder / record["picture"]) as temporary:
                overlay(self.model.processor.frame(image), places).save(temporary, format="PNG")
        append_line(self.folder / NAME, record)
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
        if record.get("picture"):
            self._owners[record["picture"]] = str(record.get("image"))

    def _free_name(self, path: Path) -> str:
        """The picture's own name, or that with a number where a picture of another folder has taken it."""
        owner, name, number = str(path.resolve()), f"{path.stem}.png", 1
        while self._owners.get(name, owner) != owner:
            number += 1
            name = f"{path.stem}-{number}.png"
        return name


def _key(record: dict[str, Any]) -> str:
    return json.dumps([record.get(part) for part in ("image", "sha256", "settings")], sort_keys=True)


def _fingerprint(model: Model) -> str:
    """Of everything that is not in the settings and changes an answer: weights, schedule and defaults."""
    settings = repr((model.defaults, model.processor, model.denoiser.rule))
    return fingerprint({settings: model.denoiser.alphas_cumprod, **model.trained.state_dict()})
