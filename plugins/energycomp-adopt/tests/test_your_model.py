"""The five adoptions of docs/own.md, as they stand there: each in ten lines at most, and all that the model can do.

The networks are ideal for data of Gaussian classes, so that what is drawn and read is known.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import energycomp
from energycomp import Composer, match_snr, plugins
from energycomp.errors import CompositionError
from energycomp.models import Model, NumberProcessor
from energycomp.testing import Ideal
from energycomp_adopt import adopt
from energycomp_samplers import rank

PAGE = Path(__file__).parents[3] / "docs" / "own.md"
STD = 0.1
STEPS: dict[str, Any] = {"num_inference_steps": 10, "generator": 0, "progress": False}


def ideal(kind: str) -> Ideal:
    """The best network of a model of the page: random means, in the range of its data."""
    shape, classes = {"wine": ((13,), 3), "cats": ((3, 64, 64), 1), "dogs": ((3, 64, 64), 1)}.get(
        kind, ((1, 28, 28), 10)
    )
    means = (0.5 * torch.randn(classes, *shape, generator=torch.Generator().manual_seed(0))).clamp(-0.7, 0.7)
    if kind == "flow":
        return Ideal(0.5 + means / 2, STD / 2, "flow", "flow to data")
    if kind == "edm":
        return Ideal(means, STD, "edm", "ve")
    linear = (1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0) if kind == "dit" else None
    return Ideal(means, STD, "v" if kind in ("cats", "dogs") else "eps", alphas=linear)


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
        plugins.register("networks", f"ideal-{kind}", lambda kind=kind: ideal(kind))
    for kind, lines in adoptions().items():
        names = iter([kind] if kind != "cats" else ["cats", "dogs"])
        now: list[str] = []
        made["Theirs"] = lambda now=now, names=names: ideal(now.append(next(names)) or now[-1])
        made["adopt"] = lambda net, *, now=now, **given: adopt(net, registered=(f"ideal-{now[-1]}", {}), **given)
        exec(lines, made)  # noqa: S102 - lines of our own page
    return {name: one for name, one in made.items() if isinstance(one, Model)}


def clean(model: Model, labels: Tensor) -> Tensor:
    """Images in [0, 1] or rows, one of each label."""
    network: Any = model.denoiser.network
    best: Ideal = network.network
    x = best.means[labels] + best.std * torch.randn(len(labels), *best.means.shape[1:])
    if model.denoiser.codec is not None:
        return model.denoiser.codec.decode(x)
    low, high = network.options.data_range
    return ((x - low) / (high - low)).clamp(0, 1)


def test_each_kind_takes_ten_lines_at_most(models: dict[str, Model]) -> None:
    assert [*adoptions()] == ["dit", "edm", "flow", "cats", "wine"]
    assert max(len(lines.splitlines()) for lines in adoptions().values()) <= 10
    assert [*models] == ["dit", "edm", "flow", "cats", "dogs", "wine"]


@pytest.mark.parametrize("name", ["dit", "edm", "flow", "cats", "dogs", "wine"])
def test_it_draws_and_is_saved_and_used_by_commands(models: dict[str, Model], name: str, run: Any, answer: Any) -> None:
    torch.manual_seed(7)  # another than that of the means, which the noise on the data would repeat
    model, labelled = models[name], name not in ("cats", "dogs")
    drawn = latent(model(0) if labelled else model(), 2)
    network: Any = model.denoiser.network
    mean = (network.network.means[0] - network.middle) / network.reach
    assert float((drawn - mean).std()) < 2 * STD
    model.save_pretrained("model")
    again = energycomp.load("./model")
    assert torch.equal(latent(again(0) if labelled else again(), 2), drawn)
    labels = torch.arange(20) % len(network.network.means)
    held = {"samples": clean(model, labels), **({"labels": labels} if labelled else {})}
    save_file(held, "data.safetensors")
    code, out, err = run("lint", "./model", "data.safetensors")
    assert (code, "none is better" in out) == (0, True), err
    if name != "wine":
        answer("sample", "./model", "0" if labelled else name, "--steps", 3, "--seed", 0, "-o", "image.png")
        assert Path("image.png").exists()


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
