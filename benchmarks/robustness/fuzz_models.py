"""Saved models whose files are changed, and the verdict: refused, or loaded exactly as an independent reading says."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from hypothesis import strategies as st

from benchmarks.robustness.fuzz_mutations import edited, json_texts, weights
from benchmarks.robustness.fuzz_watch import WrongError, expect, outcome, watched
from energycomp.denoisers import ConditionUNet, predict
from energycomp.files import read_tensors
from energycomp.models import Model, from_pretrained, load_weights, save_pretrained
from energycomp.testing import tiny_model

CONFIG, WEIGHTS, MANIFEST = "config.json", "model.safetensors", "manifest.json"

Files = dict[str, bytes]


@attrs.frozen
class Saved:
    """A saved model: its files and config, a copy in memory that must not change, and one to load weights into."""

    files: Files
    config: dict[str, Any]
    bystander: Model
    target: Model
    digest: str

    @classmethod
    def make(cls, folder: Path, model: Model | None = None) -> Saved:
        """Saves a model, by default a tiny one, and runs it once, so that later runs import nothing."""
        save_pretrained(model or tiny_model(), folder)
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        bystander, target = from_pretrained(folder), from_pretrained(folder)
        use(target)
        return cls(files, json.loads(files[CONFIG]), bystander, target, digest(bystander))


def two_networks(folder: Path) -> dict[str, Saved]:
    """A two-stage network, and a diffusers UNet, whose class takes fifty arguments."""
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
    return {name: Saved.make(folder / name, model) for name, model in (("two_stage", tiny), ("unet2d_condition", unet))}


def digest(model: Model) -> str:
    """Of all weights, bit for bit."""
    state = [*model.denoiser.network.state_dict().values(), model.denoiser.alphas_cumprod]
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in state)).hexdigest()


def use(model: Model) -> torch.Tensor:
    """One prediction."""
    sample = torch.zeros(1, *model.denoiser.sample_shape)
    return predict(model.compose(torch.rand(1, 2)), sample, torch.tensor([500.0]))


def honest(files: Mapping[str, bytes]) -> Files:
    """The files with a manifest that fits them."""
    listed = {name: data for name, data in files.items() if name != MANIFEST}
    sums = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in listed.items()}
    return {**listed, MANIFEST: json.dumps(sums).encode()}


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Writes the files to a folder that holds nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@st.composite
def damaged(draw: st.DrawFn, saved: Saved) -> tuple[str, Files]:
    """The kind of damage and the files: one manifest in eight, else weights, half of them under an honest manifest."""
    if draw(st.integers(0, 7)) == 0:
        old = saved.files[MANIFEST]
        texts = json_texts(json.loads(old)).map(lambda text: text.encode("utf-8", "surrogatepass"))
        return "manifest", {**saved.files, MANIFEST: draw((edited(old) | texts).filter(lambda new: new != old))}
    kind, data = draw(weights(saved.files[WEIGHTS]).filter(lambda pair: pair[1] != saved.files[WEIGHTS]))
    files = {**saved.files, WEIGHTS: data}
    return (f"{kind}, manifest corrected", honest(files)) if draw(st.booleans()) else (f"{kind}, manifest left", files)


def judge_weights(saved: Saved, files: Files, folder: Path) -> str:
    """The verdict on a damaged model: "refused", "as saved", or "other legal values" under an honest manifest.

    Raises:
        WrongError: it loaded as something that its files do not state, raised another error, or changed another model.
    """
    model, _ = outcome(lambda: from_pretrained(write(folder, files)))
    expect(digest(saved.bystander) == saved.digest, "a model in memory has changed")
    _judge_target(saved, folder / WEIGHTS)
    if model is None:
        return "refused"
    if files[WEIGHTS] == saved.files[WEIGHTS] and files[CONFIG] == saved.files[CONFIG]:
        expect(digest(model) == saved.digest, "the weights are not those of the file")
        return "as saved"
    expect(files[MANIFEST] == honest(files)[MANIFEST], "loaded under a manifest that does not fit")
    stated = independent_reading(files[WEIGHTS])
    state = {f"network.{name}": tensor for name, tensor in model.denoiser.network.state_dict().items()}
    state["alphas_cumprod"] = model.denoiser.alphas_cumprod
    expect(state.keys() == stated.keys(), f"names {sorted(state.keys() ^ stated.keys())[:3]}")
    for name, tensor in state.items():
        expect(np.array_equal(tensor.numpy(), stated[name]), f"{name} is not what the file states")
        expect(bool(torch.isfinite(tensor).all()), f"{name} is not finite")
    return "as saved" if digest(model) == saved.digest else "other legal values"


def _judge_target(saved: Saved, file: Path) -> None:
    """A network that refuses the weights of the file must keep its own, bit for bit."""
    tensors, _ = outcome(lambda: read_tensors(file))
    if tensors is None:
        return
    network = saved.target.denoiser.network
    tensors.pop("alphas_cumprod", None)
    found = {name.removeprefix("network."): tensor for name, tensor in tensors.items()}
    _, error = outcome(lambda: load_weights(network, found, "memory"))
    if error is None:
        load_weights(network, saved.bystander.denoiser.network.state_dict(), "memory")
    expect(digest(saved.target) == saved.digest, "a network that refused weights has changed")


def independent_reading(data: bytes) -> dict[str, np.ndarray]:
    """The float32 values of a safetensors file, read without the library.

    Raises:
        WrongError: it is not a safetensors file of numbers, so no reader may accept it.
    """
    try:
        (size,) = struct.unpack("<Q", data[:8])
        pairs = [(name, dict(entry)) for name, entry in json.loads(data[8 : 8 + size], object_pairs_hook=list)
                 if name != "__metadata__"]  # fmt: skip
        body, out = data[8 + size :], {}
        for name, entry in pairs:
            raw, dtype = body[slice(*entry["data_offsets"])], entry["dtype"]
            if dtype == "BF16":
                values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
            else:
                values = np.frombuffer(raw, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
            out[name] = values.reshape(entry["shape"]).astype(np.float32)
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise WrongError(f"loaded from a file that is not a safetensors file of numbers: {error}") from error
    expect(all(dict(pairs)[name] == entry for name, entry in pairs), "a name with two meanings in the header")
    return out


def judge_config(saved: Saved, text: str, folder: Path) -> str:
    """The verdict on a config under an honest manifest: "refused", or "a right model" that saves the same and runs.

    Raises:
        WrongError: it loaded as another model than the config states, or one that does not run; it raised another
            error; something was imported, unpickled, started or read outside the folder.
    """
    files = honest({**saved.files, CONFIG: text.encode("utf-8", "surrogatepass")})
    with watched(folder):
        model, _ = outcome(lambda: from_pretrained(write(folder, files)))
        if model is None:
            return "refused"
        save_pretrained(model, folder / "again")
        own = json.loads((folder / "again" / CONFIG).read_text())
        expect(agrees(json.loads(text), own), f"{own} from {text:.2000}")
        expect(digest(model) == saved.digest, f"other weights under {text:.2000}")
        found, error = outcome(lambda: use(model))
        expect(found is not None and found.shape[1:] == model.denoiser.sample_shape, f"{error} of {text:.2000}")
    return "a right model"


def agrees(given: Any, own: Any) -> bool:
    """Whether a model's own config has everything that is given; what is left out may be a default."""
    if isinstance(given, dict):
        return isinstance(own, dict) and all(key in own and agrees(value, own[key]) for key, value in given.items())
    return given == own and isinstance(given, bool) == isinstance(own, bool)
