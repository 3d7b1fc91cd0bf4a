"""Model folders by a stranger: each is refused by an error of ours, or loads as exactly what its files say.

Nothing is imported, unpickled, started, or read outside the folder, and a model in memory stays as it is.
"""

import hashlib
import io
import json
import os
import pickle
import shutil
import socket
import struct
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import attrs
import numpy as np
import pytest
import torch
from huggingface_hub.constants import HF_HOME
from hypothesis import given, strategies as st

from energycomp import Composer, Model, infer, load
from energycomp.components import predict
from energycomp.denoisers import ConditionUNet
from energycomp.errors import EnergycompError
from energycomp.files import read_tensors
from energycomp.models import VAECodec, from_pretrained, save_pretrained
from energycomp.testing import tiny_model

sys.path.insert(0, str(Path(__file__).parents[1]))
from mutations import damaged_bytes, examples

CONFIG, WEIGHTS, MANIFEST = "config.json", "model.safetensors", "manifest.json"
STARTED = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen",
           "socket.connect", "code.__new__")  # fmt: skip
NAMES = (
    "os:system", "builtins.eval", "intruder", "intruder:Evil", "intruder.Evil", "torch.nn.Linear", "TwoStageUNet",
    "energycomp.denoisers.two_stage:TwoStageUNet", "TWO_STAGE", "two_stage\0", "../intruder", "../../secret", "~/x",
    "/etc/passwd", "file:///etc/passwd", "https://localhost/x", "", "..", "\ud800", "\x1b[2J", "x" * 9999,
)  # fmt: skip
KEYS = (
    "_class_name", "_target_", "auto_map", "__reduce__", "__class__", "__init__", "py/object", "$ref", "architectures",
    "trust_remote_code", "custom_pipeline", "model_type", "torch_dtype", "quantization_config", "_name_or_path",
    "self", "args", "kwargs", "device", "", "network", "codec", "__metadata__", "network.null\0", "../secret",
)  # fmt: skip
SOURCES = (*NAMES, "/dev/zero", "a\0b", "a/..", "./a", "a/b/c", "a/b\n", "a b/c d", "a/b@main", "a/b?x=1", "a//b",
           "-rf/x", "nobody/nothing", "nobody/" + "x" * 300, "git+ssh://a/b", "x" * 5000 + "/y")  # fmt: skip
ODD = (
    None, True, 0, -1, 2, 16, 2**31, 2**63, 10**15, 10**400, 0.5, 1e308, float("nan"), -float("inf"), "", "16", [], {},
    [[]], [1] * 1000, [10**6] * 3, [0, 0, 0], [-3, 16, 16], [3, 32, 32], [3.0, 16.0, 16.0], [2, 1], [0, 2**62],
    {"intruder": "intruder:Evil"}, "F64", "F16", "BF16", "F8_E4M3", "I64", "BOOL", "C64", "f32", "F32\0",
)  # fmt: skip
TEXTS = ("", "{}", "[]", "null", "[" * 100_000, '{"a":' * 50_000, "9" * 5000, "NaN", "\ufeff{}")
OTHER_FILES = (b"", bytes(4096), b"PK\x03\x04" + bytes(100), b"\x80\x02cos\nsystem\n.", b"\x7fELF" + bytes(99))

Files = dict[str, bytes]
watching: list[list[str]] = []  # opened paths and forbidden events, of the watch that is on


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if watching and event == "open" and isinstance(arguments[0], str | bytes):
        watching[-1].append(os.path.realpath(os.fsdecode(arguments[0])))
    elif watching and event in STARTED:
        watching[-1].append(f"{event} {arguments!r:.200}")


@pytest.fixture(autouse=True, scope="module")
def audited() -> None:
    """From here on: a hook stays, and each event costs a call."""
    sys.addaudithook(hook)


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Nothing is unpickled or started, no package imported, and no file read but of the folder and of packages."""
    allowed = (folder, HF_HOME, sys.prefix, sys.base_prefix, Path(__file__).parents[2], *sys.path[1:])
    own = (*(os.path.realpath(path) for path in allowed), "/proc/", "/sys/", "/dev/null")
    before, happened = {name.partition(".")[0] for name in sys.modules}, list[str]()

    def unpickle(*given: Any, **_: Any) -> Any:
        happened.append(f"unpickling of {given!r:.200}")
        raise RuntimeError(happened[-1])

    watching.append(happened)
    with mock.patch.multiple(pickle, load=unpickle, loads=unpickle, Unpickler=unpickle):
        try:
            with mock.patch.object(torch, "load", unpickle):
                yield
        finally:
            watching.pop()
    assert [what for what in happened if not what.startswith(own)] == []
    assert {name.partition(".")[0] for name in sys.modules} - before == set(), "imported"


def ours(action: Callable[[], Any], *, may_warn: bool = False) -> Any:
    """What an action returns, or None where it raises an error of ours; it warns of nothing."""
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        result = None
        with suppress(EnergycompError):
            result = action()
    assert may_warn or not leaked, leaked[0].message
    return result


def digest(model: Model) -> str:
    """Of all weights, bit for bit."""
    state = [*model.denoiser.network.state_dict().values(), model.denoiser.alphas_cumprod]
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in state)).hexdigest()


def use(model: Model) -> None:
    """The solver, the scheduler and the codec that a config names."""
    few = attrs.evolve(model, defaults=attrs.evolve(model.defaults, draws=1, views=1))
    ours(lambda: infer(torch.zeros(3, 16, 16), few, count=1), may_warn=True)
    ours(lambda: Composer([few(0.5, 0.5)]).sample(1, num_inference_steps=1), may_warn=True)


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def honest(files: Files) -> Files:
    """The files with a manifest that fits them."""
    listed = {name: data for name, data in files.items() if name != MANIFEST}
    sums = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in listed.items()}
    return {**listed, MANIFEST: json.dumps(sums).encode()}


class Attacked:
    """A saved model that is attacked, beside a secret that nothing may read and a module that nothing may import."""

    def __init__(self, root: Path, model: Model) -> None:
        save_pretrained(model, root / "secret")
        self.root, self.folder, self.marker = root, root / "model", root / "marker"
        self.files = {file.name: file.read_bytes() for file in (root / "secret").iterdir()}
        self.config = json.loads(self.files[CONFIG])
        evil = f"import os\nos.makedirs({str(self.marker)!r})\nclass Evil:\n    pass\n"
        write(root / "path", {"intruder.py": evil.encode()})
        os.mkfifo(root / "pipe")
        self.bystander = from_pretrained(root / "secret")
        self.digest = digest(self.bystander)
        use(self.bystander)  # what a first use imports is no attack
        for source in ("nobody/nothing", str(root / "secret")):
            ours(lambda source=source: VAECodec(source, image_size=16).encode(torch.zeros(1, 3, 16, 16)), may_warn=True)
        ours(lambda: load("nobody/nothing"), may_warn=True)

    def judge(self, action: Callable[[], Any] | Files, *, may_load: bool = True, other: bool = False) -> Any:
        """No code of the attack runs; the model, by default the saved one, if it is loaded and may be."""
        if isinstance(files := action, dict):
            action = lambda: from_pretrained(write(self.folder, files))  # noqa: E731
        with mock.patch.object(sys, "path", [*sys.path, str(self.root / "path")]), watched(self.folder):
            if (model := ours(action)) is not None:
                use(model)
        assert "intruder" not in sys.modules
        assert not self.marker.exists()
        assert digest(self.bystander) == self.digest
        assert model is None or (may_load and (other or digest(model) == self.digest))
        return model

    def refuses(self, action: Callable[[], Any] | Files) -> None:
        self.judge(action, may_load=False)

    def configured(self, config: Any) -> Files:
        text = config if isinstance(config, str) else json.dumps(config)
        return honest({**self.files, CONFIG: text.encode("utf-8", "surrogatepass")})


def unet() -> Model:
    """A model of diffusers' UNet, whose class takes fifty arguments."""
    torch.manual_seed(0)
    network = ConditionUNet(
        sample_size=16, in_channels=3, out_channels=3, block_out_channels=[8, 8], norm_num_groups=1, layers_per_block=1,
        down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"],
        attention_head_dim=1, cross_attention_dim=2,
    ).eval()  # fmt: skip
    tiny = tiny_model()
    return attrs.evolve(tiny, denoiser=attrs.evolve(tiny.denoiser, network=network), network_name="unet2d_condition")


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    """Of the module, since `tiny` asks the Hub for a model, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="module")
def tiny(offline: None, tmp_path_factory: pytest.TempPathFactory) -> Attacked:
    return Attacked(tmp_path_factory.mktemp("tiny"), tiny_model())


# Drawn damage


def inside(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Everything in a JSON value, with the paths to it."""
    yield path, value
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from inside(item, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with another item at a path."""
    if not path:
        return new
    items = dict(value) if isinstance(value, dict) else list(value)
    items[path[0]] = changed(items[path[0]] if path[1:] else None, path[1:], new)
    return items


@st.composite
def damaged_json(draw: st.DrawFn, value: Any) -> str:
    """The text of a JSON value with one or two items of odd or of similar values, or with further keys."""
    for _ in range(draw(st.sampled_from([1, 1, 2]))):
        known = list(inside(value))
        path, old = draw(st.sampled_from(known))
        new = draw(
            st.sampled_from(NAMES if isinstance(old, str) else ODD) | st.sampled_from([item for _, item in known])
        )
        if isinstance(old, dict):
            new = {**old, draw(st.sampled_from(KEYS) | st.text(max_size=10)): new}
        elif isinstance(old, int | float) and draw(st.booleans()):
            new = type(old)(draw(st.integers(0, 2 * int(abs(old)) + 4)))
        value = changed(value, path, new)
    text = json.dumps(value)
    return draw(st.sampled_from([text] * 12 + [text + "}", text[:-1], text.replace(":", ": \t"), *TEXTS[:3]]))


@st.composite
def damaged_weights(draw: st.DrawFn, data: bytes) -> bytes:
    """A safetensors file that is damaged, or has other legal tensors."""
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    text, one, other = json.dumps(header), *draw(st.tuples(*[st.sampled_from(sorted(header))] * 2))
    place, number = 4 * draw(st.integers(0, len(body) // 4 - 1)), draw(st.sampled_from([np.nan, np.inf, 0.5]))
    (start, end), half = header[one]["data_offsets"], {**header[one], "dtype": "F16"}
    twice = f"{text[:-1]}, {json.dumps(one)}: {json.dumps(header[other])}}}"
    exchanged = json.dumps(header | {one: header[other], other: header[one]})
    retyped = json.dumps(header | {one: {**half, "data_offsets": [start, (start + end) // 2]}})
    texts = st.sampled_from([*TEXTS, text + "}", " " + text, text + " " * 99, twice, exchanged, retyped])
    bodies = damaged_bytes(body) | st.just(body[:place] + struct.pack("<f", number) + body[place + 4 :])
    sizes = st.sampled_from([0, 1, 10**8, 2**63, size - 1, size + 1, len(data) - 8])
    raw = draw(texts | damaged_json(header)).encode("utf-8", "surrogatepass")
    kinds = st.just(struct.pack("<Q", len(raw)) + raw + body) | bodies.map(lambda new: data[: 8 + size] + new)
    kinds |= (
        damaged_bytes(data) | st.sampled_from(OTHER_FILES) | sizes.map(lambda new: struct.pack("<Q", new) + data[8:])
    )
    return draw(kinds)


def independent_reading(data: bytes) -> dict[str, np.ndarray]:
    """The values of a safetensors file as float32, read without the library. Fails where no reader may accept it."""
    (size,) = struct.unpack("<Q", data[:8])
    out, body = dict[str, np.ndarray](), data[8 + size :]
    for name, pairs in json.loads(data[8 : 8 + size], object_pairs_hook=list):
        if name == "__metadata__":
            continue
        assert name not in out, "a name with two meanings"
        entry = dict(pairs)
        raw = np.frombuffer(
            body[slice(*entry["data_offsets"])], {"F64": "<f8", "F32": "<f4"}.get(entry["dtype"], "<u2")
        )
        if entry["dtype"] == "BF16":
            raw = (raw.astype("<u4") << 16).view("<f4")
        out[name] = (raw.view("<f2") if entry["dtype"] == "F16" else raw).reshape(entry["shape"]).astype(np.float32)
    return out


@examples(40)
@given(st.data())
def test_damaged_weights(tiny: Attacked, data: st.DataObject) -> None:
    files = {**tiny.files, WEIGHTS: data.draw(damaged_weights(tiny.files[WEIGHTS]))}
    kind = data.draw(st.sampled_from(["left", "corrected", "corrected", "damaged"]))
    if kind == "corrected":
        files = honest(files)
    elif kind == "damaged":
        files = {**tiny.files, MANIFEST: data.draw(damaged_bytes(tiny.files[MANIFEST]))}
    if (model := tiny.judge(files, other=kind == "corrected")) is None:
        return
    assert kind != "left" or files == tiny.files
    stated = independent_reading(files[WEIGHTS])
    state = {f"network.{name}": tensor for name, tensor in model.denoiser.network.state_dict().items()}
    state["alphas_cumprod"] = model.denoiser.alphas_cumprod
    assert state.keys() == stated.keys()
    for name, tensor in state.items():
        assert np.isfinite(stated[name]).all()
        np.testing.assert_array_equal(tensor.numpy(), stated[name])


def agrees(given: Any, own: Any) -> bool:
    """Whether a model's own config has everything that is given; what is left out may be a default."""
    if isinstance(given, dict):
        return isinstance(own, dict) and all(key in own and agrees(value, own[key]) for key, value in given.items())
    return bool(given == own) and isinstance(given, bool) == isinstance(own, bool)


@pytest.mark.parametrize(("make", "count"), [(tiny_model, 25), (unet, 12)])
def test_damaged_configs(tmp_path: Path, make: Callable[[], Model], count: int) -> None:
    attacked = Attacked(tmp_path, make())

    @examples(count)
    @given(damaged_json(attacked.config))
    def each(text: str) -> None:
        if (model := attacked.judge(attacked.configured(text))) is not None:
            sample = torch.zeros(1, *model.denoiser.sample_shape)
            assert predict(model.compose(torch.rand(1, 2)), sample, torch.tensor([500.0])).shape == sample.shape
            save_pretrained(model, tmp_path / "again")
            assert agrees(json.loads(text), json.loads((tmp_path / "again" / CONFIG).read_text()))

    each()


# Attacks by hand


CHANGES: list[tuple[tuple[str, ...], Any]] = [
    (("network", "name"), "intruder:Evil"), (("conditioner", "name"), "os:system"), (("denoiser", "rule"), "eval"),
    (("network", "config", "auto_map"), "intruder.Evil"), (("_target_",), "intruder.Evil"),
    (("codec",), {"name": "vae", "config": {"source": "../../secret", "image_size": 128, "channels": 3}}),
    (("codec",), {"name": "intruder:Evil", "config": {}}), (("processor", "name"), "os:system"),
    (("denoiser", "sample_shape"), [3, 15, 15]),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), CHANGES, ids=str)
def test_configs_that_name_code_or_do_not_fit(tiny: Attacked, path: tuple[str, ...], value: Any) -> None:
    tiny.refuses(tiny.configured(changed(tiny.config, path, value)))


@pytest.mark.parametrize("name", ["intruder:Evil", "/etc/passwd", "os:system"])
def test_what_is_looked_up_at_its_first_use_runs_no_code(tiny: Attacked, name: str) -> None:
    for path in (("defaults", "solver"), ("defaults", "scheduler")):
        tiny.judge(tiny.configured(changed(tiny.config, path, name)))
    codec = {"name": "vae", "config": {"source": "/etc/passwd", "image_size": 128, "channels": 3}}
    tiny.judge(tiny.configured({**tiny.config, "codec": codec}))


@pytest.mark.parametrize("source", SOURCES, ids=range(len(SOURCES)))
def test_sources_that_are_no_models(tiny: Attacked, source: str) -> None:
    tiny.refuses(lambda: load(source))
    tiny.refuses(lambda: from_pretrained(source))


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def payload(kind: str, evil: Evil) -> bytes:
    buffer = io.BytesIO()
    if kind == "numpy":
        np.save(buffer, np.array([evil], dtype=object), allow_pickle=True)
    elif kind.startswith("torch"):
        torch.save({"network.null": evil}, buffer, _use_new_zipfile_serialization=kind == "torch")
    else:
        pickle.dump(evil, buffer, int(kind[-1]))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["protocol 0", "protocol 5", "torch", "torch, old", "numpy"])
def test_pickles(tiny: Attacked, kind: str) -> None:
    """Instead of each file, beside the files, as an autoencoder, and passed directly, listed in the manifest or not."""
    files, folder, data = tiny.files, tiny.folder, payload(kind, Evil(tiny.marker))
    for name in (WEIGHTS, CONFIG, MANIFEST):
        tiny.refuses({**files, name: data})
    tiny.refuses(honest({**files, WEIGHTS: data}))
    tiny.refuses(honest({**files, CONFIG: data}))
    for name in ("pytorch_model.bin", "model.pt", "more.safetensors", "more.json", "more"):
        tiny.refuses({**files, name: data})
        assert tiny.judge(honest({**files, name: data}))
        tiny.refuses(honest({CONFIG: files[CONFIG], name: data}))
        write(folder, {name: data})
        tiny.refuses(lambda name=name: read_tensors(folder / name))
        tiny.refuses(lambda name=name: load(str(folder / name)))
    config = json.dumps({"_class_name": "intruder.Evil", "auto_map": {"AutoModel": "intruder.Evil"}}).encode()
    for name in ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"):
        write(folder, {CONFIG: config, name: data})
        tiny.refuses(lambda: VAECodec(str(folder), image_size=16).encode(torch.zeros(1, 3, 16, 16)))


def bound(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(file))


LINKS: dict[str, Callable[[Path], Any]] = {
    "outwards": lambda file: file.symlink_to(Path("../secret") / (WEIGHTS if file.name == "more" else file.name)),
    "to itself": lambda file: file.symlink_to(file.name),
    "to a device": lambda file: file.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
    "socket": bound,
}


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, MANIFEST])
@pytest.mark.parametrize("kind", LINKS)
def test_links_pipes_and_devices(tiny: Attacked, monkeypatch: pytest.MonkeyPatch, kind: str, name: str) -> None:
    write(tiny.folder, tiny.files)
    monkeypatch.chdir(tiny.folder)  # the name of a socket is short
    Path(name).unlink()
    LINKS[kind](Path(name))
    tiny.refuses(lambda: from_pretrained(tiny.folder))


def test_other_links_and_those_of_the_hub(tiny: Attacked) -> None:
    LINKS["outwards"](write(tiny.folder, tiny.files) / "more")
    tiny.refuses(lambda: from_pretrained(tiny.folder))
    tiny.refuses(lambda: read_tensors(tiny.root / "pipe"))
    cache = write(tiny.folder, {})
    snapshot = write(cache / "snapshots" / "0123", {})
    write(cache / "blobs", {f"{len(data):x}": data for data in tiny.files.values()})
    for name, data in tiny.files.items():
        (snapshot / name).symlink_to(Path("../../blobs") / f"{len(data):x}")
    assert tiny.judge(lambda: from_pretrained(snapshot))


def test_the_watch_sees_what_a_loader_must_not_do(tiny: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    (tiny.root / "payload").write_bytes(payload("torch", Evil(tiny.marker)))
    monkeypatch.delitem(sys.modules, "this", raising=False)  # another test may have imported it
    for action, what in (
        (lambda: torch.load(tiny.root / "payload", weights_only=False), "unpickling"),
        (lambda: os.system("true"), "os.system"),  # noqa: S605, S607
        ((tiny.root / "secret" / CONFIG).read_text, "config.json"),
        (lambda: __import__("this"), "imported"),
    ):
        with pytest.raises((AssertionError, RuntimeError), match=what), watched(tiny.folder):
            action()
    monkeypatch.delitem(sys.modules, "this")
