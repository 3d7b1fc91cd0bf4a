"""LoRA weights as models: each prompt is predicted by its own weights, and the base is as it was."""

import importlib.util
import json
import pickle
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import energycomp
from energycomp import Composer
from energycomp.denoisers import count_rows
from energycomp.errors import CompositionError, InputError, NotFoundError
from energycomp.inference import draw_bank
from energycomp.models import Model, execution_device
from energycomp.seeds import seeded
from energycomp_samplers import rank
from energycomp_text import from_pipeline
from energycomp_text.testing import OPTIONS, TINY, tiny_lora, tiny_pipeline, tiny_pixart, tiny_sd3, tiny_sdxl

TAKERS = tuple(name for name in TINY if name != "pixart")
needs_peft = pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="needs energycomp-text[lora]")


@pytest.fixture(scope="module")
def sdxl() -> Any:
    return tiny_sdxl()


def model_of(name: str, pipe: Any) -> Model:
    return from_pipeline(pipe, **OPTIONS[name])


def made(name: str) -> tuple[Any, Model]:
    """A pipeline of its own, which a test may change, and its model."""
    pipe = TINY[name]()
    return pipe, model_of(name, pipe)


@torch.no_grad()
def eps(component: Any, n: int = 1) -> Tensor:
    sample = torch.randn(1, 4, 16, 16, generator=seeded(0)).expand(n, -1, -1, -1)
    return Composer(component + 0).eps(sample, torch.full((n,), 500.0))


def refused(error: type[Exception], message: str, act: Callable[[], object]) -> None:
    with pytest.raises(error, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)


@needs_peft
@pytest.mark.parametrize("name", TAKERS)
def test_a_lora_is_that_of_the_pipeline_and_the_base_stays_as_it_was(name: str) -> None:
    pipe, other = TINY[name](), TINY[name]()
    base, encoder = model_of(name, pipe), name in ("sd", "sdxl")
    before, u = eps(base("a cat")), eps(base.unconditional)
    lora = base.with_lora(tiny_lora(pipe, seed=1, encoder=encoder), scale=0.7)
    other.load_lora_weights(tiny_lora(other, seed=1, encoder=encoder), adapter_name="own")
    other.set_adapters(["own"], [0.7])
    loaded = model_of(name, other)
    got = eps(lora("a cat"))
    torch.testing.assert_close(got, eps(loaded("a cat")), rtol=0, atol=1e-5)
    assert float((got - before).abs().max()) > 1e-2
    assert torch.equal(eps(base("a cat")), before)
    assert torch.equal(eps(base.unconditional), u)
    assert lora.unconditional is base.unconditional
    # the guidance of a pipeline with LoRA: its own empty prompt in place of u
    if name != "sdxl":  # whose unconditional row is zeros
        torch.testing.assert_close(eps(lora("")), eps(loaded.unconditional), rtol=0, atol=1e-5)


@needs_peft
@pytest.mark.parametrize("name", ["sd", "flux"])
def test_two_loras_compose_without_blending_weights(name: str) -> None:
    pipe, base = made(name)
    first = base.with_lora(tiny_lora(pipe, seed=1))
    second = base.with_lora(tiny_lora(pipe, seed=2), scale=0.5)
    a, b, plain, u = (eps(leaf) for leaf in (first("a cat"), second("a dog"), base("rain"), base.unconditional))
    with count_rows() as spent:
        got = eps(first("a cat") & second("a dog") & ~base("rain"))
    torch.testing.assert_close(got, a + b - plain, rtol=0, atol=1e-5)
    assert spent.rows == 3  # the three prompts; u cancels here
    with count_rows() as spent:
        both = eps(first("a cat") & second("a dog"), n=2)
    torch.testing.assert_close(both, (a + b - u).expand(2, -1, -1, -1), rtol=0, atol=1e-5)
    assert spent.rows == 2 * 3


@needs_peft
def test_loras_stack_on_one_prompt(sdxl: Any) -> None:
    base = model_of("sdxl", tiny_sdxl())
    first, second = (tiny_lora(sdxl, seed=seed) for seed in (1, 2))
    once, again = base.with_lora(first), base.with_lora(first, scale=0.0)
    assert float((eps(once.with_lora(second)("a cat")) - eps(once("a cat"))).abs().max()) > 1e-2
    torch.testing.assert_close(eps(again("a cat")), eps(base("a cat")), rtol=0, atol=1e-6)


@needs_peft
def test_lora_is_read_and_sampled(tmp_path: Path, sdxl: Any) -> None:
    tiny_sdxl().save_pretrained(tmp_path / "sdxl")
    save_file(tiny_lora(sdxl, seed=1), tmp_path / "pytorch_lora_weights.safetensors")
    base = energycomp.load(tmp_path / "sdxl")
    named = [base.with_lora(source) for source in (tmp_path / "pytorch_lora_weights.safetensors", str(tmp_path))]
    assert torch.equal(eps(named[0]("a cat")), eps(named[1]("a cat")))
    scene = 5.0 * named[0]("a cat") & 5.0 * base("a dog")
    images = Composer(scene).sample(2, num_inference_steps=2, generator=0, output_type="pt", progress=False)
    assert images.shape == (2, 3, 32, 32)
    assert named[0].encode(images * 2 - 1).shape == (2, 4, 16, 16)


@needs_peft
def test_two_components_of_one_lora_are_ranked() -> None:
    """The lift by its formula, of the predictions of each component alone."""
    pipe, base = made("sd")
    ink = base.with_lora(tiny_lora(pipe, seed=1))
    a, b, u = ink("a dog"), ink("a cat"), base.unconditional
    latents = torch.randn(1, 4, 16, 16, generator=seeded(3))
    ranking = rank(latents, a & b, model=ink, draws=4, generator=5)
    space, how = ink.denoiser.noised_space, {"timesteps": ink.defaults.timesteps, "gamma": ink.defaults.gamma}
    bank = draw_bank(4, space.sample_shape, space.alphas_cumprod, generator=5, **how)
    signal, noise = space.levels(bank.timestep)
    x = signal * latents + noise * bank.noise
    with torch.no_grad():
        one, other, null = (Composer(leaf + 0).eps(x, bank.timestep) for leaf in (a, b, u))
    whole = (bank.noise - (one + other - null)).square().sum((1, 2, 3))
    for k, rest in enumerate((other, one)):
        lift = bank.weight * ((bank.noise - rest).square().sum((1, 2, 3)) - whole)
        assert float(ranking.lift[0, k]) == pytest.approx(float(lift.mean()), rel=1e-3)
    refused(CompositionError, "leaves of several denoisers", lambda: rank(latents, a & base("a cat")))


@needs_peft
@pytest.mark.parametrize("name", ["sd", "flux"])
def test_loras_for_another_base(name: str) -> None:
    pipe = TINY[name]()
    base, other = model_of(name, pipe), tiny_sdxl() if name == "sd" else tiny_pipeline()
    before = eps(base("a cat"))
    message = "this .*Pipeline cannot load: .*; expected one that was trained on the same base"
    refused(InputError, message, lambda: base.with_lora(tiny_lora(other)))
    refused(InputError, "cannot load: .*expected [^b]*$", lambda: base.with_lora({"nothing": torch.zeros(2, 2)}))
    assert torch.equal(eps(base("a cat")), before)
    assert not torch.equal(eps(base.with_lora(tiny_lora(pipe))("a cat")), before)


@needs_peft
def test_the_scale_that_a_file_names_is_kept(sdxl: Any, tmp_path: Path) -> None:
    """As training scripts write it: all settings of peft, of which the weights say the rank only."""
    from peft import LoraConfig

    base, weights = model_of("sdxl", sdxl), tiny_lora(sdxl, seed=1)
    config = LoraConfig(
        r=2, lora_alpha=4, target_modules=["to_q", "to_v"], init_lora_weights="gaussian", lora_dropout=0.1
    ).to_dict()
    named = {f"unet.{name}": sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    save_file(weights, tmp_path / "x.safetensors", metadata={"lora_adapter_metadata": json.dumps(named)})
    got = eps(base.with_lora(tmp_path / "x.safetensors")("a cat"))
    torch.testing.assert_close(got, eps(base.with_lora(weights, scale=2.0)("a cat")), rtol=0, atol=1e-5)


class Evil:
    """Leaves a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("ran", "w")


@needs_peft
def test_files_that_are_pickles(sdxl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = model_of("sdxl", sdxl)
    for name, error, message in (
        ("own.safetensors", InputError, "deserializing header.*try it there"),
        ("own.bin", NotFoundError, "expected a safetensors file"),
        ("folder/pytorch_lora_weights.bin", NotFoundError, "with 0 safetensors files"),
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(pickle.dumps(Evil()))
        source = tmp_path / ("folder" if name.startswith("folder") else name)
        refused(error, message, lambda source=source: base.with_lora(source))
    assert not Path("ran").exists()


@needs_peft
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"megatron_config": {"a": 1}, "megatron_core": "own_classes"}, "the setting megatron_config"),
        ({"megatron_core": "own_classes"}, "the setting megatron_core 'own_classes'"),
        ({"init_lora_weights": "pissa"}, "the setting init_lora_weights 'pissa'"),
        ({"r": 10**9}, "the setting r 1000000000, which is not the rank"),
        ({"rank_pattern": {"to_q": 10**9}}, "the setting rank_pattern"),
        ({"rank_pattern": [1]}, "cannot load"),
    ],
)
def test_settings_that_a_file_may_not_have(
    sdxl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    """peft makes weights of the rank `r`, may import the module `megatron_core`, and with "pissa" changes the base."""
    base = model_of("sdxl", sdxl)
    (tmp_path / "own_classes.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    full = {f"unet.{name}": value for name, value in ({"r": 2, "target_modules": ["to_q", "to_v"]} | settings).items()}
    file = tmp_path / "own.safetensors"
    save_file(tiny_lora(sdxl), file, metadata={"lora_adapter_metadata": json.dumps(full)})
    refused(InputError, message, lambda: base.with_lora(file))
    assert not (tmp_path / "ran").exists()
    assert "own_classes" not in sys.modules


@needs_peft
def test_only_weights_that_do_not_fit_are_of_another_base(sdxl: Any) -> None:
    base, weights, plain = model_of("sdxl", sdxl), tiny_lora(sdxl, encoder=True), tiny_lora(sdxl)
    first = min(plain)
    ranks = {key: half.new_zeros(3, *half.shape[1:]) if "lora_A" in key else half for key, half in weights.items()}
    cases: dict[str, dict[str, Any]] = {
        r"halves of .*to_q have the shapes \(3, 16\) and \(16, 2\); expected what save_lora_weights writes": ranks,
        "lora_A.weight is not finite": plain | {first: torch.full_like(plain[first], float("nan"))},
        "lora_B.weight without its other half": {name: half for name, half in plain.items() if name != first},
        "it has no weights of the unet; expected some": {
            key: half for key, half in weights.items() if key.startswith("text_encoder")
        },
        "correctly renamed: lora_unet_.*; expected weights that load_lora_weights": {
            f"lora_unet_{key.replace('.', '_')}": half for key, half in plain.items()
        },
        "no attribute 'ndim'; expected weights that load_lora_weights": {"unet.x": 3},
        "it has no weights of the unet": {},
    }
    for message, given in cases.items():
        with pytest.raises(InputError, match=message) as caught:
            base.with_lora(given)
        assert "same base" not in str(caught.value)
        assert "\n" not in str(caught.value)
    missing = "of transformer, a part that the pipeline does not have; .*same base"
    refused(InputError, missing, lambda: base.with_lora(tiny_lora(tiny_sd3())))


def held(pipe: Any) -> dict[str, int]:
    """The weights of a pipeline by their names."""
    parts = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {f"{name}.{key}": len(value) for name, part in parts.items() for key, value in part.named_parameters()}


@needs_peft
@pytest.mark.parametrize("name", ["sd", "flux"])
def test_weights_go_with_the_last_model_that_has_them(name: str) -> None:
    pipe, base = made(name)
    before = held(pipe)
    expected = eps(base("a cat"))
    lora = base.with_lora(tiny_lora(pipe, encoder=name in ("sd", "sdxl")))
    both = lora.with_lora(tiny_lora(pipe, seed=1))
    with_one, leaf = len(held(pipe)), both("a cat")
    del both
    eps(leaf & base("a dog"))
    assert len(held(pipe)) == with_one  # a component needs them
    got = eps(lora("a cat"))
    del leaf
    assert len(before) < len(held(pipe)) < with_one
    assert torch.equal(eps(lora("a cat")), got)
    del lora
    assert held(pipe) == before
    assert torch.equal(eps(base("a cat")), expected)


@needs_peft
def test_weights_that_go_while_others_are_switched_on_are_removed_afterwards() -> None:
    pipe, base = made("sd")
    models = [base.with_lora(tiny_lora(pipe, seed=seed)) for seed in (1, 2)]
    leaf, expected, held_by_both = models[0]("a cat"), eps(models[0]("a cat")), len(held(pipe))
    hook = pipe.unet.register_forward_pre_hook(lambda *_: models.clear())
    assert torch.equal(eps(leaf), expected)
    hook.remove()
    assert models == []
    assert len(held(pipe)) < held_by_both


@needs_peft
def test_threads_see_their_own_weights() -> None:
    """Base, null rows, one LoRA and two in one sum, side by side: each 5 times the prediction that it has alone."""
    pipe, base = made("sd")
    ink, toy = (base.with_lora(tiny_lora(pipe, seed=seed, encoder=True)) for seed in (1, 2))
    a, c = ink("a dog"), toy("a cat")
    components = [base("a dog"), 5 * a & a.unconditional, c, 3 * a & 2 * base("a cat") & c]
    alone = [eps(component) for component in components]
    with ThreadPoolExecutor(4) as threads:
        found = [[threads.submit(eps, component) for _ in range(5)] for component in components]
    assert [sum(torch.equal(one.result(), own) for one in each) for each, own in zip(found, alone, strict=True)] == [
        5
    ] * 4


@needs_peft
def test_the_base_is_used_while_weights_are_loaded() -> None:
    """peft makes adapters active before it has their weights, which may then be anything, NaN included."""
    pipe = tiny_pipeline()
    base, weights = model_of("sd", pipe), [tiny_lora(pipe, seed=seed, encoder=True) for seed in range(4)]
    alone, done = eps(base("a dog")), Event()

    def work() -> list[bool]:
        same = []
        while not done.is_set():
            same.append(torch.equal(eps(base("a dog")), alone))
        return same

    with ThreadPoolExecutor(1) as thread:
        same = thread.submit(work)
        models = [base.with_lora(one) for one in weights]
        done.set()
    assert len(models) == 4
    assert same.result()
    assert all(same.result())


@needs_peft
def test_adapters_that_a_person_adds_fuses_or_disables() -> None:
    """Components with LoRA keep theirs; the base is what the pipeline is."""
    pipe, other = tiny_pipeline(), tiny_pipeline()
    ink = model_of("sd", pipe).with_lora(tiny_lora(pipe, seed=1))
    alone = eps(ink("a cat"))
    for one in (pipe, other):
        one.load_lora_weights(tiny_lora(one, seed=2), adapter_name="own")
    own = eps(model_of("sd", other)("a cat"))
    other.load_lora_weights(tiny_lora(other, seed=1), adapter_name="ink")
    other.set_adapters(["own", "ink"])
    both = eps(model_of("sd", other)("a cat"))
    for change, base, expected in (
        (lambda: None, own, both),
        (lambda: pipe.fuse_lora(adapter_names=["own"]), own, both),
        (pipe.unfuse_lora, own, both),
        (pipe.disable_lora, eps(model_of("sd", tiny_pipeline())("a cat")), alone),
    ):
        change()
        torch.testing.assert_close(eps(model_of("sd", pipe)("a cat")), base, rtol=0, atol=1e-5)
        torch.testing.assert_close(eps(ink("a cat")), expected, rtol=0, atol=1e-5)
    pipe.unload_lora_weights()
    refused(InputError, "a component with 1 LoRA that its pipeline no longer has", lambda: eps(ink("a cat")))


@needs_peft
def test_refused_weights_leave_nothing_behind() -> None:
    pipe = tiny_sdxl()
    base, before, weights = model_of("sdxl", pipe), held(pipe), tiny_lora(pipe, encoder=True)
    encoder = {key: half for key, half in weights.items() if key.startswith("text_encoder")}
    refused(InputError, "no weights of the unet", lambda: base.with_lora(encoder))
    assert held(pipe) == before
    pipe.load_lora_weights(weights, adapter_name="own")
    before = held(pipe)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(InputError, "no weights of the unet", lambda: base.with_lora(encoder))
    assert held(pipe) == before
    assert pipe.get_active_adapters() == ["own"]


@needs_peft
def test_lora_of_a_pipeline_that_is_offloaded() -> None:
    """diffusers takes the hooks away to load, and would set new ones for the accelerator that it finds."""
    pytest.importorskip("accelerate")
    pipe, other = tiny_sdxl(), tiny_sdxl()
    expected = eps(model_of("sdxl", other).with_lora(tiny_lora(other))("a cat"))
    pipe.enable_model_cpu_offload(device="cpu")
    base = model_of("sdxl", pipe)
    lora = base.with_lora(tiny_lora(pipe))
    assert execution_device(pipe.unet) == torch.device("cpu", 0)
    torch.testing.assert_close(eps(lora("a cat")), expected)
    assert "enable_model_cpu_offload" not in vars(pipe)


@needs_peft
def test_models_are_called_by_their_weights(sdxl: Any, tmp_path: Path) -> None:
    base, folder = model_of("sdxl", sdxl), tmp_path / "toy lora"
    folder.mkdir()
    save_file(tiny_lora(sdxl), tmp_path / "ink.safetensors")
    save_file(tiny_lora(sdxl), folder / "pytorch_lora_weights.safetensors")
    ink, toy = base.with_lora(tmp_path / "ink.safetensors"), base.with_lora(folder)
    assert repr(ink("a dog") & toy("a cat")) == f"-u + {base.name}+ink(a dog) + {base.name}+toy_lora(a cat)"
    assert ink.with_lora(tiny_lora(sdxl)).name == f"{base.name}+ink+lora"
    assert base.with_lora(folder / "pytorch_lora_weights.safetensors").name == toy.name


def test_models_that_take_none_and_files_that_are_missing(
    sdxl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, pixart = model_of("sdxl", sdxl), from_pipeline(tiny_pixart(), max_sequence_length=8)
    weights = tiny_lora(sdxl)
    refused(InputError, "got LoRA weights for text; expected a pipeline", lambda: pixart.with_lora(tmp_path))
    refused(InputError, "expected a pipeline of diffusers", lambda: energycomp.load("text").with_lora(tmp_path))
    refused(InputError, "scale 'much'; expected a number", lambda: base.with_lora(tmp_path, scale="much"))
    monkeypatch.setattr("energycomp_text.lora.find_spec", lambda _: object())
    refused(NotFoundError, "with 0 safetensors files", lambda: base.with_lora(tmp_path))
    refused(NotFoundError, "expected a safetensors file", lambda: base.with_lora(tmp_path / "none.safetensors"))
    monkeypatch.setattr("energycomp_text.lora.find_spec", lambda _: None)
    refused(NotFoundError, r"pip install 'energycomp-text\[lora\]'", lambda: base.with_lora(weights))
