"""Engines: the same predictions and row counts as torch, exported once; torch where an engine cannot."""

import copy
import gc
import importlib.util
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from energycomp import load
from energycomp.components import Condition
from energycomp.denoisers import ConditionUNet, TwoStageUNet, configured, count_rows, rows, trunk
from energycomp.denoisers.engines import run_by
from energycomp.denoisers.engines.export import FILE
from energycomp.errors import EnergycompWarning, InputError, NotFoundError
from energycomp.plugins import object_of
from energycomp.testing import tiny_model

EXPORTING = ("onnx", "openvino")
SHAPES = ((2, 5), (1, 1), (3, 3), (2, 21))  # samples and rows; the engine exports at the first


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One for all tests of this file, so that both engines share exports."""
    folder = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENERGYCOMP_CACHE", str(folder))
        yield folder / "engines"


@pytest.fixture(scope="module")
def parts(cache: Path) -> list[Path]:
    """The folders of the two exported parts of `other`, which nothing else may export before."""
    before = {*cache.glob("*")}
    with torch.no_grad():
        predict(run_by(other(), object_of("engines", "onnx")), 2, 5)
    return sorted({*cache.glob("*")} - before)


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("it was exported again"))


class Counting:
    """An engine that runs parts by torch, and counts their calls."""

    def __init__(self, *, fails: bool = False) -> None:
        self.calls = 0
        self.fails = fails

    def accepts(self, tensors: Any) -> bool:
        return True

    def compile(self, part: nn.Module, example: Any, key: str, *, fresh: bool) -> Any:
        def run(tensors: Any) -> Any:
            self.calls += 1
            if self.fails and self.calls > 1:
                raise RuntimeError("out of memory")
            return part(*tensors)

        return run


@configured
class Other(nn.Module):
    """A two-stage network of somebody else: its head takes features of samples, and rows, of different numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 1)

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
        return self.mix(sample), timestep[:, None] / 1000

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        token = torch.where(condition.null[:, None], 0, condition.rows[:, 0]).sum(1)
        return self.mix(features[0][owner]) + token[:, None, None, None] * features[1][owner][..., None, None]


def other() -> Other:
    torch.manual_seed(0)
    return Other().eval()


def windows() -> TwoStageUNet:
    torch.manual_seed(0)
    made = TwoStageUNet(sample_size=16, channels=(8,), head_channels=8, head_blocks=1, window=2, unplaced=True).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.1)
    return made


def predict(network: Any, samples: int, count: int, width: int = 2) -> Tensor:
    """Random rows on random samples, the first of them unconditional; by a network of one stage, as many of both."""
    generator = torch.Generator().manual_seed(samples)
    stages = hasattr(network, "head")
    sample = torch.randn(samples if stages else count, 3, 16, 16, generator=generator)
    timestep = torch.rand(len(sample), generator=generator) * 900
    condition = Condition(torch.rand(count, 1, width, generator=generator), torch.arange(count) == 0)
    if not stages:
        return network(sample, timestep, condition)
    return network.head(network.features(sample, timestep), condition, torch.arange(count) % samples)


def unet() -> ConditionUNet:
    torch.manual_seed(0)
    config: dict[str, Any] = {"sample_size": 16, "in_channels": 3, "out_channels": 3, "block_out_channels": [4]}
    config |= {"down_block_types": ["CrossAttnDownBlock2D"], "up_block_types": ["UpBlock2D"], "mid_block_type": None}
    return ConditionUNet(
        layers_per_block=1, norm_num_groups=1, cross_attention_dim=2, attention_head_dim=1, **config
    ).eval()


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("make", [windows, unet, other])
@torch.no_grad()
def test_any_network_predicts_what_it_does_in_torch(make: Callable[[], nn.Module]) -> None:
    network = make()
    by_engine = {engine: run_by(network, object_of("engines", engine)) for engine in EXPORTING}
    for samples, count in SHAPES * 2:
        expected = predict(network, samples, count)
        for found in by_engine.values():
            torch.testing.assert_close(
                predict(found, samples, count), expected, rtol=0, atol=1e-4 * expected.abs().max()
            )


@pytest.mark.usefixtures("no_export")
@pytest.mark.parametrize("engine", EXPORTING)
@torch.no_grad()
def test_a_later_process_finds_what_was_exported(engine: str) -> None:
    network = windows()
    again = run_by(copy.deepcopy(network), object_of("engines", engine))
    for _ in range(2):
        torch.testing.assert_close(predict(again, 2, 5), predict(network, 2, 5))


@torch.no_grad()
def test_an_export_that_is_damaged_or_of_another_network_is_made_again(parts: list[Path]) -> None:
    network = other()
    damaged, replaced = parts
    shutil.rmtree(replaced)
    shutil.copytree(damaged, replaced)
    (damaged / FILE).write_bytes((damaged / FILE).read_bytes()[:99])
    again = run_by(network, object_of("engines", "onnx"))
    with pytest.warns(EnergycompWarning) as warned:
        predict(again, 2, 5)
    assert ["exported again" in str(one.message) for one in warned] == [True, True]
    torch.testing.assert_close(predict(again, 2, 5), predict(network, 2, 5))


@torch.no_grad()
def test_a_cache_that_cannot_be_written_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ENERGYCOMP_CACHE", str(tmp_path / "file"))
    network, given = other(), (torch.rand(2, 3, 4, 4), torch.rand(2))
    again = run_by(network, object_of("engines", "onnx"))
    with pytest.warns(EnergycompWarning, match="cannot be written"):
        again.features(*given)
    torch.testing.assert_close(again.features(*given), network.features(*given))


@torch.no_grad()
def test_what_cannot_be_exported_runs_by_torch() -> None:
    class Branches(Other):
        def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor]:
            return super().features(sample if sample.sum() > 0 else -sample, timestep)

    network = Branches().eval()
    found = run_by(network, object_of("engines", "onnx"))
    with pytest.warns(
        EnergycompWarning, match=r"got Branches.features, which OnnxRuntime does not run \(.+\); torch does"
    ):
        found.features(torch.rand(2, 3, 2, 2), torch.rand(2))
    assert torch.equal(found.features(torch.ones(1, 3, 2, 2), torch.ones(1))[0], network.mix(torch.ones(1, 3, 2, 2)))


@pytest.mark.parametrize("make", [windows, unet, other])
@torch.no_grad()
def test_bfloat16_predicts_nearly_what_torch_does(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})  # without, it is slow and right
    network = make()
    found = run_by(network, object_of("engines", "bf16"))
    predict(found, 2, 5)  # the first answer is that of torch, with which an engine is compared
    for samples, count in SHAPES:
        expected, seen = predict(network, samples, count), predict(found, samples, count)
        assert seen.dtype == torch.float32
        assert 0 < (seen - expected).abs().max() <= 0.05 * expected.abs().max()
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


@torch.no_grad()
def test_without_instructions_for_bfloat16_torch_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    network = other()
    found = run_by(network, object_of("engines", "bf16"))
    with pytest.warns(EnergycompWarning, match="got a cpu without instructions for bfloat16"):
        predict(found, 2, 5)
    assert torch.equal(predict(found, 2, 5), predict(network, 2, 5))


@torch.no_grad()
def test_torch_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda part, **how: compile_(part, backend="eager", **how))
    network = Other().eval()
    found = run_by(network, object_of("engines", "compile"))
    for samples, count in SHAPES:
        torch.testing.assert_close(predict(found, samples, count), predict(network, samples, count))


@torch.no_grad()
def test_without_a_compiler_torch_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fail)
    found = run_by(Other().eval(), object_of("engines", "compile"))
    with pytest.warns(EnergycompWarning, match="no C"):
        predict(found, 2, 5)


def test_rows_are_counted_as_before() -> None:
    model = tiny_model()
    engine = Counting()
    sample, timestep = torch.zeros(2, 3, 16, 16), torch.tensor([100.0, 900.0])
    found = []
    for one in (model, model.with_engine(engine)):
        with count_rows() as spent, torch.no_grad():
            shared = trunk(one.denoiser, sample, timestep)
            rows(one.denoiser, shared, Condition(torch.rand(3, 1, 2)), torch.tensor([0, 0, 1]))
        found.append(spent)
    assert found[0] == found[1]
    assert engine.calls == 2  # of each part, when it is compared with torch


def test_torch_computes_gradients_trains_and_sees_new_weights() -> None:
    network = Other().eval()
    engine = Counting()
    found = run_by(network, engine)
    place = torch.rand(2, 1, 2, requires_grad=True)
    features = network.features(torch.rand(1, 3, 4, 4), torch.ones(1))
    found.head(features, Condition(place), torch.zeros(2, dtype=torch.long)).sum().backward()
    assert place.grad is not None
    with torch.no_grad():
        found.train()
        predict(found, 2, 5)
        found.eval()
        with torch.autocast("cpu", torch.bfloat16):
            predict(found, 2, 5)
        assert engine.calls == 0
        predict(found, 2, 5)
        assert engine.calls == 2
        network.mix.weight.mul_(2)
        assert torch.equal(predict(found, 2, 5), predict(network, 2, 5))
        assert engine.calls == 2


@torch.no_grad()
def test_a_failing_engine_is_left_and_copies_are_whole() -> None:
    network = Other().eval()
    found = run_by(network, Counting(fails=True))
    predict(found, 2, 5)
    with pytest.warns(EnergycompWarning, match="out of memory"):
        predict(found, 2, 5)
    assert torch.equal(predict(found, 2, 5), predict(network, 2, 5))
    for twin in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):  # noqa: S301
        assert torch.equal(predict(twin, 2, 5), predict(network, 2, 5))
    plain = run_by(found, None)
    assert "head" not in vars(plain)
    assert plain.mix is network.mix


def test_ctrl_c_reaches_a_process_whose_engines_are_gone() -> None:
    code = "import test_engines; test_engines.be_interrupted()"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def be_interrupted() -> None:
    """Ctrl-C after the parts of a network that OpenVINO ran are freed one after another."""
    with torch.no_grad():
        predict(run_by(windows(), object_of("engines", "openvino")), 2, 5)
    gc.collect()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_engine_is_chosen_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "features" not in vars(tiny_model().denoiser.network)
    with pytest.raises(NotFoundError, match=r"No engine is named 'openvine'. Did you mean 'openvino'"):
        load("clevr-places", engine="openvine")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    expected = r"got the engine 'openvino' without the package openvino; .* pip install 'energycomp\[openvino\]'"
    with pytest.raises(InputError, match=expected):
        tiny_model().with_engine("openvino")
    monkeypatch.setenv("ENERGYCOMP_ENGINE", "onnx")
    with pytest.raises(InputError, match="engine 'onnx'"):
        load("clevr-places")
    assert "features" not in vars(load("clevr-places", engine="torch").denoiser.network)


@torch.no_grad()
def test_distributions_check_their_arguments_as_before() -> None:
    """`torch.export` ends that for the whole process, once in each: a double does it again."""

    class Careless(Counting):
        def compile(self, *given: Any, **options: Any) -> Any:
            Distribution.set_default_validate_args(False)
            return super().compile(*given, **options)

    assert Distribution._validate_args
    predict(run_by(Other().eval(), Careless()), 2, 5)
    assert Distribution._validate_args
