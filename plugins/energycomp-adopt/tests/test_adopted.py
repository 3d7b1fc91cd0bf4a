"""Networks of strangers: with Gaussian data the right prediction of every kind is known, so all must agree."""

import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor, nn

import energycomp
from energycomp import Composer, match_snr, plugins
from energycomp.components import signal_noise
from energycomp.errors import CheckpointError, CompositionError, InputError
from energycomp.files import write_tensors
from energycomp.inference import draw_bank
from energycomp.testing import Ideal
from energycomp_adopt import adopt
from energycomp_samplers import rank, sample_best

MEANS = torch.tensor([[0.5], [-0.5], [0.0]])  # of each class; the last is the class without a meaning
STD = 0.3


def ideal(predicts: str = "eps", process: str = "vp", low: float = -1.0, high: float = 1.0) -> Ideal:
    """The best network of data of this range."""
    half = (high - low) / 2
    return Ideal(low + half * (1 + MEANS), half * STD, predicts, process)


KINDS = [
    ("eps", "vp", "cosine"), ("x0", "vp", "cosine"), ("v", "vp", "cosine"), ("score", "vp", "cosine"),
    ("flow", "flow", "flow"), ("flow", "flow to data", "flow to data"), ("x0", "flow", "flow"),
    ("edm", "ve", (0.002, 80.0)), ("eps", "ve", (0.01, 50.0)), ("score", "ve", (0.01, 50.0)),
]  # fmt: skip


def adopted(predicts: Any, kind: str, process: Any, low: float = -1.0, high: float = 1.0, **given: Any) -> Any:
    options: dict[str, Any] = {"shape": (1,), "classes": ["up", "down"], "null": 2, "data_range": (low, high)}
    return adopt(ideal(predicts, kind, low, high), predicts=predicts, process=process, **options | given)


class Of(nn.Module):
    """A network that is a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: Tensor) -> Any:
        return self.function(*given)


class Line(nn.Module):
    """Takes numbers."""

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return x - c


class OverTime(nn.Module):
    """With an embedding of each timestep, and of two labels."""

    def __init__(self, times: int = 1000) -> None:
        super().__init__()
        self.time, self.label = nn.Embedding(times, 1), nn.Embedding(2, 1)

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return x + self.time(t) + self.label(label)


def drawn(component: Any, n: int = 1, **options: Any) -> Tensor:
    options = {"generator": 0, "output_type": "latent", "progress": False} | options
    return Composer(component).sample(n, **options)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0)])
@pytest.mark.parametrize(("predicts", "kind", "process"), KINDS)
def test_every_kind_predicts_the_noise(predicts: str, kind: str, process: Any, low: float, high: float) -> None:
    model = adopted(predicts, kind, process, low, high)
    alphas = model.denoiser.alphas_cumprod
    sample = torch.randn(5, 1, generator=torch.Generator().manual_seed(0))
    timestep = torch.tensor([50.0, 200, 400, 700, 950])
    signal, noise = signal_noise(alphas, timestep, ndim=2)
    clean = (MEANS[0] * noise**2 / signal**2 + sample / signal * STD**2) / (noise**2 / signal**2 + STD**2)
    eps = model("up").eps(sample, timestep)
    assert torch.allclose(eps, (sample - signal * clean) / noise, atol=2e-3)


def test_data_range_moves_the_schedule_alone() -> None:
    plain, bytes_ = adopted("eps", "vp", "cosine"), adopted("eps", "vp", "cosine", 0.0, 255.0)
    noise = [((1 - m.denoiser.alphas_cumprod) / m.denoiser.alphas_cumprod).sqrt() for m in (plain, bytes_)]
    inside = (noise[1] > 1e-2) & (noise[0] < 1e2)
    assert torch.allclose(noise[0][inside], 127.5 * noise[1][inside], rtol=1e-2)


def test_samples_follow_the_class_and_read_back() -> None:
    model = adopted("v", "vp", "cosine", classes=["up", "down"])
    x = drawn(model("up"), 400, num_inference_steps=60, output_type="pt")
    assert (float(x.mean()), float(x.std())) == pytest.approx((0.5, STD), abs=0.05)
    assert energycomp.infer([0.8], model, count=1, generator=0).conditions.tolist() == [0]


def test_default_steps_keep_the_deviation_of_the_data() -> None:
    up = adopted("eps", "vp", "cosine")("up")
    usual, fewer = (float(drawn(up, 4000, **steps).std()) / STD for steps in ({}, {"num_inference_steps": 50}))
    assert (abs(usual - 1) < 0.04, fewer < 0.96) == (True, True)


def test_without_an_unconditional_row() -> None:
    model = adopted("x0", "vp", "cosine", null=None)
    assert (model.denoiser.rule, model.denoiser.null_trained) == ("mean", False)
    with pytest.raises(CompositionError, match="never trained its unconditional row"):
        model("up") & model("down")
    assert energycomp.infer([-0.9], model, generator=0).conditions.tolist() == [1]
    assert drawn([model("up")], 2, num_inference_steps=3, output_type="pt").shape == (2, 1)
    assert rank(torch.tensor([[0.8]]), model.compose([0, 1]), model=model).shown.tolist() == [[True, False]]
    mixture = drawn(0.2 * model("up") | 0.8 * model("down"), 1000, sampler="mixture", num_inference_steps=40)
    assert float((mixture > 0).float().mean()) == pytest.approx(0.2 * 0.95 + 0.8 * 0.05, abs=0.05)


@pytest.mark.parametrize("rule", ["mean", "product"])
def test_one_component_without_an_unconditional_row_is_ranked_by_the_other_labels(rule: str) -> None:
    trained = adopted("x0", "vp", "cosine", classes=["up", "down", "none"])
    model = attrs.evolve(trained, denoiser=attrs.evolve(trained.denoiser, null_trained=False, rule=rule))
    x = torch.tensor([[0.6], [-0.6], [0.0], [0.9]])
    ranking = rank(x, model("up"), model=model, draws=64)
    assert ranking.shown.tolist() == [[True], [False], [False], [True]]
    assert (ranking.order[-1], ranking.rows) == (1, 4 * 64 * 3)
    bank = draw_bank(64, (1,), model.denoiser.alphas_cumprod, timesteps=model.defaults.timesteps, generator=0)
    for one, lift in zip(x, ranking.lift, strict=True):  # the least of the differences to the other labels
        noised = bank.noised(one[None], model.denoiser.alphas_cumprod)
        up, down, none = (
            (model(c).eps(noised, bank.timestep) - bank.noise).square().mean() for c in ("up", "down", "none")
        )
        assert float(lift) == pytest.approx(min(down - up, none - up).item(), rel=1e-3)
    best = sample_best(
        Composer([model("up")]), 2, model=model, generator=0, num_inference_steps=5, output_type="pt", progress=False
    )
    assert best.complete == 2
    only = adopted("x0", "vp", "cosine", classes=["up"], null=None)
    for component, given in ((model("up"), None), (only("up"), only)):
        with pytest.raises(CompositionError, match="or one and model= with other labels to compare it with"):
            rank(x, component, model=given)


def test_a_reading_rule_is_checked_before_the_work() -> None:
    averaged = adopted("x0", "vp", "cosine", null=None, reading_rule="mean", counts=(1, 2))
    found = energycomp.infer([-0.9], averaged, generator=0)
    assert (found.conditions.tolist(), found.fit) == ([1], None)
    calls: list[None] = []
    refused = adopted("x0", "vp", "cosine", null=None, reading_rule="product", call=lambda *_: calls.append(None))
    with pytest.raises(InputError, match="reading_rule='product' for adopted, which has no unconditional prediction"):
        energycomp.infer([-0.9], refused)
    assert not calls


def test_one_component_of_a_product_needs_no_unconditional_row() -> None:
    trained = adopted("x0", "vp", "cosine")
    model = attrs.evolve(trained, denoiser=attrs.evolve(trained.denoiser, null_trained=False))
    assert repr(Composer([model("up")])) == "Composer(adopted(up))"
    assert energycomp.infer([-0.9], model, generator=0).conditions.tolist() == [1]
    with pytest.raises(CompositionError, match="never trained its unconditional row"):
        Composer([model("up"), model("down")])


def test_which_of_two_networks_without_conditions_explains_a_sample() -> None:
    up, down = (
        adopt(Of(lambda x, t, mean=mean: torch.full_like(x, mean)), shape=(2,), predicts="x0", name=name)
        for name, mean in (("up", 0.5), ("down", -0.5))
    )
    x = torch.full((2,), 0.5)
    assert energycomp.infer(x, up, progress=False).error < energycomp.infer(x, down, progress=False).error
    composition = 0.5 * up() + 0.5 * down()
    assert repr(composition) == "0.5 up() + 0.5 down()"
    for one in (composition, up()):
        with pytest.raises(CompositionError, match=r"errors of `infer\(image, model\)` of both say"):
            rank(x, one)


def test_a_mixture_with_a_network_of_another_schedule() -> None:
    cosine, linear = (
        adopt(Of(lambda x, t: 0.1 * x), shape=(2,), predicts="x0", process=process) for process in ("cosine", "linear")
    )
    mixture = cosine() | match_snr(linear(), cosine.denoiser.noised_space)
    with pytest.raises(CompositionError, match="sample with sampler='mixture'"):
        drawn(mixture)
    assert drawn(mixture, 2, sampler="mixture", num_inference_steps=4).isfinite().all()


def test_a_process_that_does_not_reach_noise_is_warned_of() -> None:
    with pytest.warns(UserWarning, match=r"data_range=\(0, 255\), whose last timestep still has 0.99 of the variance"):
        adopt(Line(), shape=(2,), process="stable diffusion", data_range=(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for process in ("linear", "scaled linear", "stable diffusion", "cosine", "flow", "flow to data", (0.002, 80.0)):
            adopt(Line(), shape=(2,), process=process, data_range=(0.0, 1.0))


def test_an_embedding_of_timesteps(tmp_path: Path) -> None:
    plugins.register("networks", "over-time", OverTime)
    given: dict[str, Any] = {"shape": (1,), "classes": 2, "registered": ("over-time", {})}
    sample, at = torch.zeros(1, 1), torch.tensor([500.2])
    with pytest.raises(InputError, match=r"t float32, labels 1 to 1: .*; clock='index' gives whole timesteps") as error:
        adopt(OverTime(), **given)(1).eps(sample, at)
    assert len(str(error.value).splitlines()) == 1
    model = adopt(OverTime(), clock="index", **given)
    network: Any = model.denoiser.network
    assert torch.equal(
        model(1).eps(sample, at), network.network.time.weight[500:501] + network.network.label.weight[1:]
    )
    model.save_pretrained(tmp_path / "model")
    again = energycomp.load(tmp_path / "model")
    assert again.denoiser.trained_alone
    assert torch.equal(again(1).eps(sample, at), model(1).eps(sample, at))
    beyond = adopt(OverTime(), clock="index", null=2, **given)
    with pytest.raises(InputError, match="correct classes= or null=: its embeddings have 2 and 1000 rows"):
        beyond.unconditional.eps(sample, at)


@pytest.mark.parametrize(("predicts", "kind", "process"), KINDS)
def test_weights_in_bfloat16_round_nothing_but_what_the_network_sees(predicts: str, kind: str, process: Any) -> None:
    """The time is exact, and x0 and eps are made of the sample in float32: at little noise, rounding it is seen."""
    seen = []

    def call(net: Any, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        seen.append((x.dtype, t.dtype))
        return net(x.float(), t, label).to(x)

    exact, half = (adopted(predicts, kind, process, call=call) for _ in range(2))
    half.denoiser.network.to(torch.bfloat16)
    sample = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    for timestep, most in ((50.0, 0.1), (500.0, 0.01), (999.0, 0.003)):
        at = torch.full((200,), timestep)
        error = half("up").eps(sample, at) - exact("up").eps(sample, at)
        assert error.square().mean().sqrt() < most
    assert seen[::2] == [(torch.bfloat16, torch.float32)] * 3


def test_a_network_in_bfloat16_that_does_not_cast_its_time_is_told_how() -> None:
    class OverLine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Linear(1, 1)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x + self.time(t[:, None])

    sample, at = torch.zeros(1, 1), torch.tensor([500.0])
    with pytest.raises(InputError, match=r"t float32: .*; cast t, or .* net\(x, t.to\(x\), c\)$"):
        adopt(OverLine().bfloat16(), shape=(1,))().eps(sample, at)
    cast = adopt(OverLine().bfloat16(), shape=(1,), call=lambda net, x, t, _: net(x, t.to(x)))
    assert cast().eps(sample, at).shape == (1, 1)


def test_advice_on_a_call_is_for_its_error() -> None:
    """Not about embeddings, which the network has, where these are not what fails."""

    class ByName(OverTime):
        def forward(self, x: Tensor, *, timesteps: Tensor, y: Tensor) -> Tensor:
            return x

    class OneHot(OverTime):
        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            return x + label.argmax(1)

    for network, said in (
        (ByName(), r"such as lambda net, x, t, c: net\(x, timesteps=t, y=c\)$"),
        (OneHot(), "by call=$"),
    ):
        model = adopt(network, shape=(1,), classes=2)
        with pytest.raises(InputError, match=said):
            model(1).eps(torch.zeros(1, 1), torch.tensor([500.0]))


def test_another_network_than_the_registered_one_is_not_saved(tmp_path: Path) -> None:
    plugins.register("networks", "line", Line)
    plugins.register("networks", "over-time", OverTime)
    for registered, said in ((("line", {}), "makes a Line;"), (("over-time", {"times": 9}), "weights of other shapes")):
        model = adopt(OverTime(), shape=(1,), classes=2, clock="index", registered=registered)
        with pytest.raises(InputError, match=said):
            model.save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="which is not registered"):
        adopted("eps", "vp", "cosine").save_pretrained(tmp_path / "model")
    named = adopt(Line(), shape=(8,), conditioner="latents", null=0.0, registered=("line", {}))
    own = adopt(Line(), shape=(8,), conditioner=named.conditioner, null=0.0, registered=("line", {}))
    with pytest.raises(InputError, match="given conditions in a way of your own"):
        own.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    named.save_pretrained(tmp_path / "model")
    assert energycomp.load(tmp_path / "model").conditioner == named.conditioner


def test_tables_say_what_they_are() -> None:
    """Betas and alphas_cumprod of the same process are the same; a bare table is refused, and shown in short."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    tables = {"betas": betas, "alphas_cumprod": (1 - betas).cumprod(0)}
    given: Any = {"shape": (2,), "values": 2}
    named = adopt(Line(), **given).denoiser.alphas_cumprod
    for name, table in tables.items():
        model = adopt(Line(), process={name: table}, **given)
        torch.testing.assert_close(model.denoiser.alphas_cumprod, named, atol=1e-6, rtol=0)
        with pytest.raises(InputError, match=r"expected one of .* \{'betas': \(T,\)\} or \{'alphas_cumprod'"):
            adopt(Line(), process=table, **given)
    with pytest.raises(InputError, match=r"with process=betas: 1000 numbers from 0\.0001 to 0\.02; expected"):
        adopt(Line(), predicts="flow", process={"betas": betas.float()}, **given)


def test_numbers_and_no_condition_at_all() -> None:
    model = adopt(Line(), shape=(2,), values=2, null=0.0, predicts="x0")
    sample, at = torch.ones(1, 2), torch.tensor([500.0])
    assert model(0.5, 0.25).eps(sample, at).shape == (1, 2)
    assert not torch.equal(model(0.5, 0.25).eps(sample, at), model.unconditional.eps(sample, at))
    with_variance = Of(lambda x, t: (torch.cat([0.1 * x, x], 1), None))
    alone = adopt(with_variance, shape=(3, 8, 8), name="cats")
    assert repr(alone("cats")) == "cats(cats)"
    assert torch.allclose(alone("cats").eps(torch.ones(1, 3, 8, 8), at), torch.full((1, 3, 8, 8), 0.1))


@pytest.mark.parametrize(("predicts", "kind", "process"), KINDS)
def test_it_is_saved_by_its_registered_name(predicts: str, kind: str, process: Any, tmp_path: Path) -> None:
    plugins.register("networks", "ideal", ideal)
    arguments = {"predicts": predicts, "process": kind, "low": 0.0, "high": 1.0}
    model = adopted(predicts, kind, process, 0.0, 1.0, registered=("ideal", arguments))
    model.save_pretrained(tmp_path / "model")
    again = energycomp.load(tmp_path / "model")
    sample, at = torch.randn(3, 1, generator=torch.Generator().manual_seed(1)), torch.tensor([100.0, 500.0, 900.0])
    assert torch.equal(again("down").eps(sample, at), model("down").eps(sample, at))


PROCESS = "expected one of 'linear'"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"predicts": "epsilon"}, "got predicts='epsilon'; expected one of 'eps', 'x0'"),
        ({"process": "cosin"}, f"got process='cosin'; {PROCESS}"), ({"process": [0.5, math.nan, 0.1]}, PROCESS),
        ({"predicts": "flow"}, "got predicts='flow' with process='linear'"), ({"process": ["a", "b", "c"]}, PROCESS),
        ({"clock": "hours"}, "got clock='hours'"), ({"values": 3}, "got 2 of classes, values and conditioner"),
        ({"process": None}, "got process=None"), ({"process": {"alphas_cumprod": [0.99, 0.2, 0.5]}}, PROCESS),
        ({"process": {"betas": [0.5, 2.0, 0.5]}}, PROCESS), ({"process": {"sigmas": [0.5, 0.7, 0.9]}}, PROCESS),
        ({"classes": 0}, "names that differ, one at least"), ({"null": "none"}, "got null='none'; expected a label"),
        ({"null": [2]}, r"got null=\[2\] for a network of classes; expected a label, a whole number"),
        ({"data_range": (1.0, 0.0)}, r"got data_range=\(1.0, 0.0\); expected \(least, greatest\)"),
        ({"data_range": 1}, "got data_range=1"), ({"sigma_data": 0}, "got sigma_data=0"),
        ({"shape": (3, 0)}, r"got shape=\(3, 0\); expected positive integers"), ({"shape": "image"}, "got shape="),
        ({"count": 2}, r"got defaults=\['count'\]"),
        ({"network": lambda x, t: x}, r"got network='function'; expected a torch\.nn\.Module"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        adopt(**{"network": ideal(), "shape": (1,), "classes": 2, "null": 2, **given})


def test_a_network_of_another_shape() -> None:
    model = adopt(Of(lambda x, t, c: x[..., :4]), shape=(3, 8, 8), classes=2)
    with pytest.raises(InputError, match=r"got \(1, 3, 8, 4\) from the network for samples \(1, 3, 8, 8\)"):
        model(0).eps(torch.zeros(1, 3, 8, 8), torch.tensor([1.0]))


def test_weights_of_a_file_and_of_a_folder(tmp_path: Path) -> None:
    tensors = {name: one.detach().clone() for name, one in nn.Linear(8, 8).state_dict().items()}
    (tmp_path / "parts").mkdir()
    (tmp_path / "empty").mkdir()
    write_tensors(tmp_path / "all.safetensors", tensors)
    write_tensors(tmp_path / "other.safetensors", {"weight": tensors["weight"]})
    for name, one in tensors.items():
        write_tensors(tmp_path / "parts" / f"{name}.safetensors", {name: one})
    torch.save(tensors, tmp_path / "model.pt")

    def read(weights: Any) -> dict[str, Tensor]:
        network = nn.Linear(8, 8)
        adopt(network, shape=(8,), call=lambda net, x, t, c: net(x), data_range=None, weights=weights)
        return network.state_dict()

    for weights in (tmp_path / "all.safetensors", str(tmp_path / "parts")):
        assert all(one.equal(tensors[name]) for name, one in read(weights).items())
    write_tensors(tmp_path / "parts" / "again.safetensors", tensors)
    for name, error, message in (
        ("model.pt", InputError, r"weights_only=True\), 'model.safetensors'\)"), ("empty", InputError, "without"),
        ("parts", CheckpointError, "in two files"), ("missing.safetensors", CheckpointError, "missing.safetensors"),
        ("other.safetensors", CheckpointError, "bias"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            read(tmp_path / name)


NUMBERS = "samples reach 40 standard deviations of the data; expected 30 at most; try more num_inference_steps"


@pytest.mark.parametrize(
    ("shape", "bounds", "end", "said"),
    [
        ((1, 8, 8), (-1.0, 1.0), 5.0, r"samples reach 5 of data in \(-1.0, 1.0\); .* at most; try scheduler='DDPM"),
        ((1, 8, 8), (-1.0, 1.0), 2.0, None), ((1, 8, 8), None, 500.0, None),  # nothing is known of the data
        ((4,), None, 40.0, NUMBERS), ((4,), None, 20.0, None),
    ],
)  # fmt: skip
def test_samples_that_leave_the_data_by_far_are_warned_of_once(
    shape: Any, bounds: Any, end: float, said: str | None
) -> None:
    network = Of(lambda x, t: torch.full_like(x, end))
    model = adopt(network, shape=shape, predicts="x0", data_range=bounds, scheduler="EulerDiscreteScheduler")
    reports: list[Any] = []
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert float(drawn(model(), 2, num_inference_steps=3).max()) == pytest.approx(end, rel=1e-3)
    found = [str(one.message) for one in seen if "samples reach" in str(one.message)]
    assert [re.match(said or "never", one) is not None for one in found] == [True] * (said is not None)
    drawn(model(), 2, num_inference_steps=3, report=reports.append)
    assert len(reports[0].warnings) == (said is not None)
    if said == NUMBERS:  # another scheduler, unless it has this one, or takes none
        other: tuple[Any, ...] = (
            (model(), {"scheduler": "DDIMScheduler"}, "try scheduler='EulerDiscreteScheduler'"),
            (model() | model(), {"sampler": "mixture"}, "try more num_inference_steps or"),
        )
        for component, options, hint in other:
            drawn(component, 2, num_inference_steps=3, report=reports.append, **options)
            assert hint in reports[-1].notes[0]
