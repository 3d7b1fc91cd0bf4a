"""The included models of marked photos: blood cells through a microscope, and dice on a tray."""

from __future__ import annotations

import attrs

from energycomp.errors import InputError
from energycomp.models import Model, shipped
from energycomp_objects.network import PlacedUNet


def cells(*, preset: str = "default", pretrained: bool = True) -> Model:
    """Red cells, white cells and platelets: `cells("WBC at 0.4,0.5 size 0.3x0.3")` is a component for a white cell.

    Args:
        pretrained: with the included weights, or with random ones.

    Raises:
        InputError: another preset.

    >>> cells().conditioner.attributes
    {'category': ('Platelets', 'RBC', 'WBC')}
    """
    return _load("cells", preset, pretrained)


def dice(*, preset: str = "default", pretrained: bool = True) -> Model:
    """Dice by the number on top: `dice("six at 0.4,0.5")` is a component for a die that shows six.

    Args:
        pretrained: with the included weights, or with random ones.

    Raises:
        InputError: another preset.

    >>> dice().conditioner.attributes
    {'category': ('five', 'four', 'one', 'six', 'three', 'two')}
    """
    return _load("dice", preset, pretrained)


def _load(name: str, preset: str, pretrained: bool) -> Model:
    if preset != "default":
        raise InputError(
            f"got preset {preset!r}; expected default, the only one; another size is trained on photos: energycomp "
            "train objects --data FOLDER --option pixels=16"
        )
    model = shipped("energycomp_objects", name)
    if pretrained:
        return model
    trained = model.denoiser.network
    assert isinstance(trained, PlacedUNet)  # noqa: S101 - the folder is of this package
    network = PlacedUNet(**{**trained.config, "odds": (0.0, 1.0, 0.0), "spread": 0.0})
    return attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, network=network))
