"""The hub: push, cards, revisions, the cache, and every failure as one line, against a stand-in of its HTTP API."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import huggingface_hub
import pytest
import torch
from huggingface_hub import ModelCard

import energycomp
from energycomp import Model
from energycomp.errors import CheckpointError, HubError, InputError, NotFoundError
from energycomp.models import from_pretrained, save_pretrained
from energycomp_lab.evaluation import Result, card
from energycomp_lab.training import FitConfig, fit
from energycomp_lab.training.resume import copy_checkpoints

sys.path.insert(0, str(Path(__file__).parent))
from hub_stand_in import TOKEN, Hub, serve

PAGE = Path(__file__).parents[2] / "docs" / "share.md"
Run = Callable[..., tuple[int, str, str]]
FILES = ["README.md", "config.json", "manifest.json", "model.safetensors"]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The client reads its settings from the environment when it is imported, so they are set in its module, too."""
    with serve() as served:
        constants: dict[str, Any] = {
            "ENDPOINT": served.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": served.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no token"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_TELEMETRY": True,
        }
        for name, value in constants.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield served


def same(one: Model, other: Model) -> bool:
    pair = (one.denoiser.network.state_dict(), other.denoiser.network.state_dict())
    return pair[0].keys() == pair[1].keys() and all(torch.equal(pair[0][name], pair[1][name]) for name in pair[0])


@pytest.fixture
def pushed(hub: Hub, model: Model) -> Hub:
    """The hub with the model as me/tiny."""
    model.push_to_hub("me/tiny", token=TOKEN)
    return hub


def test_push_edit_the_card_and_load(hub: Hub, model: Model) -> None:
    url = model.push_to_hub("me/tiny", token=TOKEN, private=True, commit_message="First")
    assert re.fullmatch(f"{hub.url}/me/tiny/commit/[0-9a-f]{{40}}", url)
    assert sorted(hub.files("me/tiny") or {}) == FILES
    assert "me/tiny" in hub.private
    shown = ModelCard((hub.files("me/tiny") or {})["README.md"].decode())
    assert shown.data.library_name == "energycomp"
    assert 'energycomp.load("me/tiny")' in shown.content

    hub.commit("me/tiny", "main", {"README.md": b"# Mine", ".gitattributes": b"* text", "notes.txt": b"new"})
    assert same(energycomp.load("me/tiny", token=TOKEN), model)
    model.push_to_hub("me/tiny", token=TOKEN)
    assert (hub.files("me/tiny") or {})["README.md"] == b"# Mine"


def test_a_subfolder_of_a_repository(pushed: Hub, model: Model) -> None:
    files = {f"small/{name}": content for name, content in (pushed.files("me/tiny") or {}).items()}
    pushed.commit("me/tiny", "main", files)
    assert same(energycomp.load("me/tiny", subfolder="small"), model)
    with pytest.raises(NotFoundError, match=r"without manifest\.json"):
        energycomp.load("me/tiny", subfolder="large")


def test_revisions(pushed: Hub, model: Model) -> None:
    first, other = pushed.branches["me/tiny"]["main"], attrs.evolve(model, name="other")
    other.push_to_hub("me/tiny", token=TOKEN, revision="v2")
    other.push_to_hub("me/tiny", token=TOKEN)
    assert energycomp.load("me/tiny").name == energycomp.load("me/tiny@v2").name == "other"
    assert Model.from_pretrained("me/tiny", revision=first).name == model.name
    for source, revision, error, said in (
        ("me/tiny", "v3", NotFoundError, r"got 'me/tiny@v3', .* \(no such revision\)"),
        ("me/tiny@v2", "v3", InputError, "expected one of them"),
        ("./tiny", "v2", InputError, r"got the revision 'v2' with .*, which is no hub id"),
    ):
        with pytest.raises(error, match=said):
            energycomp.load(source, revision=revision)


def test_the_cache_serves_without_the_network(pushed: Hub, model: Model, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"'me/tiny', which is no folder.*the cache does not have it"):
        energycomp.load("me/tiny", local_files_only=True)
    energycomp.load("me/tiny", cache_dir=tmp_path / "own")
    pushed.asked.clear()
    assert same(energycomp.load("me/tiny", cache_dir=tmp_path / "own", local_files_only=True), model)
    assert pushed.asked == []


def test_damage_in_the_cache_is_found(pushed: Hub) -> None:
    weights = bytearray((pushed.files("me/tiny") or {})["model.safetensors"])
    weights[-20] ^= 1
    pushed.commit("me/tiny", "main", {"model.safetensors": bytes(weights)})
    with pytest.raises(CheckpointError, match=r"model.safetensors is altered"):
        energycomp.load("me/tiny")


def test_an_interrupted_download_goes_on(pushed: Hub, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    pushed.cut = True
    with pytest.raises(HubError, match=r"no download of 'me/tiny' \(.*run the same command again"):
        energycomp.load("me/tiny")
    pushed.cut = False
    assert same(energycomp.load("me/tiny"), model)


def test_a_run_goes_on_from_checkpoints_on_the_hub(hub: Hub, model: Model, tmp_path: Path) -> None:
    data = torch.linspace(-1, 1, 16).view(8, 2)
    config = FitConfig(steps=4, batch_size=4, learning_rate=1e-2, save_every=2)

    def run(out: Path, **changes: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(2, 2)
        loss = lambda module, batch, _: module(batch).square().mean()  # noqa: E731
        return fit(layer, loss, data, config, out=out, progress=False, **changes).ema_state

    whole = run(tmp_path / "whole")
    half = (tmp_path / "whole/checkpoint-000002.safetensors").read_bytes()
    api = huggingface_hub.HfApi(token=TOKEN)
    api.create_repo("me/run")
    hub.commit("me/run", "main", {"checkpoint-000002.safetensors": half, "log.jsonl": b""})
    assert copy_checkpoints("me/run", tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["checkpoint-000002.safetensors"]
    assert all(torch.equal(whole[name], tensor) for name, tensor in run(tmp_path / "new").items())
    model.push_to_hub("me/tiny", token=TOKEN)
    assert not copy_checkpoints("me/tiny", tmp_path / "other")  # a model, whose weights `load` takes
    with pytest.raises(NotFoundError, match=r"'me/absent', which is no folder .*; expected the folder of a run"):
        copy_checkpoints("me/absent", tmp_path / "other")


def test_who_may_not_read(hub: Hub, model: Model) -> None:
    model.push_to_hub("me/tiny", token=TOKEN, private=True)
    with pytest.raises(HubError, match=r"no download of 'me/tiny' \(.*401.*refuses the token, log in") as caught:
        energycomp.load("me/tiny", token="hf_wrong")  # noqa: S106
    assert "hf_wrong" not in str(caught.value)
    for repo in ("me/tiny", "me/none"):
        with pytest.raises(NotFoundError, match=r"no repository that you may read.*hf auth login"):
            energycomp.load(repo)


@pytest.mark.parametrize(
    ("repo", "token", "code"), [("me/tiny", None, 401), ("me/tiny", "hf_wrong", 401), ("other/tiny", TOKEN, 403)]
)
def test_who_may_not_write(hub: Hub, model: Model, repo: str, token: str | None, code: int) -> None:
    with pytest.raises(HubError, match=rf"the upload to '{repo}' failed \(.*{code}"):
        model.push_to_hub(repo, token=token)
    assert repo not in hub.commits


def test_a_server_that_is_not_there(hub: Hub, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(NotFoundError, match="it was not reached"):
        energycomp.load("me/tiny")
    with pytest.raises(HubError, match="the upload to 'me/tiny' failed"):
        model.push_to_hub("me/tiny", token=TOKEN)
    with pytest.raises(InputError, match="expected a hub id: owner/name"):
        model.push_to_hub("tiny", token=TOKEN)


def test_a_repository_of_something_else(hub: Hub) -> None:
    for name in ("me/bert", "me/empty"):
        hub.create(name)
    hub.commit("me/bert", "main", {"config.json": b'{"model_type": "bert"}', "pytorch_model.bin": b"pickle"})
    for name, said in (("me/bert", "manifest.json"), ("me/empty", "manifest.json and model_index.json")):
        with pytest.raises(NotFoundError, match=f"got {name} without {said}"):
            energycomp.load(name)
    assert not [line for line in hub.asked if "pytorch_model" in line]


def test_pipelines(hub: Hub, tmp_path: Path) -> None:
    """Those of diffusers: all of the parts and nothing else is fetched, and what is missing is named."""
    testing = pytest.importorskip("energycomp_text.testing")
    testing.tiny_pixart().save_pretrained(tmp_path / "pipe")
    files = {
        file.relative_to(tmp_path / "pipe").as_posix(): file.read_bytes()
        for file in (tmp_path / "pipe").rglob("*")
        if file.is_file()
    }
    hub.create("me/pipe")
    hub.commit("me/pipe", "main", {**files, "whole.safetensors": b"x", "transformer/own_code.py": b"x"})
    hub.asked.clear()
    read = energycomp.load("me/pipe", max_sequence_length=8)
    assert read.denoiser.codec.config()["source"] == "me/pipe"  # type: ignore[union-attr]
    assert not [line for line in hub.asked if "whole" in line or "own_code" in line]

    hub.gated.add("me/pipe")
    for options in ({}, {"token": TOKEN}):
        with pytest.raises(NotFoundError, match=r"'me/pipe@main', .*authors give access on request.*hf auth login"):
            energycomp.load("me/pipe", revision="main", cache_dir=tmp_path / "other", **options)
    for missing, message in (
        ("vae/", "got me/less without vae; expected the folders"),
        ("transformer/diffusion_pytorch_model.safetensors", "no file named diffusion_pytorch_model.safetensors"),
        ("model_index.json", "got me/less without manifest.json and model_index.json"),
    ):
        hub.create("me/less")
        hub.commit("me/less", "main", {n: data for n, data in files.items() if not n.startswith(missing)})
        with pytest.raises(NotFoundError, match=message) as caught:
            energycomp.load("me/less", cache_dir=tmp_path / missing.replace("/", "-"))
        assert "\n" not in str(caught.value)


def test_a_branch_with_the_token_of_the_environment(hub: Hub, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    model.push_to_hub("me/tiny", private=True, revision="v1")
    assert "config.json" in (hub.files("me/tiny", "v1") or {})
    assert hub.files("me/tiny") == {}


def test_a_failure_is_one_line_without_a_traceback(hub: Hub, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    code, _, err = run("sample", "me/none@v1", "-o", "a.png")
    assert code == 2
    assert [line for line in err.splitlines() if line.startswith("energycomp: got no download of 'me/none@v1'")]
    assert "Traceback" not in err
    assert "hf_wrong" not in err


def test_documents_are_no_damage_but_code_and_weights_are(model: Model, tmp_path: Path) -> None:
    save_pretrained(model, tmp_path / "m")
    (tmp_path / "m" / "README.md").write_text("edited")
    documents = (".gitattributes", "LICENSE", "samples.png", "notes/how.txt", ".git/config")
    for name in (*documents, ".cache/huggingface/x.lock"):
        (tmp_path / "m" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / name).touch()
    from_pretrained(tmp_path / "m")
    (tmp_path / "m" / "README.md").unlink()
    from_pretrained(tmp_path / "m")
    for name in ("modeling.py", "pytorch_model.bin", "other.safetensors", "more.json", "model.pkl"):
        (tmp_path / "m" / name).touch()
        with pytest.raises(CheckpointError, match=f"extra file {name}"):
            from_pretrained(tmp_path / "m")
        (tmp_path / "m" / name).unlink()


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16])
def test_the_type_of_the_network(model: Model, tmp_path: Path, dtype: Any) -> None:
    save_pretrained(model, tmp_path / "m")
    half = energycomp.load(tmp_path / "m", dtype=dtype)
    assert {p.dtype for p in half.denoiser.network.parameters()} <= {torch.bfloat16, torch.float16}
    options: Any = {"generator": 0, "num_inference_steps": 2, "output_type": "pt"}
    usual, fast = (energycomp.Composer([one(0.3, 0.4), one(0.7, 0.6)]).sample(**options) for one in (model, half))
    assert fast.dtype == torch.float32
    assert float((usual - fast).abs().max()) < 0.1
    with pytest.raises(InputError, match="got dtype 'int8'; expected one of float32"):
        energycomp.load(tmp_path / "m", dtype="int8")


def test_what_a_card_says(model: Model) -> None:
    result = Result(
        data="synthetic:3-5", n=300, seed=0, command="energycomp evaluate tiny -n 300", page="https://x.org/page",
        metrics={"perception rate": "0.990 (0.984-0.995)", "NFE per image": "3,526"},
    )  # fmt: skip
    text = card(
        model, source="tiny", summary="A model.", license="mit", pipeline_tag="image-to-image", tags=["CLEVR"],
        datasets=["energycomp-clevr"], sections={"Limits": "Few."}, results=[result],
    )  # fmt: skip
    read = ModelCard(text)
    data = read.data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "energycomp", "image-to-image")
    assert data.datasets == ["energycomp-clevr"]
    assert "CLEVR" in (data.tags or [])
    found = {entry.metric_type: entry for entry in data.eval_results or []}
    assert {name: entry.metric_value for name, entry in found.items()} == {
        "perception_rate": 0.99,
        "nfe_per_image": 3526.0,
    }
    assert found["perception_rate"].source_name == result.command
    assert found["perception_rate"].dataset_args == {"n": 300, "seed": 0}
    assert "## Limits\n\nFew." in text
    assert "| `synthetic:3-5` | 300 | perception rate | 0.990 (0.984-0.995) | [1](https://x.org/page) |" in text
    assert "Describe training data" not in text
    assert "Describe training data" in card(model)
    assert ModelCard(card(model)).data.eval_results is None


def test_the_page(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks on the hub, also those that need an account."""
    pytest.importorskip("energycomp_clevr")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    names: dict[str, Any] = {"__name__": "hub"}
    section = PAGE.read_text(encoding="utf-8").split("## The hub")[1]
    for block in re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 - the page is ours
    assert set(hub.branches["owner/name"]) == {"main", "half"}
    assert "owner/name" in hub.private
