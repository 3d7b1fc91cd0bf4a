"""Families of text-to-image pipelines: one file for each, over what diffusers has."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from energycomp.plugins import Imported
from energycomp_text.families.family import Family, Opened, Settings
from energycomp_text.families.prompted import Prompted

__all__ = ["GROUP", "KNOWN", "Family", "Opened", "Prompted", "Settings", "families"]

GROUP = (
    "energycomp_text.families"  # entry points of other packages: the class of a pipeline = "package.module:function"
)
KNOWN: dict[str, Callable[[], Family]] = {
    "FluxPipeline": Imported("energycomp_text.families.flux:family"),
    "PixArtSigmaPipeline": Imported("energycomp_text.families.pixart:family"),
    "StableDiffusion3Pipeline": Imported("energycomp_text.families.sd3:family"),
    "StableDiffusionPipeline": Imported("energycomp_text.families.sd:family"),
    "StableDiffusionXLPipeline": Imported("energycomp_text.families.sdxl:family"),
    "ZImagePipeline": Imported("energycomp_text.families.zimage:family"),
}


def families() -> dict[str, Callable[[], Family]]:
    """What makes each family, by the class of its pipeline: those of this package, of entry points, and of a script.

    >>> sorted(families())[0], families()["FluxPipeline"]().network
    ('FluxPipeline', 'transformer')
    """
    return {**{point.name: Imported(point.value) for point in entry_points(group=GROUP)}, **KNOWN}
