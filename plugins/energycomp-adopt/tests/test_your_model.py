"""The five adoptions of docs/own.md, as they stand there: each in ten lines at most, and all that the model can do.

The networks are ideal for data of Gaussian classes, so that what is drawn and read is known.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

import energycomp
from energycomp import Composer, match_snr, plugins
from energycomp.components import cosine_schedule
from energycomp.errors import CompositionError
from energycomp.models import Model, NumberProcessor
from energycomp_adopt import adopt
from energycomp_cli import app
from energycomp_samplers import rank

PAGE = Path(__file__).parents[3] / "docs" / "own.md"
STD = 0.1
STEPS: dict[str, Any] = {"num_inference_steps": 10, "generator": 0, "progress": False}


class Ideal(nn.Module):
    """The best prediction, in each of five ways, of data N(mean of the class, STD^2); of a mixture without a label."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, generator = kind, torch.Generator().manual_seed(0)
        shape, classes = {"wine": ((13,), 3), "cats": ((3, 64, 64), 1), "dogs": ((3, 64, 64), 1)}.get(
            kind, ((1, 28, 28), 10)
        )
        means = (0.5 * torch.randn(classes, *shape, generator=generator)).clamp(-0.7, 0.7)
        low, high = (0.0, 1.0) if kind == "flow" else (-1.0, 1.0)
        self.half = (high - low) / 2
        self.register_buffer("means", (low + high) / 2 + self.half * means)
        linear = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0)
        self.register_buffer("alphas", linear if kind == "dit" else cosine_schedule())

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        wide = lambda one: one.reshape(-1, *[1] * (x.ndim - 1))  # noqa: E731
        if self.kind == "edm":
            sigma = wide((4 * t).exp())
            total = (sigma**2 + 0.25).sqrt()
            noisy = x * total
        elif self.kind == "flow":
            sigma = wide((1 - t) / t)
            noisy = x * (1 + sigma)
        else:
            alphas = wide(self.alphas[t.round().long().clamp(0, 999)])
            sigma, noisy = ((1 - alphas) / alphas).sqrt(), x / alphas.sqrt()
        std = self.half * STD
        variance = sigma**2 + std**2
        off = (noisy[:, None] - self.means).flatten(2).square().sum(2) / (2 * variance.reshape(-1, 1))
        share = (-off).softmax(1)
        if label is not None:
            own = nn.functional.one_hot(label.clamp(max=len(self.means)), len(self.means) + 1)[:, :-1].to(share)
            share = torch.where(label[:, None] < len(self.means), own, share)
        mean = (share @ self.means.flatten(1)).view_as(x)
        clean = (mean * sigma**2 + noisy * std**2) / variance
        eps = (noisy - clean) / sigma
        if self.kind == "edm":
            return (clean - noisy * 0.25 / total**2) * total / (0.5 * sigma)
        if self.kind == "flow":
            return clean - eps
        scale = 1 / (1 + sigma**2).sqrt()
        return scale * eps - scale * sigma * clean if self.kind in ("cats", "dogs") else eps


def adoptions() -> dict[str, str]:
    """The lines of each kind, by the name of its model."""
    section = PAGE.read_text().split("## A network that was trained elsewhere")[1]
    block = section.split("```python\n")[1].split("```")[0]
    kinds = [part for part in re.split(r"\n\n+", block) if " = adopt(" in part]
    return {part.split(" = ")[0]: part.strip() for part in kinds}


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    """All five kinds, six models."""
    made: dict[str, Any] = {"rows": torch.randn(178, 13), "NumberProcessor": NumberProcessor}
    for kind in ("dit", "edm", "flow", "cats", "dogs", "wine"):
        plugins.register("networks", f"ideal-{kind}", lambda kind=kind: Ideal(kind))
    for kind, lines in adoptions().items():
        names = iter([kind] if kind != "cats" else ["cats", "dogs"])
        now: list[str] = []
        made["Theirs"] = lambda now=now, names=names: Ideal(now.append(next(names)) or now[-1])
        made["adopt"] = lambda net, *, now=now, **given: adopt(net, registered=(f"ideal-{now[-1]}", {}), **given)
        exec(lines, made)  # noqa: S102 - lines of our own page
    return {name: one for name, one in made.items() if isinstance(one, Model)}


def clean(model: Model, labels: Tensor) -> Tensor:
    """Images in [0, 1] or rows, one of each label."""
    network: Any = model.denoiser.network
    ideal = network.network
    x = ideal.means[labels] + ideal.half * STD * torch.randn(len(labels), *ideal.means.shape[1:])
    if model.denoiser.codec is not None:
        return model.denoiser.codec.decode(x)
    low, high = network.options.data_range
    return ((x - low) / (high - low)).clamp(0, 1)


def test_each_kind_takes_ten_lines_at_most(models: dict[str, Model]) -> None:
    assert [*adoptions()] == ["dit", "edm", "flow", "cats", "wine"]
    assert max(len(lines.splitlines()) for lines in adoptions().values()) <= 10
    assert [*models] == ["dit", "edm", "flow", "cats", "dogs", "wine"]


@pytest.mark.parametrize("name", ["dit", "edm", "flow", "cats", "dogs", "wine"])
def test_it_draws_and_is_saved_and_used_by_commands(models: dict[str, Model], name: str, tmp_path: Path) -> None:
    torch.manual_seed(7)  # another than that of the means, which the noise on the data would repeat
    model, labelled = models[name], name not in ("cats", "dogs")
    drawn = latent(model(0) if labelled else model(), 2)
    network: Any = model.denoiser.network
    mean = (network.network.means[0] - network.middle) / network.reach
    assert float((drawn - mean).std()) < 2 * STD
    model.save_pretrained(tmp_path / "model")
    again = energycomp.load(tmp_path / "model")
    assert torch.equal(latent(again(0) if labelled else again(), 2), drawn)
    labels = torch.arange(20) % len(network.network.means)
    held = {"samples": clean(model, labels), **({"labels": labels} if labelled else {})}
    save_file(held, tmp_path / "data.safetensors")
    folder, run = str(tmp_path / "model"), CliRunner()
    checked = run.invoke(app, ["check-adoption", folder, str(tmp_path / "data.safetensors")])
    assert (checked.exit_code, "none is better" in checked.output) == (0, True), checked.output
    if name != "wine":
        text, out = "0" if labelled else name, tmp_path / "image.png"
        sampled = run.invoke(app, ["sample", folder, text, "--steps", "3", "--seed", "0", "-o", str(out)])
        assert (sampled.exit_code, out.exists()) == (0, True), sampled.output


def latent(component: Any, n: int = 1, **options: Any) -> Tensor:
    return Composer(component).sample(n, output_type="latent", **STEPS, **options)


@pytest.mark.parametrize("name", ["dit", "edm", "flow", "wine"])
def test_labels_are_read_ranked_mixed_and_composed(models: dict[str, Model], name: str) -> None:
    torch.manual_seed(1)
    model = models[name]
    x = clean(model, torch.tensor([2, 0]))
    read = [energycomp.infer(one, model, count=1, generator=0, progress=False).conditions.tolist() for one in x]
    assert read == [[2], [0]]
    ranking = rank(x, model(2), model=model, draws=8)
    assert (ranking.order, bool(ranking.shown[1])) == ((0, 1), False)  # a perfect u sees the label, too
    mixed = latent(model(0) | model(2), 8, sampler="mixture")
    network: Any = model.denoiser.network
    means = (network.network.means[[0, 2]] - network.middle) / network.reach
    apart = torch.cdist(mixed.flatten(1), means.flatten(1)) / mixed[0].numel() ** 0.5
    assert float(apart.amin(1).max()) < 2 * STD
    assert {*apart.argmin(1).tolist()} == {0, 1}
    if name in ("flow", "wine"):  # with a null row: products, negations and guidance
        others = [model(0) & model(1), model(0) & ~model(1), 2 * model(0) - model.unconditional]
        assert latent(model(0), guidance_scale=2.0).isfinite().all()
    else:
        others = [0.5 * model(0) + 0.5 * model(1), [model(0), model(1)]]
        with pytest.raises(CompositionError, match="never trained its unconditional row"):
            model(0) & model(1)
    assert all(latent(composition).isfinite().all() for composition in others)


def test_networks_compose_in_one_space_and_across_schedules(models: dict[str, Model]) -> None:
    cats, dogs, dit, flow = (models[name] for name in ("cats", "dogs", "dit", "flow"))
    assert torch.allclose(latent(0.5 * cats() + 0.5 * dogs()), latent(cats()), atol=1e-3)  # equal networks
    drawn = latent(0.5 * dit(3) + 0.5 * match_snr(flow(3), dit.denoiser.noised_space))
    network: Any = dit.denoiser.network
    assert float((drawn - network.network.means[3]).std()) < 2 * STD
