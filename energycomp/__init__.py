"""Image models that are sums of energies: compose, decompose and understand images.

The public names are resolved at first use, so that importing energycomp imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from energycomp.component import Composition, Conditional, EnergyComponent, HasEnergy
    from energycomp.composer import Composer
    from energycomp.conditioning import Condition, Conditioner
    from energycomp.decomposition import Decomposer, DiffusionDecomposer, decompose, decomposer_of
    from energycomp.denoiser import Denoiser
    from energycomp.editing import Edit, edit
    from energycomp.hookspecs import hookimpl
    from energycomp.inference import Solution, Solver, infer
    from energycomp.model import Model
    from energycomp.noise import NoiseBank
    from energycomp.pretrained import load
    from energycomp.problem import Problem, Slot
    from energycomp.recipe import denoising_loss
    from energycomp.training import fit

__version__ = "0.1.0"

__all__ = [
    "Composer",
    "Composition",
    "Condition",
    "Conditional",
    "Conditioner",
    "Decomposer",
    "Denoiser",
    "DiffusionDecomposer",
    "Edit",
    "EnergyComponent",
    "HasEnergy",
    "Model",
    "NoiseBank",
    "Problem",
    "Slot",
    "Solution",
    "Solver",
    "__version__",
    "decompose",
    "decomposer_of",
    "denoising_loss",
    "edit",
    "fit",
    "hookimpl",
    "infer",
    "load",
]

_MODULES = {
    "Composer": "composer",
    "Composition": "component",
    "Condition": "conditioning",
    "Conditional": "component",
    "Conditioner": "conditioning",
    "Decomposer": "decomposition",
    "Denoiser": "denoiser",
    "DiffusionDecomposer": "decomposition",
    "Edit": "editing",
    "EnergyComponent": "component",
    "HasEnergy": "component",
    "Model": "model",
    "NoiseBank": "noise",
    "Problem": "problem",
    "Slot": "problem",
    "Solution": "inference",
    "Solver": "inference",
    "decompose": "decomposition",
    "decomposer_of": "decomposition",
    "denoising_loss": "recipe",
    "edit": "editing",
    "fit": "training",
    "hookimpl": "hookspecs",
    "infer": "inference",
    "load": "pretrained",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'energycomp' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"energycomp.{_MODULES[name]}"), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
