"""Sampling and reading on a device without float64, as Apple's is: the CPU plays it."""

from __future__ import annotations

from typing import Any, Self

import attrs
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from energycomp import Composer, infer
from energycomp.components import precision
from energycomp.models import Model
from energycomp.testing import bumps_model, planted, tiny_model

DEVICE = torch.device("meta")  # a name that every build of torch takes
MOVES = ("copy", "index")  # operations that take tensors of the CPU beside those of a device


class Elsewhere(Tensor):
    """A tensor of that device; `inner` has its numbers.

    Raises:
        TypeError: numbers in float64.
    """

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Self:  # noqa: ANN001
        if inner.dtype in (torch.float64, torch.complex128):
            raise TypeError(f"got {inner.dtype}, which this device does not support")
        made: Elsewhere = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=DEVICE, requires_grad=inner.requires_grad,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Elsewhere({self.inner!r})"

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_as_tensors(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_as_tensors(index), value)

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        """torch makes this one outside of its dispatcher."""
        return Elsewhere(self.inner.new_tensor(data, **options))

    def tolist(self) -> Any:
        """Its numbers."""
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class Device(TorchDispatchMode):
    """While it is on, the device is there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def move(module: nn.Module) -> None:
    """Puts the weights of a network on that device."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = nn.Parameter(Elsewhere(weight.detach()), requires_grad=False)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = Elsewhere(buffer)


def _as_tensors(index: Any) -> Any:
    """An index without lists, whose tensors torch would put on the device unseen."""
    if isinstance(index, list):
        return torch.tensor(index, dtype=None if index else torch.long)
    return tuple(map(_as_tensors, index)) if isinstance(index, tuple) else index


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """An operation on the CPU, whose result is elsewhere where one of its tensors, or the device that is asked, is."""
    tensors = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
    is_here = [isinstance(one, Elsewhere) for one in tensors]
    asked = kwargs.get("device")
    stays = any(is_here) if asked is None else torch.device(asked) == DEVICE
    others = [one for one, here in zip(tensors, is_here, strict=True) if not here and one.ndim]
    if any(is_here) and others and not any(word in str(func) for word in MOVES):
        raise RuntimeError(f"got tensors of two devices for {func}")
    given = {**kwargs, "device": torch.device("cpu")} if asked is not None and stays else kwargs
    args_inside, inside = tree_map(lambda one: one.inner if isinstance(one, Elsewhere) else one, (args, given))
    result = func(*args_inside, **inside)
    if func._schema.name.endswith("_") and not func._schema.name.endswith("__"):
        return args[0]  # in place
    return tree_map(lambda one: Elsewhere(one) if isinstance(one, Tensor) else one, result) if stays else result


@pytest.fixture(autouse=True)
def no_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "NO_FLOAT64", {"mps", DEVICE.type})


def moved(model: Model) -> Model:
    move(model.denoiser.network)
    schedule = Elsewhere(model.denoiser.alphas_cumprod)
    return attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, alphas_cumprod=schedule))


def test_the_device_refuses_what_apples_does() -> None:
    with Device():
        there = torch.ones(3).to(DEVICE)
    assert (there + 1).tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(TypeError, match="float64"):
        there.double()
    with pytest.raises(RuntimeError, match="two devices"):
        there + torch.ones(3)


@pytest.mark.parametrize("options", [
    {"guidance_scale": 2.0}, {"scheduler": "DDPMScheduler"}, {"scheduler": "EulerDiscreteScheduler"},
], ids=str)  # fmt: skip
def test_samples_are_those_of_the_cpu(options: dict[str, Any]) -> None:
    options = {**options, "generator": 0, "num_inference_steps": 3, "progress": False, "output_type": "latent"}
    here = tiny_model()
    there = moved(tiny_model())
    expected = Composer(here(0.3, 0.4) & here(0.7, 0.6)).sample(**options)
    with Device(), torch.no_grad():
        drawn = Composer(there(0.3, 0.4) & there(0.7, 0.6)).sample(**options)
    assert isinstance(drawn, Elsewhere)
    torch.testing.assert_close(drawn.inner, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("solver", ["enumerate", "pursuit", "beam"])
def test_answers_are_those_of_the_cpu(solver: str) -> None:
    places = torch.tensor([[0.2, 0.3], [0.7, 0.8], [0.5, 0.5]])
    image = planted(bumps_model(), places[:2]) / 2 + 0.5
    options: dict[str, Any] = {"solver": solver, "candidates": places, "generator": 0, "progress": False, "count": 2}
    here = infer(image, bumps_model(beta=1.0), **options)
    there_model = moved(bumps_model(beta=1.0))
    with Device(), torch.no_grad():
        there = infer(image, there_model, **options)
    assert there.conditions.tolist() == here.conditions.tolist() == places[:2].tolist()
    assert there.rows == here.rows


@pytest.mark.parametrize("sampler", ["smc", "gauss", "hmc", "mala", "rejection"])
def test_particles_are_those_of_the_cpu(sampler: str) -> None:
    options: dict[str, Any] = {
        "n": 4, "sampler": sampler, "generator": 0, "num_inference_steps": 4, "progress": False, "output_type": "pt",
    }  # fmt: skip
    here, there = tiny_model(), moved(tiny_model())
    expected = Composer(here(0.3, 0.4) + here(0.7, 0.6)).sample(**options)
    with Device(), torch.no_grad():
        drawn = Composer(there(0.3, 0.4) + there(0.7, 0.6)).sample(**options)
    assert isinstance(drawn, Elsewhere)
    torch.testing.assert_close(drawn.inner, expected, atol=1e-4, rtol=1e-4)
