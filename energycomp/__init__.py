"""Image models that are sums of energies: compose, decompose and understand images.

The names below are resolved at first use, so that importing energycomp imports no torch.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from energycomp.imports import first_use

if TYPE_CHECKING:
    from energycomp.components import (
        Composable as Composable,
        Composition as Composition,
        Condition as Condition,
        Conditioner as Conditioner,
        EnergyComponent as EnergyComponent,
        HasEnergy as HasEnergy,
        crop as crop,
        during as during,
        frames as frames,
        items as items,
        on as on,
        ramp as ramp,
        region as region,
        window as window,
    )
    from energycomp.components.match_snr import match_snr as match_snr
    from energycomp.components.per_sample import per_sample as per_sample
    from energycomp.decomposition import (
        Decomposer as Decomposer,
        decompose as decompose,
        decomposer_of as decomposer_of,
    )
    from energycomp.denoisers import Conditional as Conditional, Denoiser as Denoiser
    from energycomp.inference import (
        NoiseBank as NoiseBank,
        Problem as Problem,
        Slot as Slot,
        Solution as Solution,
        Solver as Solver,
    )
    from energycomp.inference.infer import infer as infer
    from energycomp.models import Model as Model, load as load
    from energycomp.plugins import hookimpl as hookimpl, list_models as list_models
    from energycomp.sampling import Composer as Composer

__version__ = "0.2.0"


def _homes_of(name: str) -> tuple[str, ...]:
    """The plugins that have a name, which are imported only once it is asked for."""
    from energycomp.plugins import homes_of

    return homes_of(name)


__getattr__, __all__ = first_use(__name__, __file__, homes_of=_homes_of)


def __dir__() -> list[str]:
    own = {name for name, value in globals().items() if name.startswith("__") or isinstance(value, ModuleType)}
    return sorted(own.union(__all__))
