"""`AutoencoderDC` of diffusers without the mixins that a codec does not use, whose imports take seconds.

Its module imports the loaders of single files and of LoRA, and the attention of Sana. These import the hooks of
diffusers, torch's compiler, scipy.stats, and peft where it is installed, which takes seconds. Here the same file is
executed without these lines: the same layers, weights and sums, for blocks of the kind `ResBlock`. Where diffusers has
changed the file, importing this module raises `ImportError`, `NameError` or `OSError`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.utils import BaseOutput

PACKAGE = "diffusers.models.autoencoders"
LEFT_OUT = r"^from (?:\.\.\.loaders|\.\.transformers\.sana_transformer|\.vae) import .*$"


@dataclass
class EncoderOutput(BaseOutput):  # type: ignore[misc]
    latent: torch.Tensor


@dataclass
class DecoderOutput(BaseOutput):  # type: ignore[misc]
    sample: torch.Tensor


def _executed() -> dict[str, Any]:
    """The names of the file; its classes are of this module, so that they can be pickled."""
    file = Path(diffusers.__path__[0], "models", "autoencoders", "autoencoder_dc.py")
    source = re.sub(LEFT_OUT, "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: dict[str, Any] = {
        "__name__": __name__,
        "__package__": PACKAGE,
        "FromOriginalModelMixin": type("FromOriginalModelMixin", (), {}),
        "AutoencoderMixin": type("AutoencoderMixin", (), {}),
        "EncoderOutput": EncoderOutput,
        "DecoderOutput": DecoderOutput,
    }
    exec(compile(source, str(file), "exec"), found)  # noqa: S102 - an installed file, as an import executes it
    return {name: value for name, value in found.items() if getattr(value, "__module__", None) == __name__}


globals().update(_executed())
AutoencoderDC: Any = globals()["AutoencoderDC"]
