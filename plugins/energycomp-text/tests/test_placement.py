"""What pipelines cost: where their weights are in memory, offloaded, mapped or quantised, and network evaluations."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import energycomp
from energycomp import Composer, during, per_sample, region
from energycomp.denoisers import count_rows
from energycomp.models import Model, execution_device
from energycomp_samplers import regional
from energycomp_text import from_pipeline
from energycomp_text.families.prompted import PipelineNetwork
from energycomp_text.testing import OPTIONS, TINY, tiny_flux, tiny_lora

needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs energycomp-text[lora]")


def latents(composition: Any, scheduler: Any = None) -> Tensor:
    samples: Tensor = Composer(composition).sample(
        generator=0, num_inference_steps=2, scheduler=scheduler, output_type="latent", progress=False
    )
    return samples


def weights_of(pipe: Any) -> list[Tensor]:
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    return [weight for part in parts for weight in part.parameters()]


@pytest.mark.skipif(sys.platform != "linux", reason="reads the mapped files of the process")
@pytest.mark.parametrize("name", TINY)
def test_weights_of_the_type_of_their_files_stay_mapped_from_them(name: str, tmp_path: Path) -> None:
    """No copy is made: each weight lies in the mapped pages of its file."""
    TINY[name]().save_pretrained(tmp_path / name)
    model = energycomp.load(tmp_path / name, **OPTIONS[name])
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(".safetensors")]
    mapped = [[int(number, 16) for number in line.split()[0].split("-")] for line in lines if str(tmp_path) in line]
    weights = weights_of(model.adapt.pipe if model.adapt else model.denoiser.network.opened.pipe)
    assert len(weights) > 50
    for weight in weights:
        assert any(start <= weight.data_ptr() < stop for start, stop in mapped)


@pytest.mark.parametrize("name", TINY)
def test_a_model_of_a_pipeline_in_memory_copies_no_weights(name: str) -> None:
    pipe = TINY[name]()
    before = {weight.data_ptr() for weight in weights_of(pipe)}
    model = from_pipeline(pipe, **OPTIONS[name])
    latents(model("a cat") & model("a dog"))
    assert {weight.data_ptr() for weight in weights_of(pipe)} == before
    own = {weight.data_ptr() for weight in model.denoiser.network.parameters()}
    assert len(own - before) <= 1  # the unconditional row of a Stable Diffusion model


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_parts_that_are_offloaded_stay_with_their_hooks(name: str) -> None:
    """As `enable_model_cpu_offload` leaves them: the hooks say where parts compute, and nothing else moves them."""
    from accelerate import cpu_offload_with_hook

    pipe, hook = TINY[name](), None
    expected = latents(from_pipeline(pipe, **OPTIONS[name])("a cat"), None)
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    for part in parts:
        _, hook = cpu_offload_with_hook(part, "cpu", prev_module_hook=hook)
    model = from_pipeline(pipe, **OPTIONS[name])
    assert [execution_device(part) for part in parts] == [torch.device("cpu")] * len(parts)
    assert isinstance(model.denoiser.network, PipelineNetwork)
    assert model.denoiser.device == torch.device("cpu")
    torch.testing.assert_close(latents(model("a cat"), None), expected)
    assert model.decode(expected, "pt").shape == (1, 3, 32, 32)


@pytest.mark.parametrize(("name", "device_map"), [("sdxl", "cpu"), ("flux", "balanced")])
def test_a_device_map_is_left_as_it_is(name: str, device_map: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    from diffusers import DiffusionPipeline

    plain = TINY[name]()
    plain.save_pretrained(tmp_path / name)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / name, device_map=device_map, use_safetensors=True)
    placed = {weight.device for weight in weights_of(pipe)}
    model, own = from_pipeline(pipe, **OPTIONS[name]), from_pipeline(plain, **OPTIONS[name])
    got = latents(3 * model("a cat") & model.unconditional)
    torch.testing.assert_close(got, latents(3 * own("a cat") & own.unconditional), rtol=1e-4, atol=1e-4)
    assert {weight.device for weight in weights_of(pipe)} == placed
    assert model.decode(got, "pt").shape == (1, 3, 32, 32)


@needs_peft
def test_a_quantised_transformer_is_composed_and_takes_lora(tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    from diffusers import FluxPipeline, FluxTransformer2DModel, TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    tiny_flux().save_pretrained(tmp_path / "flux")
    transformer = FluxTransformer2DModel.from_pretrained(
        tmp_path / "flux/transformer", quantization_config=TorchAoConfig(Int8WeightOnlyConfig()),
        torch_dtype=torch.bfloat16,
    )  # fmt: skip
    pipe = FluxPipeline.from_pretrained(tmp_path / "flux", transformer=transformer, torch_dtype=torch.bfloat16)
    model = from_pipeline(pipe, **OPTIONS["flux"])
    full = energycomp.load(tmp_path / "flux", dtype="bfloat16", **OPTIONS["flux"])
    lora = model.with_lora(tiny_lora(pipe))
    for made, other in ((model, full), (lora, full.with_lora(tiny_lora(pipe)))):
        got, expected = (latents(both("a cat") & both("a dog")) for both in (made, other))
        assert 0 < float((got - expected).abs().max()) < 0.1 * float(expected.std())
    assert execution_device(transformer) == torch.device("cpu")


STEPS = 10


@pytest.fixture(scope="module")
def sd(pipe: Any) -> Model:
    return from_pipeline(pipe)


def halves(sd: Model, weight: float) -> Any:
    return regional([("left half", weight * sd("a")), ("right half", weight * sd("b"))])


@pytest.mark.parametrize(
    ("scene", "options", "per_step"),
    [
        (lambda sd: 5 * sd("a") & 5 * sd("b"), {}, 2 + 1),
        (lambda sd: sd("a") & sd("b") & ~sd("c"), {}, 3),  # u cancels
        (lambda sd: 5 * region("left half") * sd("a") & 5 * region("right half") * sd("b"), {}, 2 + 1),
        (lambda sd: sd("a"), {}, 1),
        (lambda sd: during(until=0.4) * sd("a") & during(from_=0.4) * sd("b"), {}, 1),
        (lambda sd: halves(sd, 5.0), {}, 0.7 * 2 * 2 + 0.3 * (2 + 1)),
        (lambda sd: halves(sd, 1.0), {}, 2),
        (lambda sd: per_sample([5 * sd("a") & 5 * sd("b"), sd("c")]), {}, 3 + 1),  # of two samples together
        *((lambda sd: sd("a") & sd("b"), {"guidance": name}, 2 + 1) for name in ("cfg", "apg", "rescale", "zero-star")),
        (lambda sd: sd("a"), {"guidance": "apg"}, 1 + 1),
    ],
)
def test_network_evaluations_of_a_step(
    sd: Model, scene: Callable[[Model], Any], options: dict[str, Any], per_step: float
) -> None:
    composer = Composer(scene(sd))
    with count_rows() as spent:
        composer.sample(num_inference_steps=STEPS, generator=0, output_type="latent", progress=False, **options)
    assert spent.rows == pytest.approx(STEPS * per_step)


def test_network_evaluations_of_the_background_of_regional(sd: Model) -> None:
    with count_rows() as spent:
        halves(sd, 1.0)
    assert spent.rows == 8
