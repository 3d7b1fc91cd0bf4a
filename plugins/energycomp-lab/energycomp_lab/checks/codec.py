"""The conformance checks of what stands between a person's data and a network: codecs and processors."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch

from energycomp.denoisers import Codec
from energycomp.models import Processor
from energycomp_lab.checks.expect import expect, expect_close, expect_refusal, expect_tensor

TOLERANCE = 1e-3  # of the greatest number of a batch, beside single samples


@torch.no_grad()
def check_codec(codec: Codec, *, factory: Callable[..., Any] | None = None) -> None:
    """Checks a codec on random latents: what it decodes is finite, the same batched and alone, and encoded again.

    Args:
        factory: what a config calls; it must make the same codec of `config()`.

    >>> from energycomp.models import NumberProcessor
    >>> check_codec(NumberProcessor((2,), [1.0, 2.0], [3.0, 4.0]), factory=NumberProcessor)
    """
    name = type(codec).__name__
    shape = tuple(codec.latent_shape)
    latents = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    data = codec.decode(latents)
    expect(len(data) == 3, f"{len(data)} samples that {name} decodes of 3", "3", "keep the first axis")
    expect_tensor(data, tuple(data.shape), f"what {name} decodes", "check what is divided")
    looped = torch.cat([codec.decode(one) for one in latents.split(1)])
    expect_close(data, looped, TOLERANCE, "what a batch is decoded to", "that of its samples one by one")
    expect_tensor(codec.encode(data), (3, *shape), f"latents of {name}", "encode to `latent_shape`")
    again = _rebuild(codec, factory)
    if again is not None:
        same = (again.identity, tuple(again.latent_shape)) == (codec.identity, shape)
        expect(same, f"another codec of {name}(**config())", "the same identity and latents", "complete its config")


def check_processor(processor: Processor, *, factory: Callable[..., Any] | None = None) -> None:
    """Checks a processor: it refuses what it cannot read, takes what it made, and is made again of its config.

    >>> from energycomp.images import ImageProcessor
    >>> check_processor(ImageProcessor(size=(8, 8)), factory=ImageProcessor)
    """
    name = type(processor).__name__
    shape = tuple(processor.sample_shape)
    expect_refusal(f"{name} of an object", processor, object())
    expect_tensor(processor(torch.zeros(2, *shape)), (2, *shape), f"what {name} makes of zeros", "take its own samples")
    again = _rebuild(processor, factory)
    if again is not None:
        same = tuple(again.sample_shape) == shape and again.bounded == processor.bounded
        expect(same, f"another processor of {name}(**config())", "the same samples", "complete its config")


def _rebuild(part: Any, factory: Callable[..., Any] | None) -> Any:
    """Calls the factory with the config as JSON; None without a factory."""
    name = type(part).__name__
    hint = "add the name under which a plugin registers it, and its arguments"
    is_named = hasattr(part, "registered_name") and hasattr(part, "config")
    expect(is_named, f"a {name} without registered_name or config()", "both", hint)
    config = json.loads(json.dumps(part.config()))
    return None if factory is None else factory(**config)
