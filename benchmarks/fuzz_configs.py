"""Configs that are not what `save_pretrained` writes, and the verdict: an error of ours, or exactly that model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from fuzz_watch import expect, outcome, watched
from fuzz_weights import CONFIG, Files, digest, honest, write
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from energycomp.denoisers import ConditionUNet, predict
from energycomp.models import Model, from_pretrained, pretrained, save_pretrained
from energycomp.testing import tiny_model

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
)  # fmt: skip
ODD = (
    None, True, False, 0, 1, -1, 2, 3, 4, 8, 16, 2**31, 2**63, 10**15, 10**400, 0.5, 1e-300, 1e308, float("nan"),
    float("inf"), -float("inf"), "", "16", "nan", [], {}, [[]], [1] * 1000, [10**6] * 3, [0, 0, 0], [-3, 16, 16],
    [3, 16, 16], [3, 32, 32], [3.0, 16.0, 16.0], [1, 2], [2, 1], [True, True], {"a": 1}, {"intruder": "intruder:Evil"},
)  # fmt: skip


@attrs.frozen
class Base:
    """A saved model whose config is changed: its files, its config, and the digest of its weights."""

    files: Files
    config: dict[str, Any]
    digest: str

    @classmethod
    def make(cls, model: Model, folder: Path) -> Base:
        """Saves the model."""
        save_pretrained(model, folder)
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        return cls(files, json.loads(files[CONFIG]), digest(model))


def bases(folder: Path) -> dict[str, Base]:
    """A network of two stages, and a diffusers U-Net, whose class takes fifty arguments."""
    tiny = tiny_model()
    arguments: dict[str, Any] = {
        "sample_size": 16, "in_channels": 3, "out_channels": 3, "block_out_channels": [8, 8], "norm_num_groups": 1,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"], "layers_per_block": 1, "attention_head_dim": 1,
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "cross_attention_dim": 2,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ConditionUNet(**arguments).eval()
    unet = attrs.evolve(tiny, denoiser=attrs.evolve(tiny.denoiser, network=network), network_name="unet2d_condition")
    found = {"two_stage": Base.make(tiny, folder / "two_stage"), "unet2d_condition": Base.make(unet, folder / "unet")}
    for base in found.values():  # what a first use imports is not a config's doing
        _use(from_pretrained(write(folder / "first", base.files)))
    return found


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to everything inside."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in inside for found in places(item, (*path, key)))]


def changed(value: Any, path: tuple[Any, ...], change: Any) -> Any:
    """A copy in which `change(what is there)` stands at a path; `DROP` takes it away."""
    if not path:
        return change(value)
    copy = dict(value) if isinstance(value, dict) else list(value)
    new = changed(copy[path[0]], path[1:], change)
    if new is DROP:
        del copy[path[0]]
    else:
        copy[path[0]] = new
    return copy


DROP = object()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@st.composite
def configs(draw: st.DrawFn, config: Mapping[str, Any]) -> str:
    """The text of a config with one to three changes, now and then damaged as a text, too."""
    current: Any = dict(config)
    for _ in range(draw(st.integers(1, 3))):
        value = draw(st.sampled_from(ODD) | st.sampled_from(NAMES) | JSON)
        path = draw(st.sampled_from(places(current)))
        kind = draw(st.sampled_from(["replace"] * 4 + ["drop", "add", "nest"]))
        if kind == "drop" and path:
            current = changed(current, path, lambda _: DROP)
        elif kind == "add":
            key = draw(st.sampled_from(KEYS) | st.text(max_size=10))
            current = changed(current, path, lambda old, k=key, v=value: {**old, k: v} if isinstance(old, dict) else v)
        elif kind == "nest":
            current = changed(current, path, lambda old: [old])
        elif path:
            current = changed(current, path, lambda _, v=value: v)
    text = json.dumps(current)
    if draw(st.integers(0, 9)) == 0:
        place = draw(st.integers(0, len(text)))
        inserted = draw(st.text(max_size=5) | st.sampled_from(["[" * 50_000, '{"a":' * 50_000, "9" * 5000, "NaN"]))
        text = text[:place] + inserted + text[place + draw(st.integers(0, 5)) :]
    return text


def run(each: Callable[[str, Base, str], None], kind: str, base: Base, count: int, seed_: int) -> None:
    """Calls `each` with fuzzed configs of a base; hypothesis makes the smallest of what fails, if `each` raises."""

    @seed(seed_)
    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(configs(base.config))
    def fuzz(text: str) -> None:
        each(kind, base, text)

    fuzz()


def judge(base: Base, text: str, folder: Path) -> str:
    """The verdict on a config under an honest manifest: "refused", or "a right model" that says the same and runs.

    Raises:
        WrongError: it loaded as another model than the config says, one that does not run, or raised another error;
            something was imported, unpickled, started or read outside the folder.
    """
    with watched(folder):
        return _judge(base, text, folder)


def _judge(base: Base, text: str, folder: Path) -> str:
    files = honest({**base.files, CONFIG: text.encode("utf-8", "surrogatepass")})
    model, _ = outcome(lambda: from_pretrained(write(folder, files)))
    if model is None:
        return "refused"
    own = json.loads(json.dumps(pretrained._config(model)))
    expect(agrees(json.loads(text), own), f"{own} from {text:.2000}")
    expect(digest(model) == base.digest, f"other weights under {text:.2000}")
    found, error = outcome(lambda: _use(model))
    expect(found is not None and found.shape[1:] == model.denoiser.sample_shape, f"{error} of {text:.2000}")
    return "a right model"


def _use(model: Model) -> torch.Tensor:
    sample = torch.zeros(1, *model.denoiser.sample_shape)
    return predict(model.compose(torch.rand(1, 2)), sample, torch.tensor([500.0]))


def agrees(given: Any, own: Any) -> bool:
    """Whether all that is given is so; what is left out may be a default."""
    if isinstance(given, dict):
        return isinstance(own, dict) and all(key in own and agrees(value, own[key]) for key, value in given.items())
    return given == own and isinstance(given, bool) == isinstance(own, bool)
