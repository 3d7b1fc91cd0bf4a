"""The included models of marked photos: blood cells through a microscope, and dice on a tray."""

from __future__ import annotations

from energycomp.errors import InputError
from energycomp.models import Model, shipped


def cells(*, preset: str = "default", pretrained: bool = True) -> Model:
    """Red cells, white cells and platelets: `cells("WBC at 0.4,0.5 size 0.3x0.3")` is a component for a white cell.

    Raises:
        InputError: another preset, or no weights: `energycomp train objects` trains on marked photos.

    >>> cells().conditioner.attributes
    {'category': ('Platelets', 'RBC', 'WBC')}
    """
    return _shipped("cells", preset, pretrained)


def dice(*, preset: str = "default", pretrained: bool = True) -> Model:
    """Dice by the number on top: `dice("six at 0.4,0.5")` is a component for a die that shows six.

    Raises:
        InputError: another preset, or no weights: `energycomp train objects` trains on marked photos.

    >>> dice().conditioner.attributes
    {'category': ('five', 'four', 'one', 'six', 'three', 'two')}
    """
    return _shipped("dice", preset, pretrained)


def _shipped(name: str, preset: str, pretrained: bool) -> Model:
    if preset != "default" or not pretrained:
        raise InputError(
            f"got preset {preset!r} and pretrained={pretrained}; expected default with its weights; a new model is "
            "trained on photos: energycomp train objects --data FOLDER"
        )
    return shipped("energycomp_objects", name)
