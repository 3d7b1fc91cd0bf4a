"""Of data of Gaussian classes every prediction is known, so that each thing that was said wrongly must be named."""

import json
import math
import warnings
from types import SimpleNamespace
from typing import Any, cast

import attrs
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import energycomp
from energycomp import plugins
from energycomp.components import cosine_schedule, signal_noise
from energycomp.errors import InputError
from energycomp.inference import FIT_DRAWS, OutOfDistributionWarning
from energycomp.seeds import seeded
from energycomp.testing import Ideal
from energycomp_adopt import Adoption, adopt, check_adoption
from energycomp_adopt.checks import labels as labels_module
from energycomp_adopt.checks.calls import count_calls
from energycomp_adopt.checks.samples import compare

STD, CLASSES, ALPHAS = 0.3, 3, cosine_schedule()
MEANS = torch.randn(CLASSES, 6, generator=seeded(0)) * 0.8


def data(count: int = 48, *, means: Tensor = MEANS) -> tuple[Tensor, Tensor]:
    generator = seeded(1)
    labels = torch.arange(count) % len(means)
    return means[labels] + STD * torch.randn(count, means.shape[1], generator=generator), labels


def adopted(network: nn.Module | None = None, **changed: Any) -> energycomp.Model:
    options = {"shape": (6,), "classes": CLASSES, "null": CLASSES, "process": "cosine", "data_range": None}
    return adopt(network or Ideal(MEANS), **{**options, **changed})


def verdicts(found: Adoption) -> dict[str, str]:
    return {one.what: one.verdict for one in found.findings}


def changes(found: Adoption) -> dict[str, str]:
    return {one.what: one.change for one in found.findings if one.verdict == "wrong"}


def missed(model: energycomp.Model, x: Tensor, labels: Any = None) -> tuple[str, str]:
    """The option that is not right, and what is right instead."""
    found = check_adoption(model, x, labels)
    assert found.near_miss is not None, str(found)
    assert not found.ok
    return found.near_miss.option, found.near_miss.instead


def test_nothing_is_wrong_and_the_proposal_reads() -> None:
    x, labels = data()
    found = check_adoption(adopted(), x, labels)
    assert found.ok, str(found)
    assert found.near_miss is None
    assert found.evaluations < 9000
    assert found.model.defaults.beta is not None
    answers = [energycomp.infer(one, found.model, count=1, progress=False).conditions for one in x[:12]]
    assert torch.cat(answers).tolist() == labels[:12].tolist()
    assert "what to change" in str(found)


def test_evaluations_are_counted_and_shared() -> None:
    seen: list[int] = []

    class Counts(Ideal):
        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            seen.append(len(x))
            return super().forward(x, t, label)

    network = Counts(MEANS)
    found = check_adoption(adopted(network), *data())
    assert found.evaluations == sum(seen)
    assert "forward" not in vars(network)
    x, t, label = torch.randn(3, 6), torch.tensor([100.0, 200, 300]), torch.zeros(3, dtype=torch.long)
    with count_calls(network) as calls:
        calls.known = {}
        first, again, other = network(x, t, label), network(x, t, label=label), network(x, t + 1, label)
    assert (calls.evaluations, first is again, torch.equal(first, other)) == (6, True, False)
    assert network(x, t, label) is not first


def test_noise_is_out_of_distribution_of_a_calibrated_model() -> None:
    found = check_adoption(adopted(), *data(), typicality=True)
    assert found.evaluations < 9000 + 48 * 2 * FIT_DRAWS
    assert found.model.defaults.calibration.images == 48
    x = data(80)[0][48:]

    def typical(one: Tensor) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", OutOfDistributionWarning)
            answer = energycomp.infer(one, found.model, count=1, generator=0, progress=False)
        assert answer.typicality is not None
        return answer.typicality

    assert sum(typical(one) < 0.01 for one in x) <= 3
    assert all(typical(3 * torch.randn(6, generator=seeded(k))) < 0.01 for k in range(5))
    wrong = check_adoption(adopted(process="linear"), *data(), typicality=True)
    assert wrong.model.defaults.calibration is None


def test_without_labels_without_classes_and_rows_that_are_there_twice() -> None:
    x, _ = data()
    assert check_adoption(adopted(), x).ok
    alone = adopted(classes=None, null=None, call=lambda net, x, t, _: net(x, t, torch.full_like(t.long(), CLASSES)))
    assert check_adoption(alone, x).ok
    x, labels = data(147)
    index = torch.cat([torch.arange(147), torch.arange(109)])
    assert check_adoption(adopted(), x[index], labels[index]).ok


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"predicts": "v"}, "predicts", "'eps'"),
    ({"predicts": "x0"}, "predicts", "'eps'"),
    ({"process": "linear"}, "process", "'cosine'"),
    ({"clock": "unit"}, "clock", "'timestep'"),
    ({"data_range": (0.0, 1.0)}, "data_range", "(-1.0, 1.0)"),
    ({"call": lambda net, x, t, c: -net(x, t, c)}, "sign", "minus the output, by call=,"),
    ({"call": lambda net, x, t, c: net(x, 999 - t, c)}, "clock", "999 - t, by call=,"),
    ({"call": lambda net, x, t, c: net(x, t / 1000, c)}, "clock", "1000 t, by call=,"),
    ({"call": lambda net, x, t, c: net(x, 0.8 * t, c)}, "clock", "1.25 t, by call=,"),
    ({"call": lambda net, x, t, c: net(x, t + 50, c)}, "clock", "t -50, by call=,"),
    ({"call": lambda net, x, t, c: 1.25 * net(x, t, c)}, "output", "0.8 times the output, by call=,"),
    ({"call": lambda net, x, t, c: 0.9 * net(x, t, c)}, "output", "1.1 times the output, by call=,"),
    ({"call": lambda net, x, t, c: net(0.9 * x, t, c)}, "input", "1.1 times the input, by call=,"),
    ({"predicts": "flow", "process": "flow"}, "predicts and process", "'eps' and 'cosine'"),
]


def as_said(changed: dict[str, Any], code: str) -> energycomp.Model:
    """The model of keywords, some of which are changed by code that a person copies from the table."""
    given = eval(f"dict({code})")  # noqa: S307 - the code is ours
    own, call = changed.get("call"), given.get("call")
    if own is not None and call is not None:  # `net` stands for what was called before
        given["call"] = lambda net, x, t, c: call(lambda *inputs: own(net, *inputs), x, t, c)
    return adopted(**{**changed, **given})


@pytest.mark.parametrize(("changed", "option", "instead"), WRONG)
def test_what_is_wrong_is_named(changed: dict[str, Any], option: str, instead: str) -> None:
    x, labels = data()
    found = check_adoption(adopted(**changed), x, labels)
    near: Any = found.near_miss
    assert (near.option, near.instead, found.ok) == (option, instead, False)
    said = as_said(changed, changes(found)["other options"])
    at = torch.tensor([400.0])
    assert torch.equal(said(1).eps(x[:1], at), near.model(1).eps(x[:1], at))
    if option in ("predicts", "process", "data_range"):  # the better one is given back
        assert check_adoption(found.model, x, labels).near_miss is None


@pytest.mark.parametrize(("changed", "option", "instead"), WRONG[1::3])
def test_what_is_wrong_is_named_without_labels(changed: dict[str, Any], option: str, instead: str) -> None:
    assert missed(adopted(**changed), data()[0]) == (option, instead)


def test_the_order_of_labels_is_named() -> None:
    x, labels = data()
    assert missed(adopted(), x, (labels - 1) % CLASSES) == ("labels", "label + 1 for each")
    assert missed(adopted(), x, torch.tensor([1, 0, 2])[labels]) == ("labels", "label 1 for 0, label 0 for 1")
    lost = check_adoption(adopted(call=lambda net, x, t, c: net(x, t, torch.zeros_like(c))), x, labels)
    assert verdicts(lost)["labels"] == "wrong"
    # Ten labels: a permutation is said shortly.
    means = 0.5 * torch.randn(10, 6, generator=seeded(2))
    x, labels = data(64, means=means)
    model, order = adopted(Ideal(means), classes=10, null=10), torch.arange(10)
    swapped = torch.where(order == 3, 4, torch.where(order == 4, 3, order))
    assert missed(model, x, swapped[labels])[1] == "label 4 for 3, label 3 for 4"
    turned = "".join(f"label {9 - k} for {k}, " for k in range(6)) + "..."
    assert missed(model, x, order.flip(0)[labels])[1] == turned
    # Of many labels neighbours are compared.
    means = torch.randn(20, 6, generator=seeded(2))
    x, labels = data(60, means=means)
    many = adopted(Ideal(means), classes=20, null=20)
    assert check_adoption(many, x, labels).ok
    assert missed(many, x, (labels - 1) % 20)[0] == "labels"


def test_a_null_is_no_class() -> None:
    x, labels = data()
    assert changes(check_adoption(adopted(null=0), x, labels))["null"] == "null=None"
    assert verdicts(check_adoption(adopted(null=None), x, labels)).get("null") is None
    counted_in = check_adoption(adopted(classes=CLASSES + 1, null=None), x, labels)
    said = {one.what: one.change for one in counted_in.findings}
    assert said["null"] == f"classes={CLASSES}, null={CLASSES}, for & and guidance"
    some = labels < CLASSES - 1  # a class of which there are no samples is a class
    found = check_adoption(adopted(null=None), x[some], labels[some])
    assert (found.ok, verdicts(found).get("null")) == (True, None)
    for null in (-1, -7):  # which is no label
        as_first = adopted(null=null, call=lambda net, x, t, c: net(x, t, c.clamp(min=0)))  # u is the first class
        assert changes(check_adoption(as_first, x, labels))["null"] == "null=None"
        trained = adopted(null=null, call=lambda net, x, t, c: net(x, t, torch.where(c < 0, CLASSES, c)))
        assert check_adoption(trained, x, labels).ok


def test_a_null_beyond_the_embeddings_is_refused() -> None:
    class Embedded(Ideal):
        def __init__(self) -> None:
            super().__init__(MEANS)
            self.label = nn.Embedding(CLASSES, 1)

        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            return super().forward(x, t, label) + 0 * self.label(label)

    with pytest.raises(InputError, match="correct classes= or null=: its embeddings have 3 rows"):
        check_adoption(adopted(Embedded(), null=CLASSES + 1), *data())


def test_no_option_is_proposed_where_none_is_right() -> None:
    x, labels = data()
    found = check_adoption(adopted(Ideal(MEANS.flip(1))), x, labels)  # of other data
    assert changes(found)["other options"] == "data, weights or call=, or several options at once"
    assert found.near_miss is None
    kept = attrs.evolve(found.model.defaults, timesteps=None, draws=16, beta=None)
    assert kept == attrs.evolve(adopted().defaults, timesteps=None)


class Linear(nn.Module):
    """E[eps | x] of N(0, STD^2) on a cosine schedule: proportional to x, so that a scaled input is a scaled output."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        signal, noise = signal_noise(ALPHAS, t.clamp(0, 999), ndim=2)
        return noise * x / ((signal * STD) ** 2 + noise**2)


def test_calls_that_cannot_be_distinguished_are_both_named_and_none_is_taken() -> None:
    call = lambda net, x, t, c: 1.25 * net(x, t)  # noqa: E731
    model = adopt(Linear(), shape=(6,), process="cosine", data_range=None, call=call)
    found = check_adoption(model, STD * torch.randn(64, 6, generator=seeded(1)))
    assert {"output", "input"} <= set(changes(found)["other options"].split(":")[0].split(" or "))
    assert found.near_miss is None
    assert found.model.denoiser.network.call is call


class Overfitted(Ideal):
    """With what a network adds that knows its training data alone: on other samples its slopes are 0.6, 0.9 and 1."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        signal, _ = signal_noise(ALPHAS, t.clamp(0, 999), ndim=2)
        return super().forward(x, t, label) + 1.2 * signal**2 * torch.sin(40 * x + label[:, None])


def test_an_option_that_only_makes_an_overfitted_prediction_smaller_is_not_taken() -> None:
    means = 1.25 * MEANS
    wrong = adopted(Overfitted(means), call=lambda net, x, t, c: -net(x, t, c))
    found = check_adoption(wrong, *data(96, means=means))
    assert {"predicts", "sign"} <= set(changes(found)["other options"].split(":")[0].split(" or "))
    assert found.near_miss is None


def test_a_time_that_is_better_only_for_small_noise_is_not_taken() -> None:
    """Where a network was trained too little, and no option makes up for that."""
    poor = adopted(call=lambda net, x, t, c: net(x, torch.where(t < 300, t + 60, t), c))
    found = check_adoption(poor, *data())
    assert found.near_miss is None
    assert found.ok, str(found)


def test_images_that_are_seen_otherwise() -> None:
    means = torch.randn(2, 16, generator=seeded(3)) * 0.2

    class Images(Ideal):
        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            return super().forward(x.flatten(1), t, label).view_as(x)

    x, labels = data(48, means=means)
    shown = x.clamp(-1, 1).view(-1, 1, 4, 4) / 2 + 0.5  # images in [0, 1]
    model = adopted(Images(means), shape=(1, 4, 4), classes=2, null=2, data_range=(-1.0, 1.0))
    assert check_adoption(model, shown, labels).near_miss is None
    for changed, said in ((shown.mT, "transposed"), (1 - shown, "inverted, max - x"), (shown.flip(3), "mirrored")):
        assert missed(model, changed, labels) == ("samples", f"{said},")


def test_windows_do_not_depend_on_the_draw_of_samples() -> None:
    x, labels = data(320)
    found = [check_adoption(adopted(), x[k::5], labels[k::5], seed=k).model.defaults.timesteps for k in range(5)]
    assert found == [adopted().defaults.timesteps] * 5  # each reads well, so that none is surely better


def test_a_window_is_proposed_where_it_surely_reads_better() -> None:
    x, labels = data(64)

    class Deceived(Ideal):  # below t = 600 it takes the second class for the first
        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            return super().forward(x, t, torch.where(t < 600, (CLASSES - label) % CLASSES, label))

    timesteps = [check_adoption(adopted(Deceived(MEANS)), x, labels, seed=k).model.defaults.timesteps for k in range(3)]
    assert all(one is not None and 450 <= one[0] <= 750 for one in timesteps), timesteps


def test_a_table_of_betas_is_said_shortly_and_what_is_not_calibrated_is_said() -> None:
    found = check_adoption(adopted(process={"betas": torch.linspace(1e-4, 0.02, 1000)}), *data())
    table = "process: got betas: 1000 numbers from 0.0001 to 0.02, 'cosine' explains the samples better"
    assert str(found.near_miss) == table
    said = {one.what: one.change for one in check_adoption(adopted(), *data()).findings}
    assert said["out of distribution"] == "typicality=True"


def test_modes() -> None:
    network = Ideal(MEANS)
    network.register_forward_hook(lambda module, _, out: nn.functional.dropout(out, 0.1, module.training))
    model = adopted(network)
    model.denoiser.network.train()
    found = check_adoption(model, *data())
    assert changes(found) == {"mode": "network.eval()", **changes(found)}
    assert model.denoiser.network.training  # as it was
    random = adopted(call=lambda net, x, t, c: nn.functional.dropout(net(x, t, c), 0.1))
    assert changes(check_adoption(random, *data()))["mode"] == "switch dropout off in call="
    broken = check_adoption(adopted(call=lambda net, x, t, c: math.nan * net(x, t, c)), *data())
    assert changes(broken)["mode"].startswith("the weights, the precision")
    assert "labels" not in verdicts(broken)


def test_numbers_that_are_not_standardised() -> None:
    x, labels = data()
    network = Ideal((MEANS - x.mean(0)) / x.std(0))
    assert missed(adopted(network), x * torch.tensor([1.0, 10.0, 100.0, 1.0, 1.0, 1.0]) + 3, labels)[0] == "processor"


def test_samples_that_leave_the_data_are_reported() -> None:
    network = Ideal(MEANS)
    network.register_forward_hook(lambda *called: called[2] + 0.02)
    found = check_adoption(adopted(network, scheduler="DDIMScheduler"), *data())
    assert changes(found)["drawn samples"] == "scheduler='EulerDiscreteScheduler'"
    assert check_adoption(adopted(network), *data()).ok


@pytest.mark.parametrize("count", [64, 1000, 4000])
def test_samples_are_as_near_to_many_data_as_to_few(count: int) -> None:
    """On a circle, whose points are the closer the more there are, samples that are 0.02 beside it stay as near."""
    generator = torch.Generator().manual_seed(2)
    angle = 6.2832 * torch.rand(count + 64, 1, generator=generator, dtype=torch.float64)
    x = torch.cat([angle.cos(), angle.sin(), torch.zeros(count + 64, 6, dtype=torch.float64)], 1)
    drawn = x[count:] + 0.01 * torch.randn(64, 8, generator=generator)
    assert compare(drawn, x[:count]).right
    assert not compare(drawn * 1.2, x[:count]).stays


def test_conditions_that_are_numbers() -> None:
    class Near(nn.Module):
        def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:  # x0 = c + 0.3 eps
            signal, noise = signal_noise(ALPHAS, t, ndim=2)
            return c + signal * STD**2 * (x - signal * c) / ((signal * STD) ** 2 + noise**2)

    x, labels = data()
    options = {"shape": (6,), "values": 6, "null": [0.0] * 6, "predicts": "x0", "process": "cosine", "data_range": None}
    found = check_adoption(adopt(Near(), **options), x, MEANS[labels])
    assert found.near_miss is None, str(found)
    assert verdicts(found)["labels"] == "ok"


@pytest.mark.parametrize(
    ("model", "x", "labels", "message"),
    [
        (adopted, data(4)[0], None, "got 4 samples; expected 8 at least"),
        (lambda: adopted(null=None), data(16)[0], None, "got no labels for a model without a null"),
        (adopted, data(16)[0], [0, 1], "got 2 labels for 16 samples"),
        (adopted, data(16)[0], [0, 1, 7, 0] * 4, "such as 7; expected legal values of Classes"),
    ],
)
def test_what_cannot_be_checked(model: Any, x: Tensor, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_adoption(model(), x, labels)


def test_the_command(run: Any) -> None:
    plugins.register("networks", "ideal", lambda: Ideal(MEANS))
    for name, process in (("right", "cosine"), ("wrong", "linear")):
        adopted(process=process, registered=("ideal", {})).save_pretrained(name)
    x, labels = data()
    save_file({"samples": x, "labels": labels}, "data.safetensors")
    save_file({"x": x}, "other.safetensors")
    code, out, _ = run("lint", "./right", "data.safetensors")
    assert (code, "none is better" in out) == (0, True)
    code, out, _ = run("lint", "./wrong", "data.safetensors", "--json")
    assert code == 1
    found = {one["what"]: one for one in json.loads(out)}
    assert found["other options"]["change"] == "process='cosine'"
    assert "expected the tensors samples and labels" in run("lint", "./right", "other.safetensors")[2]


def test_inputs_that_are_no_tensors_are_not_shared() -> None:
    class OfDict(nn.Module):
        def forward(self, x: Tensor, given: dict[str, Tensor]) -> Tensor:
            return x + given["y"]

    network, x, y = OfDict(), torch.ones(2, 1), torch.zeros(1, 2000)
    with count_calls(network) as calls:
        calls.known = {}
        network(x, {"y": y})
        changed = y.index_fill(1, torch.tensor(1000), 1.0)  # where a printed tensor has dots
        assert torch.equal(network(x, {"y": changed}), x + changed)


@pytest.mark.parametrize(("certainty", "verdict"), [(4.0, "ok"), (2.7, "unsure"), (1.0, "wrong"), (-5.0, "wrong")])
def test_few_samples_accuse_no_labels(certainty: float, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "measure_table", lambda case: SimpleNamespace(certainty=certainty))
    found = labels_module.check_labels(cast(Any, None))
    assert found.verdict == verdict
