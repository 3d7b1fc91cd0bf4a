"""Hypothesis strategies of damaged files: bytes, JSON, model folders and image files."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings, strategies as st

NAMES = (
    "os:system", "os.system", "builtins.eval", "builtins:exec", "intruder", "intruder:Evil", "intruder.Evil",
    "energycomp.denoisers.two_stage:TwoStageUNet", "torch.nn.Linear",
    "TwoStageUNet", "TWO_STAGE", "two_stage ", "two_stage\0",
    "../intruder", "../../secret/model", "/etc/passwd", "./intruder.py", "file:///etc/passwd", "https://localhost/x",
    "__import__('intruder')", "lazy('intruder:Evil')", "", ".", "..", "~/x", "\ud800", "\x1b[2J", "x" * 50_000,
)  # fmt: skip
KEYS = (
    "_class_name", "_target_", "auto_map", "__reduce__", "__class__", "__init__", "__dict__", "py/object", "$ref",
    "architectures", "trust_remote_code", "custom_pipeline", "model_type", "torch_dtype", "quantization_config",
    "_name_or_path", "self", "args", "kwargs", "device", "dtype", "code", "import", "", "network", "codec",
    "__metadata__", "network.__class__", "network.null\0", "../secret", "a\0b", "sub/x",
)  # fmt: skip
ODD = (
    None, True, False, 0, 1, -1, 2, 3, 4, 8, 16, 2**31, 2**53, 2**63, 2**64, 10**15, 10**400, 0.5, 1e-300, 1e308,
    float("nan"), float("inf"), -float("inf"), "", "16", "nan", [], {}, [[]], [1] * 1000, [10**6] * 3, [0, 0, 0],
    [-3, 16, 16], [3, 16, 16], [3, 32, 32], [3.0, 16.0, 16.0], [1, 2], [2, 1], [0, 2**62], [True, True], {"a": 1},
    {"intruder": "intruder:Evil"}, "F64", "F16", "BF16", "F8_E4M3", "I64", "I32", "U8", "BOOL", "C64", "f32", "F32\0",
)  # fmt: skip
LENGTHS = (0, 1, 10**8, 2**31, 2**63, 2**64 - 1)  # of a safetensors header
TEXTS = ("", "{}", "[]", "null", "1", "[" * 100_000, '{"a":' * 50_000, "9" * 5000, "NaN", "\ufeff{}")
OTHER_FILES = (
    b"", b"\0" * 8, b"PK\x03\x04" + bytes(100), b"\x80\x02cos\nsystem\n.", b"\x89PNG\r\n\x1a\n", b"\x7fELF" + bytes(99),
    bytes(4096), b"version https://git-lfs.github.com/spec/v1\n",
)  # fmt: skip
DTYPES = {"F64": "<f8", "F16": "<f2", "I32": "<i4", "C64": "<c8", "BOOL": "?"}
EXTREMES = [
    value.to_bytes(width, order)
    for width in (1, 2, 4, 8)
    for value in (0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1))
    for order in ("big", "little")
]
PNG = b"\x89PNG\r\n\x1a\n"
DROP = object()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


def run(cases: st.SearchStrategy[Any], count: int, seed_: int, action: Callable[[Any], None]) -> None:
    """Calls `action` with `count` cases."""

    @seed(seed_)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,  # a case may have megabytes
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def each(case: Any) -> None:
        action(case)

    each()


@st.composite
def edited(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes after one or two edits: a flipped bit, a copied stretch, other bytes, an extreme number, or a removal."""
    current = data
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        place, start = (draw(st.integers(0, len(current))) for _ in range(2))
        flipped = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in current[place : place + 1])
        copied = current[start : start + draw(st.integers(0, 64))]
        new = draw(st.sampled_from([flipped, flipped, copied, b""]) | st.binary(max_size=8) | st.sampled_from(EXTREMES))
        removed = draw(st.sampled_from([len(new)] * 8 + [0, len(current), draw(st.integers(0, 64))]))
        current = current[:place] + new + current[place + removed :]
    return current


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Paths to everything inside a JSON value, with what is there."""
    yield path, value
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        yield from places(item, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another item at a path; `DROP` removes the item."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and new is DROP:
        del copy[path[0]]
    else:
        copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


def similar(value: Any) -> st.SearchStrategy[Any]:
    """Values of the same type and size, which are often legal."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, int):
        return st.integers(0, 2 * abs(value) + 4)
    if isinstance(value, float):
        return st.floats(0, 2 * abs(value) + 1)
    return st.sampled_from([value, None, str(value).upper(), f"{value}2"])


@st.composite
def json_texts(draw: st.DrawFn, value: Any) -> str:
    """The text of a JSON value with one to three items replaced, dropped or added, at times edited as a text too."""
    current = value
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        known = list(places(current))
        path, old = draw(st.sampled_from(known))
        new = draw(st.sampled_from([*ODD, *NAMES]) | st.sampled_from([item for _, item in known]) | JSON)
        if not isinstance(old, dict | list) and draw(st.booleans()):
            new = draw(similar(old))
        elif isinstance(old, dict) and draw(st.booleans()):
            new = {**old, draw(st.sampled_from(KEYS) | st.text(max_size=10)): new}
        elif path and draw(st.integers(0, 6)) == 0:
            new = DROP
        current = changed(current, path, new)
    text = json.dumps(current)
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(text)))
        inserted = draw(st.text(max_size=5) | st.sampled_from(TEXTS))
        text = text[:place] + inserted + text[place + draw(st.integers(0, 5)) :]
    return text


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and tensor data of a valid safetensors file."""
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join(header: str, body: bytes) -> bytes:
    """A safetensors file of a header's text."""
    raw = header.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw + body


def weights(data: bytes) -> st.SearchStrategy[tuple[str, bytes]]:
    """The kind of change and a safetensors file that is damaged, or has other legal tensors."""
    header, body = split(data)
    text, names = json.dumps(header), st.sampled_from(sorted(header))
    head = data[: len(data) - len(body)]
    places_of_values = st.integers(0, len(body) // 4 - 1).map(lambda number: 4 * number)
    kinds: dict[str, st.SearchStrategy[bytes]] = {
        "bytes": edited(data),
        "bytes of the header": edited(head).map(lambda new: new + body),
        "bytes of the tensors": edited(body).map(lambda new: join(text, new)),
        "length of the header": st.sampled_from([*LENGTHS, len(text) - 1, len(text) + 1, len(data), len(data) - 8]).map(
            lambda length: struct.pack("<Q", length) + data[8:]
        ),
        "header": json_texts(header).map(lambda new: join(new, body)),
        "header text": st.sampled_from([*TEXTS, text + "}", " " + text, text + " " * 99]).map(lambda t: join(t, body)),
        "a name twice": st.tuples(names, names).map(
            lambda pair: join(f"{text[:-1]}, {json.dumps(pair[0])}: {json.dumps(header[pair[1]])}}}", body)
        ),
        "names exchanged": st.tuples(names, names).map(
            lambda pair: join(json.dumps(header | {pair[0]: header[pair[1]], pair[1]: header[pair[0]]}), body)
        ),
        "another type": st.tuples(names, st.sampled_from(sorted(DTYPES))).map(
            lambda pair: retyped(header, body, *pair)
        ),
        "not finite": st.tuples(places_of_values, st.sampled_from([np.nan, np.inf, -np.inf])).map(
            lambda pair: join(text, body[: pair[0]] + struct.pack("<f", pair[1]) + body[pair[0] + 4 :])
        ),
        "other files": st.sampled_from(OTHER_FILES),
    }
    return st.sampled_from(sorted(kinds)).flatmap(lambda kind: st.tuples(st.just(kind), kinds[kind]))


def retyped(header: Mapping[str, Any], body: bytes, name: str, dtype: str) -> bytes:
    """The file with one tensor written in another type, and all tensors in sequence, as the format requires."""
    entries, packed = {}, b""
    for key, entry in header.items():
        raw = body[slice(*entry["data_offsets"])]
        if key == name:
            raw = np.frombuffer(raw, "<f4").astype(DTYPES[dtype]).tobytes()
        offsets = [len(packed), len(packed) + len(raw)]
        entries[key] = {**entry, "dtype": dtype if key == name else entry["dtype"], "data_offsets": offsets}
        packed += raw
    return join(json.dumps(entries), packed)


@st.composite
def images(draw: st.DrawFn, sound: Mapping[str, bytes]) -> tuple[str, bytes]:
    """The name of an image file and its bytes after edits; half of the PNGs have correct checksums again."""
    name = draw(st.sampled_from(sorted(sound)))
    data = draw(edited(sound[name]).filter(lambda new: new != sound[name]))
    return name, sealed(data) if data.startswith(PNG) and draw(st.booleans()) else data


def sealed(data: bytes) -> bytes:
    """A PNG with the checksums that fit its chunks, so that decoding goes beyond the checksums."""
    place, parts = 8, [data[:8]]
    while place + 12 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunk = data[place + 4 : place + 8 + length]
        parts.append(data[place : place + 4] + chunk + struct.pack(">I", zlib.crc32(chunk)))
        place += 12 + length
    return b"".join(parts)
