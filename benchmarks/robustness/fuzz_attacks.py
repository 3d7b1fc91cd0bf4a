"""Hand-made attacks on the loading of a model: pickles under any name, names of code, paths, and links."""

from __future__ import annotations

import io
import json
import os
import pickle
import socket
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from benchmarks.robustness.fuzz_models import CONFIG, MANIFEST, WEIGHTS, Files, Saved, digest, honest, write
from benchmarks.robustness.fuzz_mutations import KEYS, NAMES
from benchmarks.robustness.fuzz_watch import expect, outcome, watched
from energycomp import Composer, infer, load
from energycomp.files import read_tensors
from energycomp.models import VAECodec, from_pretrained

EXTENSIONS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".safetensors", ".json", ".npy", ".zip", "")
SOURCES = (
    "os:system", "intruder:Evil", "intruder", "../..", "../../secret", "/etc/passwd", "/dev/zero", "~/x", "", "a\0b",
    "a/..", "../a", "./a", "a/b/c", "a/b\n", "a b/c d", "a/b@main", "a/b?x=1", "a//b", "-rf/x", "nobody/" + "x" * 300,
    "\N{FULLWIDTH LATIN SMALL LETTER A}/\N{FULLWIDTH LATIN SMALL LETTER B}", "file:///etc/passwd", "git+ssh://a/b",
    "https://localhost/x", "x" * 10_000, "x" * 5000 + "/y", "\ud800/\ud800", "nobody/nothing",
)  # fmt: skip


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


Prepare = Callable[[], Callable[[], Any]]  # makes the files and returns what opens them
Attack = tuple[str, Prepare, bool]  # kind, and whether it may load


def payloads(marker: Path) -> dict[str, bytes]:
    """A pickle in each file format that holds pickles."""
    found = {f"pickle, protocol {protocol}": pickle.dumps(Evil(marker), protocol) for protocol in (0, 2, 4, 5)}
    for name, new in (("torch.save", True), ("torch.save, old format", False)):
        buffer = io.BytesIO()
        torch.save({"network.null": Evil(marker)}, buffer, _use_new_zipfile_serialization=new)
        found[name] = buffer.getvalue()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/data.pkl", pickle.dumps(Evil(marker)))
        archive.writestr(WEIGHTS, pickle.dumps(Evil(marker)))
    found["zip"] = buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil(marker)], dtype=object), allow_pickle=True)
    return {**found, "numpy objects": buffer.getvalue()}


@attrs.define
class Attacked:
    """A folder for attacks, beside a secret that nothing may read and a module that nothing may import."""

    saved: Saved
    root: Path

    def __attrs_post_init__(self) -> None:
        (self.root / "secret").mkdir()
        (self.root / "path").mkdir()
        for name, data in self.saved.files.items():
            (self.root / "secret" / name).write_bytes(data)
        (self.root / "path" / "intruder.py").write_text(
            f"import os\nos.makedirs({str(self.marker)!r})\nclass Evil:\n    pass\n"
        )
        os.mkfifo(self.root / "pipe")
        _use(self.saved.bystander)  # imports at the first use are not attributed to an attack
        for source in ("nobody/nothing", str(self.root / "secret")):
            codec = VAECodec(source, image_size=16)
            outcome(lambda codec=codec: codec.encode(torch.zeros(1, 3, 16, 16)), may_warn=True)
        outcome(lambda: load("nobody/nothing"), may_warn=True)

    @property
    def marker(self) -> Path:
        """The folder that exists once an attack has run code."""
        return self.root / "marker"

    @property
    def folder(self) -> Path:
        """The model that is attacked."""
        return self.root / "model"

    def judge(self, prepare: Prepare, *, may_load: bool) -> str:
        """The verdict: "refused", or "as saved" if loading is harmless.

        Raises:
            WrongError: something was imported, unpickled, started or read outside the folder, or it loaded as another
                model.
        """
        action = prepare()
        sys.path.insert(0, str(self.root / "path"))
        try:
            with watched(self.folder):
                model, _ = outcome(action)
                if model is not None:
                    _use(model)
        finally:
            sys.path.remove(str(self.root / "path"))
        expect("intruder" not in sys.modules and not self.marker.exists(), "code of the attack ran")
        if model is None:
            return "refused"
        expect(may_load and digest(model) == self.saved.digest, "loaded")
        return "as saved"

    def load(self, files: Files) -> Prepare:
        """An attack that loads these files as a model."""

        def prepare() -> Callable[[], Any]:
            write(self.folder, files)
            return lambda: from_pretrained(self.folder)

        return prepare


def _use(model: Any) -> None:
    """Looks up the solver and the scheduler, which the config names too."""
    outcome(lambda: infer(torch.zeros(3, 16, 16), model, count=1), may_warn=True)
    outcome(lambda: Composer([model(0.5, 0.5)]).sample(1, num_inference_steps=1), may_warn=True)


def pickles(attacked: Attacked) -> Iterator[Attack]:
    """Payloads instead of each file, beside the files, listed or not, and loaded directly."""
    files = attacked.saved.files
    alone = {key: value for key, value in files.items() if key != WEIGHTS}
    for data in payloads(attacked.marker).values():
        for name in (WEIGHTS, CONFIG, MANIFEST):
            yield f"a pickle as {name}", attacked.load({**files, name: data}), False
        for name in (WEIGHTS, CONFIG):
            yield f"a pickle as {name}, listed", attacked.load(honest({**files, name: data})), False
        for extension in EXTENSIONS:
            name = f"pytorch_model{extension}"
            yield "a pickle beside the files", attacked.load({**files, name: data}), False
            yield "a pickle beside the files, listed", attacked.load(honest({**files, name: data})), True
            yield "a pickle instead of weights, listed", attacked.load(honest({**alone, name: data})), False
            yield "a pickle loaded directly", _direct(attacked, name, data), False
        yield "a pickle as an autoencoder", _codec(attacked, data), False


def _direct(attacked: Attacked, name: str, data: bytes) -> Prepare:
    def prepare() -> Callable[[], Any]:
        file = write(attacked.folder, {name: data}) / name

        def both() -> None:
            _, refusal = outcome(lambda: read_tensors(file))
            expect(refusal is not None, f"{name} was read")
            load(str(file))

        return both

    return prepare


def _codec(attacked: Attacked, data: bytes) -> Prepare:
    def prepare() -> Callable[[], Any]:
        names = ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors", "pytorch_model.bin")
        config = json.dumps({"_class_name": "intruder.Evil", "auto_map": {"AutoModel": "intruder.Evil"}}).encode()
        folder = write(attacked.folder, {CONFIG: config, **dict.fromkeys(names, data)})
        return lambda: VAECodec(str(folder), image_size=16).encode(torch.zeros(1, 3, 16, 16))

    return prepare


def names(attacked: Attacked) -> Iterator[Attack]:
    """Configs with names of code or files, keys that other libraries follow, and sources that are not models."""
    base = json.loads(attacked.saved.files[CONFIG])

    def changed(part: str, key: str, value: Any) -> Prepare:
        config = {**base, part: {**base[part], key: value}} if part else {**base, key: value}
        return attacked.load(honest({**attacked.saved.files, CONFIG: json.dumps(config).encode()}))

    places = (("network", "name"), ("conditioner", "name"), ("defaults", "solver"), ("defaults", "scheduler"),
              ("denoiser", "rule"), ("processor", "resize"))  # fmt: skip
    for name in NAMES:
        for part, key in places:
            yield f"code or a path as {part} {key}", changed(part, key, name), part == "defaults"
        codec = {"source": name, "image_size": 128, "channels": 3}
        yield "code or a path as codec", changed("", "codec", codec), name == "/etc/passwd"
    for key in KEYS:
        for part in ("", "network", "conditioner", "denoiser", "processor", "defaults"):
            if key not in (base[part] if part else base):
                yield "a key that other libraries follow", changed(part, key, "intruder:Evil"), False
        for part in ("network", "conditioner"):
            config = {**base[part]["config"], key: "intruder.Evil"}
            yield "a key that other libraries follow", changed(part, "config", config), False
    for source in SOURCES:
        yield "a source that is not a model", lambda s=source: lambda: load(s), False
        yield "a source that is not a model", lambda s=source: lambda: from_pretrained(s), False


def links(attacked: Attacked) -> Iterator[Attack]:
    """Links, pipes, sockets and devices instead of files; only the links of the hub's cache are accepted."""
    files, secret = attacked.saved.files, attacked.root / "secret"

    def replaced(name: str, make: Callable[[Path], Any]) -> Prepare:
        def prepare() -> Callable[[], Any]:
            write(attacked.folder, files)
            (attacked.folder / name).unlink(missing_ok=True)
            make(attacked.folder / name)
            return lambda: from_pretrained(attacked.folder)

        return prepare

    for name in (WEIGHTS, CONFIG, MANIFEST):
        yield "a link outwards", replaced(name, lambda file: file.symlink_to(secret / file.name)), False
        yield "a link upwards", replaced(name, lambda file: file.symlink_to(Path("..") / "secret" / file.name)), False
        yield "a link to itself", replaced(name, lambda file: file.symlink_to(file.name)), False
        yield "a link to a device", replaced(name, lambda file: file.symlink_to("/dev/zero")), False
        yield "a pipe", replaced(name, os.mkfifo), False
        yield "a socket", replaced(name, _socket), False
    for name in ("more", "more.safetensors"):
        yield "a link beside", replaced(name, lambda file: file.symlink_to(secret / WEIGHTS)), False
        yield "a link to a folder beside", replaced(name, lambda file: file.symlink_to(secret)), True
    yield "a pipe that is read directly", lambda: lambda: read_tensors(attacked.root / "pipe"), False
    yield "the hub's links", lambda: _hub(attacked), True


def _socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(file))


def _hub(attacked: Attacked) -> Callable[[], Any]:
    """The layout of the hub's cache: snapshots/REVISION/FILE is a link to blobs/SUM."""
    cache = write(attacked.folder, {}) / "models--owner--name"
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    for name, data in attacked.saved.files.items():
        (cache / "blobs" / f"{len(data):x}").write_bytes(data)
        (snapshot / name).symlink_to(Path("../../blobs") / f"{len(data):x}")
    return lambda: from_pretrained(snapshot)
