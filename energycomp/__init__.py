"""Image models that are sums of energies: compose, decompose and understand images.

The public names are resolved at first use, so that importing energycomp imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use

if TYPE_CHECKING:
    from energycomp.components import (
        Composable,
        Composition,
        Condition,
        Conditioner,
        EnergyComponent,
        HasEnergy,
        during,
        match_snr,
        ramp,
        region,
    )
    from energycomp.decomposition import Decomposer, DiffusionDecomposer, decompose, decomposer_of
    from energycomp.denoisers import Conditional, Denoiser
    from energycomp.editing.edit import Edit, edit
    from energycomp.inference import (
        BestSamples,
        NoiseBank,
        Problem,
        Ranking,
        Slot,
        Solution,
        Solver,
        rank,
        sample_best,
    )
    from energycomp.inference.infer import infer
    from energycomp.models import Model, load
    from energycomp.plugins import hookimpl
    from energycomp.sampling import Composer
    from energycomp.training import denoising_loss
    from energycomp.training.fit import fit

__version__ = "0.2.0"

_NAMES = {
    "components": (
        "Composable",
        "Composition",
        "Condition",
        "Conditioner",
        "EnergyComponent",
        "HasEnergy",
        "during",
        "match_snr",
        "ramp",
        "region",
    ),
    "decomposition": ("Decomposer", "DiffusionDecomposer", "decompose", "decomposer_of"),
    "denoisers": ("Conditional", "Denoiser"),
    "editing": ("Edit", "edit"),
    "inference": (
        "BestSamples",
        "NoiseBank",
        "Problem",
        "Ranking",
        "Slot",
        "Solution",
        "Solver",
        "infer",
        "rank",
        "sample_best",
    ),
    "models": ("Model", "load"),
    "plugins": ("hookimpl",),
    "sampling": ("Composer",),
    "training": ("denoising_loss", "fit"),
}

# Written out, since type checkers do not run code: a name that is missing here counts as private.
__all__ = [
    "BestSamples",
    "Composable",
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
    "Ranking",
    "Slot",
    "Solution",
    "Solver",
    "__version__",
    "decompose",
    "decomposer_of",
    "denoising_loss",
    "during",
    "edit",
    "fit",
    "hookimpl",
    "infer",
    "load",
    "match_snr",
    "ramp",
    "rank",
    "region",
    "sample_best",
]


__getattr__ = first_use(__name__, _NAMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
