"""The conditioner, the network and the loss of placed objects, and how a tiny model of drawn photos is read."""

from itertools import product
from pathlib import Path

import attrs
import pytest
import torch
from PIL import Image, ImageDraw

from energycomp import infer, load
from energycomp.components import Condition
from energycomp.denoisers import count_rows
from energycomp.errors import InputError
from energycomp.inference.problem import make_problem
from energycomp.models import Model
from energycomp_lab.checks.conditioner import check_conditioner
from energycomp_lab.evaluation import evaluate, true_values
from energycomp_lab.training import Recipe, Step, collate
from energycomp_objects.conditioner import Objects
from energycomp_objects.counts import answer_posterior, count_posterior, interval
from energycomp_objects.crops import CropOptions, crop_all
from energycomp_objects.formats import Mark, MarkedPhoto, MarkedPhotos, read_marks, write_marks
from energycomp_objects.loss import LossOptions, leave_open
from energycomp_objects.metrics import AveragePrecision, RecallAtPrecision, object_metrics
from energycomp_objects.network import PlacedUNet
from energycomp_objects.photos import drop_points, split, values_of
from energycomp_objects.plan import make_plan
from energycomp_objects.recipe import build, objects
from energycomp_objects.rivals import draw_rivals
from energycomp_objects.score import PLAIN, average_precision, fit_held_out, fit_odds, read_photos, score
from energycomp_objects.solver import Propose
from energycomp_objects.source import MarkedSource
from energycomp_objects.worlds import cells

SCHEMA = {"category": ("disc", "square")}
SIDE = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos of discs and squares on grey, with boxes."""
    path = tmp_path_factory.mktemp("photos")
    random = torch.Generator().manual_seed(0)
    photos = []
    for index in range(6):
        image = Image.new("RGB", (SIDE, SIDE), "grey")
        marks = []
        for kind in ("disc", "square")[: 1 + index % 2]:
            x, y = (12 + 40 * torch.rand(2, generator=random)).tolist()
            draw = ImageDraw.Draw(image)
            shape = draw.ellipse if kind == "disc" else draw.rectangle
            shape((x - 6, y - 6, x + 6, y + 6), fill="red" if kind == "disc" else "white")
            marks.append(Mark(x / SIDE, y / SIDE, 12 / SIDE, 12 / SIDE, {"category": kind}))
        image.save(path / f"{index}.png")
        photos.append(MarkedPhoto(path / f"{index}.png", (SIDE, SIDE), tuple(marks)))
    write_marks(MarkedPhotos(tuple(photos), SCHEMA), path, "imagefolder")
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    plan = make_plan(read_marks(folder))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(plan, Objects(SCHEMA), channels=(8, 16, 16), head=8)


def test_conditioner_fits_the_protocol() -> None:
    check_conditioner(Objects(SCHEMA))
    check_conditioner(Objects(SCHEMA, box=False))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("disc at 0.25,0.5", [0.25, 0.5, 0, 0, 1]),
        ("category=square at 0.25,0.5 size 0.5x0.125", [0.25, 0.5, 0.5, 0.125, 2]),
        ("an object at 0.25,0.5", [0.25, 0.5, 0, 0, 0]),
        ("0.25,0.5", [0.25, 0.5, 0, 0, 0]),
    ],
)
def test_texts_are_values(text: str, value: list[float]) -> None:
    assert Objects(SCHEMA).read(text)[0].tolist() == value


def test_words_may_have_spaces() -> None:
    assert Objects({"number": ("die 3", "die 4")}).read("die 4 at 0.5,0.5")[0, -1] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("disk at 0.2,0.3", "Did you mean 'disc'"),
        ("disc square at 0.2,0.3", "expected one category"),
        ("disc", "expected a place"),
        ("disc at 2,0.3", "divide pixels"),
    ],
)
def test_texts_that_are_none(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Objects(SCHEMA).read(text)


@pytest.mark.parametrize("attributes", [{"x": ("a", "b")}, {"a": ()}, {"a": ("one",), "b": ("one",)}])
def test_schemas_that_are_none(attributes: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(InputError, match="expected names"):
        Objects(attributes)


def test_an_object_means_the_same_in_a_larger_sample() -> None:
    """Offsets and sizes are counted in cells: with no features, windows add the same wherever they are."""
    torch.manual_seed(0)
    net = PlacedUNet(sample_size=32, words=(2,), channels=(8, 16), head_channels=8, window=8)
    torch.nn.init.normal_(net.out[-1].weight)
    time = torch.zeros(1, net.time[1].linear_2.out_features)
    small = (torch.zeros(1, 8, 8, 8), torch.zeros(1, 3, 32, 32), time)
    large = (torch.zeros(1, 8, 16, 16), torch.zeros(1, 3, 64, 64), time)
    row = torch.tensor([[[0.5, 0.5, 0.25, 0.25, 1.0, 0.0]]])
    half = torch.tensor([[[0.5, 0.5, 0.125, 0.125, 1.0, 0.0]]])
    owner = torch.tensor([0])
    one = net.head(small, Condition(row), owner)
    other = net.head(large, Condition(half), owner)
    torch.testing.assert_close(one, other[..., 16:48, 16:48])
    assert other[..., :16, :].abs().max() == 0


def test_tiles_of_a_constant_sample_blend_to_one_map() -> None:
    torch.manual_seed(0)
    net = PlacedUNet(sample_size=32, words=(2,), channels=(8, 16), head_channels=8, window=8)
    shared, base, _ = net.features(torch.ones(2, 3, 80, 32), torch.tensor([10.0, 500.0]))
    assert shared.shape == (2, 8, 20, 8)
    assert base.shape == (2, 3, 80, 32)
    assert shared[0].equal(shared[1])  # an untrained network is the same at all timesteps


def test_the_form_over_windows_is_that_over_samples(model: Model, folder: Path) -> None:
    torch.nn.init.normal_(model.denoiser.network.out[-1].weight, std=0.1)  # type: ignore[operator, index, union-attr]
    problem = make_problem(model.encode(Image.open(folder / "1.png")), model)
    values = torch.tensor([[0.3, 0.4, 0.2, 0.2, 1.0], [0.45, 0.5, 0.0, 0.0, 0.0], [0.9, 0.9, 0.1, 0.2, 2.0]])
    bank = problem.draw(3, 0)
    with torch.no_grad():
        windows = problem.in_windows(values, bank)
        assert windows is not None
        form = windows.quadratic()
        dense = problem.quadratic(values, bank)
    torch.testing.assert_close(form.b, dense.b, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(form.gram(), dense.gram(), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(form.c, dense.c, rtol=1e-4, atol=1e-3)
    for mine, theirs in zip(windows.explained(), dense.explained(), strict=True):
        assert mine is not None
        assert theirs is not None
        torch.testing.assert_close(mine.flatten(1), theirs, rtol=1e-3, atol=1e-3)
    with count_rows() as spent:
        problem.explained(values, bank)
    assert (spent.rows, spent.trunks) == (9, 0)  # the trunk of the bank is known
    assert problem.rows == 3 * 3 * 3 + 3  # three times 3 objects under 3 draws, and u once


def test_a_photo_is_read_with_counts(model: Model, folder: Path) -> None:
    solution = infer(folder / "1.png", model, solver=Propose(least=0.001, draws=2), progress=False)
    assert set(solution.counts) == {"disc", "square"}
    assert all(low <= count <= high for count, low, high in solution.counts.values())
    assert "in 90 %" in str(solution)


def test_a_count_that_is_given_is_reached(model: Model, folder: Path) -> None:
    solution = infer(folder / "1.png", model, solver=Propose(least=0.001, draws=2), count=3, progress=False)
    assert solution.count == 3
    assert sum(high for _, _, high in solution.counts.values()) >= 3
    assert solution.picture().size == (480, 480)


def test_exact_answers_have_the_best_figures() -> None:
    boxes = [[0.3, 0.4, 0.2, 0.2, 1.0], [0.7, 0.5, 0.3, 0.2, 2.0]]
    x, y, width, height, words = (list(column) for column in zip(*boxes, strict=True))
    trace = {"x": x, "y": y, "width": width, "height": height, "words 0": words, "sure 0": [1, 1], "proposed": [1, 1]}
    exact = {"true": boxes, "conditions": boxes, "trace": trace, "counts": {"disc": (1, 1, 1), "square": (1, 1, 2)}}
    one_word_wrong = {
        **exact,
        "trace": {**trace, "words 0": [1.0, 1.0]},
        "counts": {"disc": (2, 1, 2), "square": (0, 0, 0)},
    }
    for record, precision, count in ((exact, 1.0, 1.0), (one_word_wrong, 0.5, 0.0)):
        metrics = object_metrics(("disc", "square"))
        metrics.update([], [], record=[record])
        figures = metrics.compute()
        assert figures["recall"] == figures["precision"] == figures["count_exact"] == 1
        assert figures["count_exact_disc"] == count
        assert figures["count_error_square"] == 1 - count
        assert figures["count_in_90_disc"] == 1
        assert figures["calibration_error"] == 0
        assert figures["recall_at_precision_95"] == 1
        if "map" in figures:
            assert figures["map_50"] == pytest.approx(precision)


def test_a_likelier_wrong_proposal_costs_precision() -> None:
    """Precision is a half at every recall."""
    trace = {"x": [0.5, 0.1], "y": [0.5, 0.1], "width": [0.2, 0.2], "height": [0.2, 0.2], "proposed": [0.6, 0.9]}
    record = {"true": [[0.5, 0.5, 0.2, 0.2]], "conditions": [], "trace": trace, "counts": {}}
    for least, recall in ((0.95, 0.0), (0.5, 1.0)):
        metric = RecallAtPrecision(least)
        metric.update([], [], record=[record])
        assert metric.compute() == recall
    pytest.importorskip("pycocotools")
    average = AveragePrecision("map")
    average.update([], [], record=[record])
    assert average.compute() == pytest.approx(0.5)


def test_photos_are_evaluated(model: Model, folder: Path) -> None:
    source = MarkedSource()
    examples = source.examples(str(folder), count=2, seed=0)
    report = evaluate(model, examples, source.metrics(), solver=Propose(least=0.001, draws=2), progress=False)
    assert {"recall", "count_exact_disc", "count_in_90", "calibration_error"} <= report.values.keys()
    assert "count_error" in report.intervals


def test_answers_are_scored_and_odds_fitted(model: Model, folder: Path) -> None:
    answers = read_photos(model, read_marks(folder)[:2], Propose(least=0.001, draws=2))
    assert 0 <= score(model, answers)["recall"] <= 1
    assert 0 <= average_precision(answers) <= 1
    assert all(map(torch.isfinite, torch.tensor(fit_odds(answers))))
    assert any(bool(one.is_right.any()) for one in answers)
    assert all(bool((one.is_right <= one.is_object).all()) for one in answers)


def test_odds_without_a_proposal_are_those_of_proposals_alone(model: Model, folder: Path) -> None:
    answers = fit_held_out(model, read_marks(folder)[:5])  # an untrained model proposes nothing
    assert [one.solution.count for one in answers] == [0] * 5
    assert average_precision(answers) == 0
    assert model.denoiser.network.odds == PLAIN


def test_a_model_is_stored_with_its_odds(model: Model, tmp_path: Path) -> None:
    network = model.denoiser.network
    assert isinstance(network, PlacedUNet)
    network.config["odds"] = [0.5, 1.0, 2.0]
    model.save_pretrained(tmp_path / "model")
    assert load(tmp_path / "model").denoiser.network.odds == (0.5, 1.0, 2.0)


def test_photos_are_a_data_source(model: Model, folder: Path) -> None:
    examples = MarkedSource().examples(str(folder), count=4, seed=0)
    assert len(examples) == 4
    assert true_values(examples[0], model.conditioner).shape[1] == 5
    with pytest.raises(InputError, match="folder of photos"):
        MarkedSource().examples("synthetic", count=1, seed=0)


def test_counts_of_certain_and_uncertain_objects() -> None:
    assert interval(count_posterior([1.0, 1.0, 0.0])) == (2, 2)
    assert interval(count_posterior([0.5] * 10)) == (3, 8)


def test_one_of_all_answers_is_right() -> None:
    log_odds = torch.tensor([2.0, -1.0, 0.3])
    answers = [torch.tensor(chosen) for chosen in product([True, False], repeat=3)]
    for spread in (0.0, 1.5):
        assert sum(answer_posterior(log_odds, each, spread=spread) for each in answers) == pytest.approx(1)
        two = [answer_posterior(log_odds, each, (2, 2), spread=spread) for each in answers if each.sum() == 2]
        assert sum(two) == pytest.approx(1)


def test_rivals_are_wrong() -> None:
    conditioner = Objects(SCHEMA)
    values = torch.tensor([[0.3, 0.3, 0.2, 0.2, 1.0], [0.7, 0.6, 0.2, 0.2, 2.0]])
    rivals = draw_rivals(values, torch.tensor([0, 1]), 2, conditioner, torch.Generator().manual_seed(0))
    true = conditioner(values).rows
    for dropped, added in zip(rivals.dropped.tolist(), rivals.added.tolist(), strict=True):
        assert dropped >= 0 or added >= 0
        if dropped >= 0 and added >= 0:
            assert not rivals.condition.rows[added].equal(true[dropped])
    assert len(draw_rivals(values[:0], torch.zeros(0).long(), 2, conditioner, torch.Generator()).owner) == 0


def test_crops_keep_objects_in_their_place() -> None:
    image = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    image[:, :, 20:28, 40:48] = 255
    values = torch.tensor([[44 / 64, 24 / 64, 8 / 64, 8 / 64, 1.0]])
    options = CropOptions(turns=True, around=1.0, exposure=0, tint=0)
    for seed in range(8):
        random = torch.Generator().manual_seed(seed)
        picture, inside, _ = crop_all(image, values, torch.tensor([0]), (32, 32), True, options, random)
        for x, y in inside[:, :2].tolist():
            assert picture[0, 0, min(31, int(y * 32)), min(31, int(x * 32))] > 0


def test_open_objects_say_less() -> None:
    values = torch.tensor([[0.3, 0.3, 0.2, 0.2, 1.0]])
    options = LossOptions(open_scene=1.0, open_size=1.0)
    said = leave_open(values, torch.tensor([0]), 1, Objects(SCHEMA), options, torch.Generator())
    assert said[0].tolist() == pytest.approx([0.3, 0.3, 0, 0, 0])


def test_the_recipe_looks_and_learns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = objects(data=folder, init=None, kept=2, turns="true")
    assert isinstance(recipe, Recipe)
    assert "4 photos" in capsys.readouterr().out
    batch = collate([recipe.data[index] for index in range(4)])
    loss = recipe.loss(recipe.module, batch, Step(0, 10, torch.Generator().manual_seed(0)))
    loss.backward()
    assert torch.isfinite(loss)
    moved = [weight.grad is not None for name, weight in recipe.module.named_parameters() if "null" not in name]
    assert all(moved)


def test_details_take_more_pixels() -> None:
    def photos(sizes: dict[str, float]) -> MarkedPhotos:
        marks = tuple(Mark(0.5, 0.5, side, side, {"category": kind}) for kind, side in sizes.items())
        return MarkedPhotos((MarkedPhoto(Path("a.png"), (640, 480), marks),) * 2, {"category": tuple(sizes)})

    told_by_size = make_plan(photos({"a": 0.1, "b": 0.3}))
    told_by_details = make_plan(photos({"a": 0.1, "b": 0.11}))
    assert told_by_size.size < told_by_details.size
    assert told_by_details.tile <= told_by_details.size


def test_marks_without_a_size_are_left_out(folder: Path) -> None:
    photos = read_marks(folder)
    point = attrs.evolve(photos[0], marks=(*photos[0].marks, Mark(0.5, 0.5)))
    dropped = drop_points(attrs.evolve(photos, photos=(point, *photos.photos[1:])))
    assert len(dropped[0].marks) == len(photos[0].marks)
    assert values_of(dropped[0], Objects(SCHEMA)).shape == (1, 5)
    train, kept = split(photos, 2)
    assert (len(train), len(kept)) == (4, 2)


def test_an_untrained_world_has_the_network_of_the_included_one() -> None:
    trained, fresh = cells(), cells(pretrained=False)
    assert fresh.denoiser.network.config["window"] == trained.denoiser.network.config["window"]
    assert fresh.denoiser.network.odds == (0.0, 1.0, 0.0) != trained.denoiser.network.odds
    with pytest.raises(InputError, match="got preset 'paper'; expected default"):
        cells(preset="paper")
