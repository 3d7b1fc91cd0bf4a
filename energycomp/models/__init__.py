"""What is loaded: a model with its defaults, its codec, and its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from energycomp.imports import first_use

if TYPE_CHECKING:
    from energycomp.models.codec import VAECodec as VAECodec
    from energycomp.models.defaults import (
        TAILS as TAILS,
        Calibration as Calibration,
        Defaults as Defaults,
        background_error as background_error,
        calibration_of as calibration_of,
        log_errors as log_errors,
    )
    from energycomp.models.given import (
        checked_model as checked_model,
        from_pretrained as from_pretrained,
        load as load,
        model_of as model_of,
        push_to_hub as push_to_hub,
        save_pretrained as save_pretrained,
        shipped as shipped,
        shipped_defaults as shipped_defaults,
    )
    from energycomp.models.hub import HubSource as HubSource, is_folder as is_folder, is_hub_id as is_hub_id
    from energycomp.models.model import Adapt as Adapt, Model as Model
    from energycomp.models.model_card import pipeline_tag as pipeline_tag, plain_card as plain_card
    from energycomp.models.numbers import NumberProcessor as NumberProcessor
    from energycomp.models.offloaded import execution_device as execution_device
    from energycomp.models.parts import Processor as Processor
    from energycomp.models.sources import check_device as check_device, dtype_of as dtype_of
    from energycomp.models.weights import load_weights as load_weights, on_meta as on_meta, read_weights as read_weights

__getattr__, __all__ = first_use(__name__, __file__)
