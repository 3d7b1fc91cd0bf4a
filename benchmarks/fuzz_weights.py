"""Mutated files of a saved model, and the verdict: refused, or loaded exactly as an independent reading says."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from fuzz_watch import WrongError, expect, outcome
from numpy.random import Generator

from energycomp.files import read_tensors
from energycomp.models import Model, from_pretrained, load_weights, save_pretrained
from energycomp.testing import tiny_model

CONFIG, WEIGHTS, MANIFEST = "config.json", "model.safetensors", "manifest.json"
NUMBERS = (0, 1, -1, 2, 7, 2**31, 2**32, 2**53, 2**62, 2**63, 2**64, -(2**63), 0.5, 1e308, True, None, "1", [], {})
DTYPES = (
    "F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F4", "F6_E2M3", "I64", "I32", "I16", "I8", "U64", "U32", "U16",
    "U8", "BOOL", "C64", "f32", "float32", "O", "", "F32\0", 32, None, ["F32"],
)  # fmt: skip
NAMES = (
    "", "../../secret", "/etc/passwd", "network.__class__", "network.null\0", "__metadata__", "network.", "null",
    "network.null.", "network..null", "network.up.0.0.__dict__", "n" * 100_000, "\ud800", "network.null ",
)  # fmt: skip

Files = dict[str, bytes]
Mutation = Callable[[bytes, Generator], bytes]


def pick(rng: Generator, options: Any) -> Any:
    """One of the options, as it is."""
    return options[int(rng.integers(len(options)))]


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensor data of a sound safetensors file."""
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join(header: Any, body: bytes) -> bytes:
    """A file with that header: text, bytes or something that JSON can hold."""
    text = header if isinstance(header, str | bytes) else json.dumps(header)
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw + body


def flip(data: bytes, rng: Generator, start: int = 0, stop: int | None = None) -> bytes:
    """One to eight bits flipped between two places."""
    changed = bytearray(data)
    for place in rng.integers(start, len(data) if stop is None else stop, int(rng.integers(1, 9))):
        changed[int(place)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def cut(data: bytes, rng: Generator) -> bytes:
    """Cut short anywhere."""
    return data[: int(rng.integers(len(data)))]


def stretch(data: bytes, rng: Generator) -> bytes:
    """A stretch zeroed, repeated, removed, exchanged with the next or filled with noise."""
    start, length = int(rng.integers(len(data))), int(2 ** rng.uniform(0, 14))
    head, part, tail = data[:start], data[start : start + length], data[start + length :]
    noise = rng.integers(0, 256, len(part), dtype=np.uint8).tobytes()
    return pick(rng, [head + bytes(len(part)) + tail, head + part + part + tail, head + tail, head + noise + tail,
                      head + tail[:length] + part + tail[length:]])  # fmt: skip


def extend(data: bytes, rng: Generator) -> bytes:
    """Bytes appended."""
    return data + rng.integers(0, 256, int(rng.integers(1, 1000)), dtype=np.uint8).tobytes()


def header_length(data: bytes, rng: Generator) -> bytes:
    """A header that says another length of itself."""
    size = struct.unpack("<Q", data[:8])[0]
    other = pick(rng, [0, 1, size - 1, size + 1, size * 2, len(data), len(data) - 8, 10**8, 2**31, 2**63, 2**64 - 1])
    return struct.pack("<Q", other) + data[8:]


def _entry(change: Callable[[dict[str, Any], Generator], None]) -> Mutation:
    def mutation(data: bytes, rng: Generator) -> bytes:
        header, body = split(data)
        change(header[pick(rng, sorted(header))], rng)
        return join(header, body)

    return mutation


def _shape(entry: dict[str, Any], rng: Generator) -> None:
    shape = list(entry["shape"])
    place = int(rng.integers(len(shape))) if shape else 0
    entry["shape"] = pick(rng, [shape[::-1], [*shape, 1], shape[1:], shape[:-1], [0, 2**62], [-1, -1], "3", None, {},
                                [*shape[:place], pick(rng, NUMBERS), *shape[place + 1 :]]])  # fmt: skip


def _offsets(entry: dict[str, Any], rng: Generator) -> None:
    begin, end = entry["data_offsets"]
    moved = int(rng.integers(-100, 100))
    entry["data_offsets"] = pick(rng, [
        [end, begin], [begin + moved, end + moved], [begin, end + moved], [0, end], [0, 2**63], [-1, end], [end, end],
        [begin, pick(rng, NUMBERS)], [pick(rng, NUMBERS), end], [begin], [], None, [begin, end, end],
    ])  # fmt: skip


def _dtype(entry: dict[str, Any], rng: Generator) -> None:
    entry["dtype"] = pick(rng, DTYPES)


def names(data: bytes, rng: Generator) -> bytes:
    """A tensor under another name, or under two, or a name twice in the header's text."""
    header, body = split(data)
    old, new = pick(rng, sorted(header)), pick(rng, [*NAMES, pick(rng, sorted(header))])
    kind = int(rng.integers(3))
    if kind == 0:
        return join({(new if name == old else name): entry for name, entry in header.items()}, body)
    if kind == 1:
        return join({**header, new: header[old]}, body)
    text = json.dumps(header)
    return join(f"{text[:-1]}, {json.dumps(old)}: {json.dumps(header[pick(rng, sorted(header))])}}}", body)


def tensors(data: bytes, rng: Generator) -> bytes:
    """Tensors dropped, added, exchanged or given as another type, in a sound file."""
    header, body = split(data)
    first, second = pick(rng, sorted(header)), pick(rng, sorted(header))
    kind = int(rng.integers(4))
    if kind == 0:
        header[first], header[second] = header[second], header[first]
    elif kind == 1:
        entry = header.pop(first)
        header["other"] = entry
    elif kind == 2:
        header["extra"] = {"dtype": "F32", "shape": [1], "data_offsets": [len(body), len(body) + 4]}
        body += bytes(4)
    else:
        begin, end = header[first]["data_offsets"]
        values = np.frombuffer(body[begin:end], "<f4")
        name, kind_of = pick(rng, [("F64", "<f8"), ("F16", "<f2"), ("I32", "<i4"), ("C64", "<c8"), ("BOOL", "?")])
        header[first] = {"dtype": name, "shape": header[first]["shape"], "data_offsets": [len(body), 0]}
        body += values.astype(kind_of).tobytes()
        header[first]["data_offsets"][1] = len(body)
        return _packed(header, body)
    return join(header, body)


def not_finite(data: bytes, rng: Generator) -> bytes:
    """NaN, infinity, or a double that is infinite as a float, somewhere in the data."""
    _, body = split(data)
    at = len(data) - len(body) + 4 * int(rng.integers(len(body) // 4))
    return data[:at] + struct.pack("<f", pick(rng, [np.nan, np.inf, -np.inf])) + data[at + 4 :]


def header_text(data: bytes, rng: Generator) -> bytes:
    """Headers that are another JSON, or none."""
    header, body = split(data)
    text = json.dumps(header)
    return join(pick(rng, [
        "", "{}", "[]", "null", "1", text[:-1], text + "}", text + " " * 100, " " + text, text.replace('"', "'"),
        "[" * 100_000, '{"a":' * 50_000, text.encode()[:-2] + b"\xff}", "\ufeff" + text, text.replace(":", "=", 1),
        {**header, "__metadata__": pick(rng, [{}, {"format": "pt"}, {"a": 1}, [], None, {"x": "y" * 100_000}])},
        {name: pick(rng, NUMBERS) if rng.random() < 0.1 else entry for name, entry in header.items()},
        {name: {**entry, "pickle": "cos\nsystem\n."} for name, entry in header.items()},
    ]), body)  # fmt: skip


def foreign(data: bytes, rng: Generator) -> bytes:
    """Another kind of file altogether."""
    return pick(rng, [b"", b"\0" * 8, b"PK\x03\x04" + data[:100], b"\x80\x02cos\nsystem\n.", b"\x89PNG\r\n\x1a\n",
                      b"\x7fELF" + data, bytes(4096), b"version https://git-lfs.github.com/spec/v1\n"])  # fmt: skip


MUTATIONS: dict[str, Mutation] = {
    "bits anywhere": flip,
    "bits of the header": lambda data, rng: flip(data, rng, 0, 8 + struct.unpack("<Q", data[:8])[0]),
    "bits of the tensors": lambda data, rng: flip(data, rng, 8 + struct.unpack("<Q", data[:8])[0]),
    "cut short": cut,
    "bytes appended": extend,
    "stretches": stretch,
    "header length": header_length,
    "types": _entry(_dtype),
    "shapes": _entry(_shape),
    "offsets": _entry(_offsets),
    "names": names,
    "tensors": tensors,
    "not finite": not_finite,
    "header text": header_text,
    "foreign files": foreign,
}


def manifest(data: bytes, rng: Generator) -> bytes:
    """The manifest itself: damaged, or with other names, sizes and sums."""
    if rng.random() < 0.4:
        return pick(rng, [flip, cut, stretch])(data, rng)
    content = json.loads(data)
    name = pick(rng, sorted(content))
    entry = content[name]
    changed = pick(rng, [
        {**content, pick(rng, ["../secret", "/etc/passwd", "a\0b", "sub/x", ""]): entry}, {name: entry}, [], 1, {},
        {**content, name: pick(rng, NUMBERS)}, {**content, name: {**entry, "size": pick(rng, NUMBERS)}},
        {**content, name: {**entry, "sha256": pick(rng, [entry["sha256"].upper(), "", *NUMBERS])}},
        {**content, name: {**entry, "more": 1}}, {f"./{name}": entry, **content},
        {WEIGHTS: content[CONFIG], CONFIG: content[WEIGHTS]},
    ])  # fmt: skip
    return pick(rng, [json.dumps(changed).encode()] * 5 + [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000])


@attrs.frozen
class Saved:
    """A model as it was saved: its files, a copy in memory that must stay as it is, and one to load into."""

    files: Files
    bystander: Model
    target: Model
    digest: str

    @classmethod
    def make(cls, folder: Path) -> Saved:
        """Saves a tiny model."""
        save_pretrained(tiny_model(), folder)
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        bystander, target = from_pretrained(folder), from_pretrained(folder)
        return cls(files, bystander, target, digest(bystander))


def digest(model: Model) -> str:
    """Of every weight, bit for bit."""
    state = [*model.denoiser.network.state_dict().values(), model.denoiser.alphas_cumprod]
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in state)).hexdigest()


def honest(files: Mapping[str, bytes]) -> Files:
    """The files with a manifest that is right about them."""
    listed = {name: data for name, data in files.items() if name != MANIFEST}
    sums = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in listed.items()}
    return {**listed, MANIFEST: json.dumps(sums).encode()}


def case(saved: Saved, rng: Generator) -> tuple[str, Files]:
    """A mutated model: one in eight has its manifest mutated, half of the others an honest one."""
    if rng.random() < 1 / 8:
        return "manifest", {**saved.files, MANIFEST: _other(manifest, saved.files[MANIFEST], rng)}
    kind = pick(rng, list(MUTATIONS))
    files = {**saved.files, WEIGHTS: _other(MUTATIONS[kind], saved.files[WEIGHTS], rng)}
    return (f"{kind}, manifest corrected", honest(files)) if rng.random() < 0.5 else (f"{kind}, manifest left", files)


def _other(mutation: Mutation, data: bytes, rng: Generator) -> bytes:
    """Mutated until it differs: a bit that is flipped twice does not."""
    while (mutated := mutation(data, rng)) == data:
        pass
    return mutated


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """The files in a folder that holds nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def judge(saved: Saved, files: Files, folder: Path) -> str:
    """The verdict on a mutated model: "refused", "as saved", or "other legal values" under an honest manifest.

    Raises:
        WrongError: it loaded as something that its files do not say, raised another error, or changed another model.
    """
    write(folder, files)
    model, _ = outcome(lambda: from_pretrained(folder))
    expect(digest(saved.bystander) == saved.digest, "a model in memory has changed")
    _judge_target(saved, folder)
    if model is None:
        return "refused"
    if files[WEIGHTS] == saved.files[WEIGHTS] and files[CONFIG] == saved.files[CONFIG]:
        expect(digest(model) == saved.digest, "the weights are not those of the file")
        return "as saved"
    expect(files[MANIFEST] == honest(files)[MANIFEST], "loaded silently under a manifest that does not fit")
    said = independent_reading(files[WEIGHTS])
    state = {f"network.{k}": v for k, v in model.denoiser.network.state_dict().items()}
    state["alphas_cumprod"] = model.denoiser.alphas_cumprod
    expect(state.keys() == said.keys(), f"names {sorted(state.keys() ^ said.keys())[:3]}")
    for name, tensor in state.items():
        expect(np.array_equal(tensor.numpy(), said[name]), f"{name} is not what the file says")
        expect(bool(torch.isfinite(tensor).all()), f"{name} is not finite")
    return "as saved" if digest(model) == saved.digest else "other legal values"


def _judge_target(saved: Saved, folder: Path) -> None:
    """A network that refuses the file's weights is left bit for bit as it was."""
    tensors_read, _ = outcome(lambda: read_tensors(folder / WEIGHTS))
    if tensors_read is None:
        return
    network = saved.target.denoiser.network
    tensors_read.pop("alphas_cumprod", None)
    found = {name.removeprefix("network."): tensor for name, tensor in tensors_read.items()}
    _, error = outcome(lambda: load_weights(network, found, "memory"))
    if error is None:
        load_weights(network, saved.bystander.denoiser.network.state_dict(), "memory")
    expect(digest(saved.target) == saved.digest, "a network that refused weights has changed")


def independent_reading(data: bytes) -> dict[str, np.ndarray]:
    """The float32 values of a safetensors file, read without the library.

    Raises:
        WrongError: it is none, so that no reader should have taken it.
    """
    try:
        (size,) = struct.unpack("<Q", data[:8])
        pairs = json.loads(data[8 : 8 + size], object_pairs_hook=list)
        header = {name: dict(entry) for name, entry in pairs if name != "__metadata__"}
        expect(len(header) == len([name for name, _ in pairs if name != "__metadata__"]), "a name twice in the header")
        body, out = data[8 + size :], {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            raw, dtype = body[begin:end], entry["dtype"]
            if dtype == "BF16":
                values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
            else:
                values = np.frombuffer(raw, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
            out[name] = values.reshape(entry["shape"]).astype(np.float32)
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise WrongError(f"loaded from a file that is no safetensors file of numbers: {error}") from error
    return out


def _packed(header: dict[str, Any], body: bytes) -> bytes:
    """The file with its tensors one after the other, as the format wants."""
    packed = b""
    for entry in header.values():
        begin, end = entry["data_offsets"]
        entry["data_offsets"] = [len(packed), len(packed) + end - begin]
        packed += body[begin:end]
    return join(header, packed)
