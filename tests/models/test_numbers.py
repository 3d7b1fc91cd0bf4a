"""Models of numbers that are no image: made, trained, sampled, saved, loaded, read, and written as tables."""

import json
from functools import partial
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import attrs
import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from typer.testing import CliRunner

import energycomp
from energycomp import plugins
from energycomp.components import Condition, Gaussian, cosine_schedule, items, on, window
from energycomp.errors import CheckpointError, CompositionError, InputError
from energycomp.models import Defaults, Model, NumberProcessor, load, save_pretrained
from energycomp.plugins import registry
from energycomp.testing import Labels
from energycomp_cli import app
from energycomp_cli.output import read_numbers, save_numbers
from energycomp_lab.checks import check_model, check_recipe
from energycomp_lab.training import FitConfig, Recipe, Step, collate, denoising_loss
from energycomp_samplers import rank

LEVELS = torch.tensor([-1.0, 0.0, 2.0])


class Levels(nn.Module):
    """The mean of rows N(level of the label, 0.1^2) of any shape, as the prediction of x0."""

    def __init__(self, *, labels: int) -> None:
        super().__init__()
        self.config = {"labels": labels}
        self.level = nn.Parameter(LEVELS[:labels].clone())

    def forward(self, sample: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        level = (condition.rows[:, 0] @ self.level).reshape(-1, *[1] * (sample.ndim - 1))
        a = torch.cos(torch.pi / 2 * (timestep / 1000 + 0.008) / 1.008).square().reshape(level.shape)
        return level + 0.01 * a.sqrt() / (0.01 * a + 1 - a) * (sample - a.sqrt() * level)


def coded(model: Model, numbers: Any) -> Model:
    """The model with other numbers as processor and codec."""
    return attrs.evolve(model, processor=numbers, denoiser=attrs.evolve(model.denoiser, codec=numbers))


def made(shape: tuple[int, ...]) -> Model:
    denoiser = energycomp.Denoiser(Levels(labels=3), cosine_schedule(), "sample", "product", shape, (1, 3))
    defaults = Defaults(counts=(1, 1), draws=4, solver="enumerate")
    numbers: Any = NumberProcessor(shape, [10.0] * shape[0], [5.0] * shape[0])
    denoiser = attrs.evolve(denoiser, codec=numbers)
    names: Any = {"network_name": "levels", "conditioner_name": "levels"}
    return Model("levels", denoiser, Labels(3), numbers, defaults=defaults, **names)


def sampled(component: Any, n: int = 4, **options: Any) -> Any:
    options = {"num_inference_steps": 5, "progress": False, "generator": 0, "output_type": "pt"} | options
    return energycomp.Composer(component).sample(n, **options)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_own", {})
    plugins.register("networks", "levels", Levels)
    plugins.register("conditioners", "levels", Labels)


SHAPES = pytest.mark.parametrize("shape", [(13,), (2, 64), (3, 4, 8, 8)])


@SHAPES
def test_sampled_saved_loaded_read_and_trained(shape: tuple[int, ...], tmp_path: Path) -> None:
    model = made(shape)
    check_model(model)
    save_pretrained(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.processor == again.denoiser.codec == model.processor
    x = sampled(again(2))
    assert tuple(x.shape) == (4, *shape)
    assert float(x.mean()) == pytest.approx(20.0, abs=0.3)  # 10 + 5 * 2
    np.testing.assert_allclose(sampled(again(2), output_type="np"), x, rtol=1e-5)
    assert repr(again).startswith(f"Model('levels', samples {shape},")
    with pytest.raises(InputError, match="got output_type 'pil' for samples"):
        sampled(again(2), output_type="pil")
    for label, row in ((0, torch.full(shape, 5.0)), (2, x[0])):
        assert energycomp.infer(row, again, generator=0).conditions.tolist() == [label]
    assert bool(rank(x, again(2) & again.unconditional, model=again).complete.all())
    samples, owner = again.encode(x), torch.arange(4)
    right, wrong = (
        denoising_loss(again.denoiser, samples, again.conditioner(torch.full((4,), label)), owner, generator=0)
        for label in (2, 0)
    )
    assert float(right) < 0.02 < float(wrong)
    check_recipe(recipe(shape))


def test_numbers_that_are_standardised_otherwise_do_not_compose() -> None:
    one, other = made((13,)), made((13,))
    shifted = attrs.evolve(other.denoiser, codec=NumberProcessor((13,), [0.0] * 13, [5.0] * 13))
    with pytest.raises(CompositionError, match=r"with standardisation at place 0 \(x - 10\) / 5 and"):
        _ = one(0) + attrs.evolve(other(0), denoiser=shifted)


def columns(mean: float, scale: float) -> Model:
    """Two columns, whose labels 0, 1, 2 have the levels -1, 0, 2 in units of the scale."""
    return coded(made((2,)), NumberProcessor((2,), [mean, -mean], [scale, 2 * scale]))


def test_models_of_other_columns_compose_on_parts_of_a_table() -> None:
    """Columns 0 and 1 by one model, 2 and 3 by another: each is decoded as its model standardised it."""
    first, second = columns(10.0, 5.0), columns(100.0, 1.0)
    table = on(window(0, 2), first(2), (4,)) + on(window(2, 2), second(0), (4,))
    x = sampled(table, 50)
    expected = torch.tensor([10.0 + 5 * 2, -10.0 + 10 * 2, 100.0 - 1, -100.0 - 2])
    torch.testing.assert_close(x.mean(0), expected, atol=0.5, rtol=0)
    exact = on(items(2, 0), first(2), (3,)) + on(items(1), Gaussian(sample_shape=(1,), space="numbers"), (3,))
    x = sampled(exact, 50)
    torch.testing.assert_close(x.mean(0)[[2, 0]], expected[:2], atol=0.5, rtol=0)
    nested = on(window(1, 4), table, (5,))
    assert nested.noised_space.places == (None, *first.processor.places, *second.processor.places)
    with pytest.raises(CompositionError, match=r"with standardisation at place 1 .* expected one"):
        _ = on(window(0, 2), first(2), (3,)) + on(window(1, 2), first(2), (3,))
    with pytest.raises(CompositionError, match=r"with standardisation at place 2 .* expected one"):
        _ = table + on(window(2, 2), first(2), (4,))  # the first component says nothing of this place


def test_one_model_on_two_parts_of_a_table_is_decoded_in_each() -> None:
    model = columns(10.0, 5.0)
    table = on(window(0, 2), model(2), (4,)) + on(window(2, 2), model(1), (4,))
    torch.testing.assert_close(sampled(table, 50).mean(0), torch.tensor([20.0, 10.0, 10.0, -10.0]), atol=1.0, rtol=0)
    long = on(window(0, 3), made((2, 3))(2), (2, 5)) + on(window(2, 3), made((2, 3))(2), (2, 5))  # a trajectory
    assert sampled(long, 2).shape == (2, 2, 5)


def test_predictions_are_clipped_to_the_range_of_fitted_numbers() -> None:
    """A prediction of 40 standard deviations is 2, the farthest of the rows, where the range is known."""
    fitted = NumberProcessor.fit(torch.tensor([[10.0], [10.0], [10.0], [10.0], [20.0]]))
    assert fitted.reach == pytest.approx(2.0)
    for numbers, reached in ((fitted, 20.0), (attrs.evolve(fitted, reach=None), 12.0 + 40 * 4)):
        far = coded(made((1,)), numbers)
        nn.init.constant_(far.denoiser.network.level, 40.0)
        with catch_warnings(record=True) as found:
            simplefilter("always")
            x = sampled(far(2))
        torch.testing.assert_close(x, torch.full((4, 1), reached), atol=1.5, rtol=0.0)
        assert ["standard deviations" in str(one.message) for one in found] == [True] * (numbers.reach is None)


def test_fitted_numbers_are_standardised_and_come_back() -> None:
    data = torch.randn(50, 2, 6) * torch.tensor([3.0, 0.1])[:, None] + torch.tensor([7.0, -2.0])[:, None]
    fitted = NumberProcessor.fit(data)
    samples = fitted.encode(fitted(data))
    torch.testing.assert_close(samples.mean((0, 2)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(samples.std((0, 2), correction=0), torch.ones(2))
    torch.testing.assert_close(fitted.decode(samples), data)
    assert fitted(data[0].tolist()).shape == (1, 2, 6)
    for wrong in (data[:, :1], data * float("nan"), "numbers", torch.zeros(0, 2, 6)):
        with pytest.raises(InputError, match="expected finite numbers of shape"):
            fitted(wrong)
    with pytest.raises(InputError, match=r"got numbers \(3, 1, 6\); expected .*\(2, 6\), one or several$"):
        fitted(torch.zeros(3, 1, 6))
    for shape, mean, scale in (((3, 8, 8), [0.0] * 3, [1.0] * 3), ((2,), [0.0], [1.0]), ((1,), [0.0], [0.0])):
        with pytest.raises(InputError, match="expected one of each"):
            NumberProcessor(shape, mean, scale)


def test_constants_stay_whatever_rounding_says_and_what_float32_does_not_resolve_is_refused() -> None:
    constant = torch.full((7, 1), 0.1, dtype=torch.float64)  # whose deviation is 1e-17 by rounding
    fitted = NumberProcessor.fit(constant)
    assert fitted.scale == (1.0,)
    assert float(fitted.encode(fitted(constant[:1])).abs()) < 1e-7
    seconds = 1.7e9 + 300 * torch.randn(50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match=r"numbers around 1.7e\+09 with the deviation [23].. at place 0; .* an offset"):
        NumberProcessor.fit(seconds)
    fitted = NumberProcessor.fit(seconds - 1.7e9)
    assert float(fitted.encode(fitted(seconds - 1.7e9)).std(correction=0)) == pytest.approx(1.0, abs=1e-4)


def test_samples_are_written_as_tables(tmp_path: Path) -> None:
    save_pretrained(made((2, 3)), tmp_path / "model")

    def run(out: str) -> Any:
        arguments = ["sample", str(tmp_path / "model"), "2", "-n", "4", "--steps", "5", "-o", str(tmp_path / out)]
        return CliRunner().invoke(app, arguments)

    assert run("x.npy").exit_code == run("x.csv").exit_code == 0
    array, table = np.load(tmp_path / "x.npy"), np.loadtxt(tmp_path / "x.csv", delimiter=",", skiprows=1)
    assert array.shape == (4, 2, 3)
    assert array.mean() == pytest.approx(20.0, abs=1.0)
    np.testing.assert_allclose(table, array.reshape(4, 6), rtol=1e-6)
    assert (tmp_path / "x.csv").read_text().startswith("x0_0,x0_1,x0_2,x1_0,")
    wrong = run("x.png")
    assert isinstance(wrong.exception, InputError)
    assert "expected one of numbers, such as samples.csv" in str(wrong.exception)


def test_quantiles_make_skewed_and_discrete_numbers_normal_and_come_back(tmp_path: Path) -> None:
    draw = torch.Generator().manual_seed(0)
    columns = [
        torch.randn(2000, generator=draw).exp(),
        torch.randint(3, (2000,), generator=draw).float(),
        torch.full((2000,), 4e7),
        1e4 + torch.rand(2000, generator=draw),
    ]
    data = torch.stack(columns, dim=1)
    fitted = NumberProcessor.fit(data, quantiles=200)
    assert NumberProcessor(**json.loads(json.dumps(fitted.config()))) == fitted
    assert not set(fitted.places) & set(NumberProcessor.fit(data).places)
    samples = fitted.encode(fitted(data)).double()
    torch.testing.assert_close(samples.mean(0), torch.zeros(4).double(), atol=1e-4, rtol=0)
    for row in samples[:, [0, 3]].T:
        assert stats.kstest(row, "norm").statistic < 0.01
    assert samples[:, 1].unique().tolist() == pytest.approx(
        [float(samples[data[:, 1] == level, 1][0]) for level in range(3)]
    )
    torch.testing.assert_close(fitted.decode(samples.float()), data, atol=2e-3, rtol=1e-5)
    wide = torch.linspace(-30, 30, 121)[:, None].expand(-1, 4)  # far beyond the quantiles, too
    assert bool((fitted.decode(wide).diff(dim=0)[:, [0, 1, 3]] > 0).all())
    torch.testing.assert_close(fitted.encode(fitted.decode(wide))[:, :2], wide[:, :2], atol=1e-3, rtol=1e-4)
    frames = NumberProcessor.fit(data[:, :2].reshape(-1, 5, 2).transpose(1, 2), quantiles=50)
    assert frames.encode(torch.ones(7, 2, 5)).shape == (7, 2, 5)


def test_a_model_of_quantiles_is_saved_and_a_damaged_one_is_refused(tmp_path: Path, rewrite: Any) -> None:
    model = made((2,))
    numbers: Any = attrs.evolve(model.processor, quantiles=((-1.0, 0.0, 1.0), (0.0, 0.0, 5.0)))
    save_pretrained(coded(model, numbers), tmp_path / "model")
    assert load(tmp_path / "model").processor == numbers
    row, nan = torch.tensor([[0.5, 3.0]]), float("nan")
    torch.testing.assert_close(numbers.decode(numbers.encode(row)), row)
    for wrong in (
        [[0, 1]], [[0, 1], [2]], [[0], [1]], [[1, 0], [0, 1]], [[0, nan], [0, 1]], [[0, "1"], [0, 1]], [[0, 1e31]] * 2,
    ):  # fmt: skip
        with pytest.raises(InputError, match="quantiles"):
            attrs.evolve(numbers, quantiles=wrong)

    def damage(config: dict[str, Any], _: Any, broken: Any) -> None:
        config["codec"]["config"]["quantiles"] = config["processor"]["config"]["quantiles"] = broken

    for broken in ([[1, 0], [0, 1]], [[True, 2], [0, 1]], 3, "ab", [3], None):
        rewrite(tmp_path / "model", partial(damage, broken=broken))
        with pytest.raises((InputError, CheckpointError), match=r"quantiles|config\.json"):
            load(tmp_path / "model")


@pytest.mark.parametrize("kind", ["csv", "npy", "parquet"])
def test_rows_of_a_table_are_read(kind: str, tmp_path: Path) -> None:
    save_pretrained(made((2, 3)), tmp_path / "model")
    save_numbers(np.stack([np.full((2, 3), 10.0 + 5 * level) for level in LEVELS]), tmp_path / f"rows.{kind}")

    def run(*options: str) -> Any:
        return CliRunner().invoke(app, ["infer", str(tmp_path / "model"), str(tmp_path / f"rows.{kind}"), *options])

    read = run("--json", "-o", str(tmp_path / "out"))
    assert read.exit_code == 0, read.output
    records = [json.loads(line) for line in read.stdout.splitlines()]
    assert [record["image"] for record in records] == [f"{tmp_path}/rows.{kind}#{number}" for number in (1, 2, 3)]
    assert [record["objects"][0]["value"] for record in records] == [0, 1, 2]
    assert [(record["name"], record["picture"]) for record in records] == [(f"rows/{k}", None) for k in (1, 2, 3)]
    assert run("--json", "-o", str(tmp_path / "out")).stdout == read.stdout  # kept, not read again
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results.jsonl"]
    assert "1 object" in run().stdout
    assert "expected images" in str(run("--redraw", "-o", str(tmp_path / "out")).exception)


TABLES = [
    ("", "no data"), ("a,b,c\n", "no data"), ("a,b,c\n1,2,3\n4,5\n", "columns changed from 3 to 2"),
    ("1,2,3,4\n5,6,7,8\n", "cannot reshape array of size 8 into shape"), ("1,2,3\n4,red,6\n", "'red'"),
    ("1,2,3\n4,,6\n", "''"), ("red,2,3\n", "'red'"), ("1,2,1e60\n", "overflow"),
    ("a,b,c\n1,2,3\n4,nan,6\n", "row 2 has numbers that are not finite"),
    ("nan,nan,nan\n", "row 1 has numbers that are not finite"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), TABLES)
def test_tables_that_cannot_be_read_are_refused_in_one_line(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(InputError, match="expected 3 finite numbers in each row") as caught:
        read_numbers(tmp_path / "rows.csv", made((3,)))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_files_are_no_tables_of_numbers(tmp_path: Path) -> None:
    model = made((3,))
    for name, content in (("a.npy", b"not numbers"), ("a.parquet", b"PAR1"), ("a.csv", b"\xff\xfe\x00")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"got .*{name}, which cannot be read .*; expected 3 finite numbers"):
            read_numbers(tmp_path / name, model)
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], dtype=object))  # a pickle
    with pytest.raises(InputError, match="allow_pickle"):
        read_numbers(tmp_path / "objects.npy", model)
    quoted = '\ufeff"height","weight","name"\r\n"1.5", 2 ,-3e0\r\n'
    (tmp_path / "quoted.csv").write_text(quoted, encoding="utf-8")
    assert read_numbers(tmp_path / "quoted.csv", model).tolist() == [[1.5, 2.0, -3.0]]
    with pytest.raises(InputError, match=r"a\.csv for samples of clevr-places; expected a \.png file"):
        read_numbers(tmp_path / "a.csv", load("clevr-places"))


def recipe(shape: tuple[int, ...]) -> Recipe:
    """Trains labels of rows N(10 + 5 level, 0.5^2)."""
    model, draw = made(shape), torch.Generator().manual_seed(0)
    nn.init.zeros_(model.denoiser.network.level)  # it begins wrong
    labels = torch.arange(60) % 3
    rows = 10 + 5 * (LEVELS[labels].reshape(-1, *[1] * len(shape)) + 0.1 * torch.randn(60, *shape, generator=draw))

    def loss(module: nn.Module, batch: dict[str, Tensor], step: Step) -> Tensor:
        given = model.encode(batch["image"]), model.conditioner(batch["values"]), batch["owner"]
        return denoising_loss(model.denoiser, *given, module=module, generator=step.generator)

    data = [{"image": row, "values": label[None]} for row, label in zip(rows, labels, strict=True)]
    config = FitConfig(steps=60, batch_size=30, learning_rate=0.3, ema_decay=0.9)
    return Recipe(model=model, module=model.trained, loss=loss, data=data, config=config, collate_fn=collate)


def test_a_recipe_of_numbers_trains_by_the_command(tmp_path: Path) -> None:
    plugins.register("recipes", "levels", lambda **_: recipe((13,)))
    options = ("--option", "sample_every=30", "-o", str(tmp_path / "run"))
    done = CliRunner().invoke(app, ["train", "levels", *options])
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "run" / "samples").exists()  # which are images
    trained = load(tmp_path / "run" / "model")
    torch.testing.assert_close(trained.denoiser.network.level.detach(), LEVELS, atol=0.2, rtol=0)
    assert energycomp.infer(torch.full((13,), 20.0), trained, generator=0).conditions.tolist() == [2]
