"""Network and conditioner of a pipeline, by the functions of its family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from energycomp.components import Condition, flow_time
from energycomp.errors import InputError
from energycomp.models import execution_device
from energycomp_text.encoders import HubTokenizer
from energycomp_text.families.family import Opened, Settings
from energycomp_text.text import Text

MOST_CHARACTERS = 2048  # of a prompt
PIPELINE_BATCH = 8  # prompts that the encoders of a pipeline, such as T5, encode at once


@attrs.frozen(eq=False)
class Characters:
    """Prompts as the numbers of their characters, whatever the tokenizers of a pipeline make of them.

    >>> from energycomp_text.testing import tiny_tokenizer
    >>> characters = Characters(tiny_tokenizer(), 32)
    >>> characters.text(characters("a cat"))
    'a cat'
    """

    tokenizer: Any
    tokens: int
    length: int = MOST_CHARACTERS
    size: int = 0x110000

    def __attrs_post_init__(self) -> None:
        HubTokenizer(self.tokenizer, self.tokens)  # refuses an empty vocabulary

    def __call__(self, text: str) -> Tensor:
        """Numbers (L,) of a text with padding; raises `InputError` if it has too many tokens."""
        tokens = len(self.tokenizer(text)["input_ids"])
        if len(text) > self.length:
            raise InputError(
                f"got a prompt of {len(text)} characters, {text[:60]!r}...; expected at most {self.length}; shorten "
                "it, or compose several prompts with &"
            )
        if tokens > self.tokens:
            raise InputError(
                f"got a prompt of {tokens} tokens, {text[:60]!r}...; expected at most {self.tokens}; shorten it, or "
                "compose several prompts with &"
            )
        return torch.tensor([*map(ord, text), *[0] * (self.length - len(text))])

    def mask(self, ids: Tensor) -> Tensor:
        return ids != 0

    def text(self, ids: Tensor) -> str:
        return "".join(map(chr, ids[ids != 0].tolist()))


Encode = Callable[[Any, list[str], Settings], Condition]
"""`encode(pipe, prompts, settings)`: one condition row for each prompt, by the `encode_prompt` of the pipeline."""

Predict = Callable[[Any, Tensor, Tensor, Condition, Settings], Tensor]
"""`predict(pipe, sample, timestep, condition, settings)`: predictions (R, C, h, w) for latents (R, C, h, w).

`timestep` (R,) is what the scheduler of the pipeline calls so: for a flow, the noise level times 1000.
"""


@attrs.frozen(eq=False)
class Prompted:
    """Makes the network and the conditioner of a pipeline, of two functions of its family.

    Args:
        encode: prompts to condition rows.
        predict: calls the network.
        token_shape: (L, D) of a condition row, `token_shape(pipe, settings)`.
        null: the unconditional row, `null(pipe, settings)`; that of the empty prompt when left out.
        tokenizer: the part that says how long a prompt may be; "tokenizer" where a pipeline lacks it.
    """

    encode: Encode
    predict: Predict
    token_shape: Callable[[Any, Settings], tuple[int, int]]
    null: Callable[[Any, Settings], Condition] | None = None
    tokenizer: str = "tokenizer"

    def __call__(self, opened: Opened) -> tuple[nn.Module, Text]:
        pipe = opened.pipe
        settings = opened.settings
        own = getattr(pipe, self.tokenizer, None)
        tokenizer, length = (pipe.tokenizer, None) if own is None else (own, settings.length)
        characters = Characters(tokenizer, length or int(tokenizer.model_max_length))
        encoder = PromptEncoder(opened, self, characters)
        shape = self.token_shape(pipe, settings)
        text = Text(
            tokenizer=characters, encoder=encoder, width=shape[1], row_shape=shape, owned=False,
            settings={"source": opened.source}, **opened.words,
        )  # fmt: skip
        return PipelineNetwork(opened, self, encoder.null), text


def device_of(network: nn.Module) -> torch.device:
    """Where a network computes."""
    return execution_device(network) or next(network.parameters()).device


def check_precision(network: Any) -> None:
    """Raises `InputError` for a network in float16 on the CPU, where it is slow and overflows."""
    if network.dtype == torch.float16 and device_of(network).type == "cpu":
        raise InputError(
            "got a pipeline in float16 on the CPU; expected bfloat16 or float32 there; load it with dtype='bfloat16', "
            "or move it to an accelerator"
        )


class PromptEncoder(nn.Module):
    """Prompts to condition rows by the text encoders of a pipeline, which stay the pipeline's own."""

    def __init__(self, opened: Opened, own: Prompted, characters: Characters) -> None:
        super().__init__()
        self.opened = opened
        self.own = own
        self.characters = characters

    def forward(self, ids: Tensor, mask: Tensor) -> Condition:  # noqa: ARG002 - the zeros of a value say the same
        """Numbers (R, L) of characters to R rows."""
        prompts = [self.characters.text(row) for row in ids.cpu()]
        self._move(ids.device)
        check_precision(self.opened.network)
        batches = (prompts[start : start + PIPELINE_BATCH] for start in range(0, len(prompts), PIPELINE_BATCH))
        parts = [self.own.encode(self.opened.pipe, batch, self.opened.settings) for batch in batches]
        return Condition.cat(parts).to(ids.device)

    @torch.no_grad()
    def null(self) -> Condition:
        pipe = self.opened.pipe
        settings = self.opened.settings
        self._move(device_of(self.opened.network))
        return self.own.encode(pipe, [""], settings) if self.own.null is None else self.own.null(pipe, settings)

    def _move(self, device: torch.device) -> None:
        """Brings the text encoders to a device, unless the pipeline decides where they are."""
        for name, part in self.opened.pipe.components.items():
            if name.startswith("text_encoder") and part is not None and execution_device(part) is None:
                part.to(device)


class PipelineNetwork(nn.Module):
    """The network of a pipeline over condition rows. It is called as the pipeline calls it.

    Args:
        null: makes the unconditional row, when it is first needed.
    """

    casts_samples = True

    def __init__(self, opened: Opened, own: Prompted, null: Callable[[], Condition]) -> None:
        super().__init__()
        self.part: Any = opened.network.eval().requires_grad_(requires_grad=False)
        self.opened = opened
        self.own = own
        self._make_null = null
        self._null: Condition | None = None

    @property
    def device(self) -> torch.device:
        return device_of(self.part)

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Predictions (R, C, h, w), on the device of the samples."""
        check_precision(self.part)
        own = self.part.dtype if self.part.dtype.is_floating_point else sample.dtype
        condition = condition.to(dtype=own)
        if bool(condition.null.any()):
            condition = condition.filled(self._null_row())
        time = self.scheduler_time(timestep)
        settings = self.opened.settings
        return self.own.predict(self.opened.pipe, sample.to(own), time, condition, settings).to(sample.device)

    def scheduler_time(self, timestep: Tensor) -> Tensor:
        """Timesteps (R,) of the noise schedule as the scheduler of the pipeline counts them: T times a flow's level."""
        if not self.opened.family.flow:
            return timestep
        schedule = self.opened.alphas_cumprod
        return (len(schedule) * flow_time(schedule, timestep)).to(timestep.dtype)

    def _null_row(self) -> Condition:
        if self._null is None:
            self._null = self._make_null()
        return self._null
