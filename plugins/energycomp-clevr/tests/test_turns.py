"""Turns of cubes: how they are said, and that what is left open is drawn before an image is sampled."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from energycomp import Composer, infer, plugins
from energycomp.components import Condition, per_sample, prior_of, random_values, values_of
from energycomp.denoisers import Conditional
from energycomp.errors import InputError
from energycomp.inference import each, explain, make_problem
from energycomp.models import Model
from energycomp.seeds import seeded
from energycomp.testing import tinted_model
from energycomp_clevr.codes import ATTRIBUTES
from energycomp_clevr.objects import Objects
from energycomp_clevr.turns import read_turns
from energycomp_clevr.viewpoint import AXES, Viewpoint
from energycomp_cli import app
from energycomp_edit import edit
from energycomp_edit.plan import fill_open
from energycomp_lab.checks import check_conditioner

TURNED, PLAIN = Objects(viewpoint=True, turns=True), Objects()
QUICK: dict[str, Any] = {"num_inference_steps": 2, "progress": False}


def test_contract() -> None:
    check_conditioner(TURNED)
    values = random_values(TURNED, 50, generator=0)
    assert values.shape == (50, 7)
    assert values[:, 6].eq(0).all()
    assert TURNED.attributes == ATTRIBUTES  # a turn is no word of a list
    assert TURNED.support.words == PLAIN.support.words
    # Such as those of records, and of models that take none.
    value = PLAIN.parse(0.3, 0.5, shape="cube")
    assert values_of(TURNED, value).tolist() == [[*value[0].tolist(), 0.0]]


@pytest.mark.parametrize("said", [30, 30.4, 120, -60, -330, "30"])
def test_a_turn_is_said_in_degrees(said: Any) -> None:
    value = TURNED.parse(0.3, 0.5, shape="cube", turn=said)
    described = {"x": 0.3, "y": 0.5, "shape": "cube", "turn": 30}
    assert TURNED.describe(value[0]) == described
    assert TURNED.parse(**described).equal(value)
    for text in (f"cube turned {said} at 0.3,0.5", f"turn={said} cube at 0.3,0.5"):
        assert TURNED.read(text).equal(value)
    token = TURNED(value).rows[0, 0]
    angle = torch.tensor(120.0).deg2rad()  # four times the turn
    torch.testing.assert_close(token[15:17], torch.stack([angle.cos(), angle.sin()]))
    assert token[17:].eq(0).all()


def test_a_turn_that_is_open_and_that_of_another_shape_say_nothing() -> None:
    value = TURNED.parse(0.3, 0.5, shape="cube", turn=0)
    assert TURNED.describe(value[0])["turn"] == 0
    for column, code in ((6, 0.0), (5, 2.0), (5, 0.0)):  # open, of a sphere, of any shape
        other = value.clone()
        other[0, column] = code
        assert TURNED(other).rows[0, 0, 15:17].tolist() == [0.0, 0.0]
        assert "turn" not in TURNED.describe(other[0])
    assert TURNED(value).rows[0, 0, 15:17].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: TURNED.parse(0.3, 0.5, shape="sphere", turn=30), "got turn=30 with shape='sphere'; expected"),
        (lambda: TURNED.parse(0.3, 0.5, turn=30), "got turn=30 with no shape; expected shape='cube'"),
        (lambda: TURNED.parse(0.3, 0.5, shape="cube", turn=float("nan")), "got turn=nan; expected degrees from -360"),
        (lambda: TURNED.parse(0.3, 0.5, shape="cube", turn=400), "got turn=400; expected degrees"),
        (lambda: TURNED.parse(0.3, 0.5, shape="cube", turn=True), "got turn=True; expected degrees"),
        (lambda: TURNED.read("cube turned round at 0.3,0.5"), "got turn='round'; expected degrees"),
        (lambda: TURNED.read("cube turned at 0.3,0.5"), "got turn=''; expected degrees"),
        (lambda: TURNED.read("cube turned 3 turned 4 at 0.3,0.5"), "got 2 turns"),
        (lambda: PLAIN.parse(0.3, 0.5, shape="cube", turn=30), "for a model that takes no turns; expected none"),
        (lambda: PLAIN.read("cube turned 30 at 0.3,0.5"), "for a model that takes no turns"),
    ],
)  # fmt: skip
def test_refused_in_one_line(act: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        act()
    assert "\n" not in str(refused.value)


def test_what_is_drawn_is_uniform() -> None:
    values = TURNED.read("red cube at 0.3,0.5").repeat(9000, 1)
    found = TURNED.draw_open(values, seeded(0))
    counts = found[:, 6].long().bincount(minlength=91)
    assert counts[0] == 0
    assert bool((counts[1:] > 50).all())
    assert found[:, :2].equal(values[:, :2])
    assert found[:, 3:6].equal(values[:, 3:6])
    assert abs(found[:, 2].mean() - 1.5) < 0.03  # as many small ones as large ones
    # A place alone leaves the shape open, too; who says all that shapes an outline is drawn as he is.
    shapes = TURNED.draw_open(values[:, :2], seeded(1))[:, [5, 6]]
    assert (shapes[:, 0] == 1).equal(shapes[:, 1] > 0)
    for shape in (1, 2, 3):
        assert abs((shapes[:, 0] == shape).float().mean() - 1 / 3) < 0.03
    for text in ("small sphere at 0.3,0.5", "large cube turned 7 at 0.3,0.5"):
        value = TURNED.read(text)
        assert TURNED.draw_open(value, None).equal(value)
    assert (prior_of(PLAIN), prior_of(Objects(viewpoint=True)), prior_of(TURNED)) == (None, None, TURNED)
    around = TURNED.draw_view([], 2000, seeded(0))
    moved = around.rows[:, 0, -7:-1].reshape(-1, 3) @ torch.tensor(AXES)  # along the axes of the scene
    most = moved.reshape(-1, 2, 3).abs().amax(0)
    torch.testing.assert_close(most, torch.tensor([[0.5] * 3, [1.0] * 3]), atol=0.02, rtol=0)


def leaves_of(scene: Any, n: int, seeds: list[int]) -> dict[str, Condition]:
    generators = [seeded(seed) for seed in seeds]
    found = TURNED.prepare(Composer(scene).composition, n, generators)
    return {leaf.name: leaf.condition for leaf in found.terms}


def test_samples_have_their_own_turns_and_views(model: Model) -> None:
    cube, sphere = model("cube at 0.3,0.5"), model("large sphere at 0.7,0.5")
    few, many = leaves_of(cube & sphere, 2, [0]), leaves_of(cube & sphere, 5, [0])
    assert many["clevr(cube at 0.3,0.5)"].rows[:, 0, 15].unique().numel() > 2
    assert many["surroundings"].rows[:, 0, -1].eq(1).all()
    assert len(many["clevr(large sphere at 0.7,0.5)"]) == 1  # there is nothing to draw
    for name in ("clevr(cube at 0.3,0.5)", "surroundings"):
        assert few[name].rows.equal(many[name].rows[:2])  # whatever the number of samples is
    alike = leaves_of(cube, 3, [5, 5, 5])  # frames of a film
    assert all(len(alike[name].rows.unique(dim=0)) == 1 for name in ("clevr(cube at 0.3,0.5)", "surroundings"))


def test_what_is_said_is_not_drawn(model: Model) -> None:
    view = Viewpoint(model.denoiser.token_shape)
    seen = Conditional(model.denoiser, view(view.parse(camera=(0.1, 0.0, 0.0))), "camera")
    cube = model(0.3, 0.5, size="small", shape="cube", turn=30)
    found = TURNED.prepare(cube & seen & ~model("cube at 0.7,0.5"), 2, [None])
    assert len(found.terms) == 3
    assert all(len(leaf.condition) == 1 for leaf in found.terms)
    mixed = TURNED.prepare(Composer(model("cube at 0.3,0.5") | model("cube at 0.7,0.5")).composition, 2, [None])
    (mixture,) = mixed.terms
    assert [sorted(len(leaf.condition) for leaf in part.terms) for part in mixture.components] == [[1, 2, 2]] * 2


@pytest.mark.parametrize("sampler", [None, "smc"])
@torch.no_grad()
def test_a_sample_is_that_of_what_was_drawn(turned: Model, sampler: str | None) -> None:
    """Sampled again with the turn and the view said, from the same noise."""
    cube, rows = turned("red cube at 0.3,0.5"), 2 if sampler is None else 1  # samplers exchange samples
    how: dict[str, Any] = {
        **QUICK,
        "report": lambda _: None,
        **(_own(turned) if sampler is None else {"sampler": sampler}),
    }
    found = Composer(cube).sample(2, generator=3, output_type="latent", **how)
    rest = seeded(3)
    said = TURNED.prepare(Composer(cube).composition, rows, [rest])
    assert [len(leaf.condition) for leaf in said.terms if leaf.name != "u"] == [rows, rows]
    assert found.equal(Composer(said).sample(2, generator=rest, output_type="latent", prior=False, **how))
    assert not found.equal(Composer(cube).sample(2, generator=3, output_type="latent", prior=False, **how))


def test_compositions_of_one_batch_draw_what_each_draws_alone(turned: Model) -> None:
    scenes = [["sphere at 0.2,0.5", "cube at 0.3,0.5"], ["cube at 0.7,0.5"], []]
    parts = [Composer([turned(text) for text in texts] or turned.unconditional) for texts in scenes]
    seeds = [3, 4, 5]
    together = leaves_of(per_sample(parts), 3, seeds)
    for number, (part, seed) in enumerate(zip(parts, seeds, strict=True)):
        for name, condition in leaves_of(part, 1, [seed]).items():
            assert condition.rows[0].equal(together[name].expand(3).rows[number])


def _own(turned: Model) -> dict[str, Any]:
    return {name: value for name, value in turned.sampling().items() if name not in ("prior", "num_inference_steps")}


@pytest.mark.parametrize("texts", [["red cube", "sphere at 0.7,0.5"], [], ["cube turned 30 at 0.3,0.5"]])
def test_python_and_the_command_draw_the_same(
    turned: Model, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugins.register("models", "turned", lambda **_: turned)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["sample", "turned", *texts, "--seed", "3", "--raw", "--steps", "2"])
    assert result.exit_code == 0, result.output
    scene = turned.scene(*texts, generator=3) or turned.unconditional
    image = Composer(scene).sample(generator=3, **QUICK)[0]
    assert image.size == (24, 16)
    assert Image.open("sample.png").tobytes() == image.tobytes()
    again = Composer(scene).sample(generator=4, **QUICK)[0]
    assert again.tobytes() != image.tobytes()


@torch.no_grad()
def test_pictures_that_are_not_square_are_edited_and_explained(turned: Model) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 48, 3), dtype=np.uint8))
    parse = turned.conditioner.parse
    values = torch.cat([parse(0.2, 0.4, color="red", shape="cube"), parse(0.7, 0.6, shape="sphere")])
    solution = explain(image, turned, values)
    assert solution.maps().shape == (2, 16, 24)
    options: dict[str, Any] = {"solution": solution, "tries": 1, "generator": 0, "progress": False}
    done = edit(image, turned, set={0: {"turn": "45"}}, add=[{"x": 0.5, "y": 0.5, "shape": "cube"}], **options)
    assert done.image.size == (48, 32)
    assert done.mask.shape == (1, 1, 16, 24)
    assert done.values[0].tolist() == parse(0.2, 0.4, color="red", shape="cube", turn=45)[0].tolist()
    assert done.values[2, 6] == 0  # open, as it was asked for; what is sampled has one
    (sampled,) = fill_open(turned, [done.values[2]], torch.Generator().manual_seed(0))
    assert 1 <= sampled[6] <= 90
    round_one = edit(image, turned, set={0: {"shape": "sphere"}}, **options)
    assert turned.conditioner.describe(round_one.values[0]).keys() == {"x", "y", "color", "shape"}
    with pytest.raises(InputError, match="got turn='45' with shape='sphere'"):
        edit(image, turned, set={1: {"turn": "45"}}, **options)
    with pytest.raises(
        InputError, match="expected words by attribute of clevr-small: size, color, material, shape, turn"
    ):
        edit(image, turned, set={1: {"tilt": "45"}}, **options)


def test_the_command_edit_sets_a_turn(turned: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins.register("models", "turned", lambda **_: turned)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (24, 16), "gray").save("gray.png")
    command = ["edit", "turned", "gray.png", "--count", "1", "--steps", "2", "--json", "--set"]
    done = CliRunner().invoke(app, [*command, "1:shape=cube,turn=45"], catch_exceptions=False)
    assert json.loads(done.stdout)["asked"][0]["turn"] == 45
    for said, expected in [
        ("1:turn=around", "expected a whole number, such as 30"),
        ("1:colour=red", "expected one of size, color, material, shape, turn"),
        ("1:shape=ball", "expected one of cube, sphere, cylinder"),
    ]:
        assert expected in str(CliRunner().invoke(app, [*command, said]).exception)


class Turning(torch.nn.Module):
    """Predicts x0 as `base`, plus, for a cube, fixed directions times its token of the turn: one pair for each half."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.directions = torch.randn(2, 2, 16, 16, 24, generator=seeded(0)) * 0.3
        self.base = torch.zeros(1, 16, 16, 24)

    def features(self, sample: Tensor, timestep: Tensor) -> tuple[Tensor, ...]:
        return (self.base.expand_as(sample) * self.scale,)

    def head(self, features: tuple[Tensor, ...], condition: Condition, owner: Tensor) -> Tensor:
        token = condition.rows[:, 0]
        each = self.directions[(token[:, 0] > 0.5).long()]
        added = (token[:, 15:17, None, None, None] * each).sum(1)
        return features[0][owner] + torch.where(condition.null[:, None, None, None], 0.0, added)


@torch.no_grad()
def test_turns_are_read_last_and_of_models_that_have_them(model: Model) -> None:
    """Of a prediction that turns with them, in closed form."""
    toy = attrs.evolve(model, denoiser=attrs.evolve(model.denoiser, network=Turning()))
    parse = model.conditioner.parse
    cubes = [parse(0.2, 0.4, shape="cube", turn=33), parse(0.7, 0.6, shape="cube", turn=88)]
    true = torch.cat([*cubes, parse(0.5, 0.5, shape="sphere")])
    head: Any = toy.denoiser.network.head
    picture = head((torch.zeros(1, 16, 16, 24),), toy.conditioner(true), torch.zeros(3, dtype=torch.long))
    problem = make_problem(picture.sum(0, keepdim=True), toy, count=3)
    read = true.clone()
    read[:, 6] = 0.0
    found = read_turns(problem, read, generator=seeded(0))
    assert found[:, :6].equal(read[:, :6])
    assert found[2, 6] == 0
    assert (found[:2, 6] - true[:2, 6]).abs().max() <= 1
    assert problem.rows == 12 * (3 + 2 * 9 + 1)
    known = each(lambda values: 1e4 * ((values[:, 6] > 0) & (values[:, 6] != 1 + 60)))  # a prior counts, too
    told = make_problem(
        picture.sum(0, keepdim=True),
        attrs.evolve(toy, defaults=attrs.evolve(toy.defaults, beta=1.0)),
        count=3,
        prior=known,
    )
    assert read_turns(told, read, generator=seeded(0))[:2, 6].tolist() == [61.0, 61.0]
    assert read_turns(problem, read[2:]).equal(read[2:])
    with pytest.raises(InputError, match=r"got last=True with tinted .*; expected a model with turns"):
        infer(torch.zeros(3, 16, 16), tinted_model(), last=True)


def test_the_command_reads_turns_where_they_are_asked_for(
    turned: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_cubes(_: Any, values: Tensor, **__: Any) -> Tensor:
        return torch.cat([values[:, :5], torch.ones(len(values), 1), torch.full((len(values), 1), 31.0)], dim=1)

    monkeypatch.setattr("energycomp_clevr.turns.read_turns", as_cubes)
    plugins.register("models", "turned", lambda **_: turned)
    Image.new("RGB", (48, 32), "gray").save(tmp_path / "scene.png")
    told = []
    for more in ([], ["--last"]):
        words = ["infer", "turned", str(tmp_path / "scene.png"), "--count", "1", "--json", *more]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        told.append(json.loads(done.stdout.splitlines()[-1])["objects"][0])
    assert "turn" not in told[0]
    assert (told[1]["shape"], told[1]["turn"]) == ("cube", 30)


@torch.no_grad()
def test_a_canvas_has_one_view_and_turns_that_do_not_change_from_window_to_window(model: Model) -> None:
    scene = model.conditioner.widened(model, ["cube at 0.5,0.5"], (128, 384), 0)
    inner: list[Tensor] = []
    hook = model.denoiser.network.token.register_forward_pre_hook(lambda _, given: inner.append(given[0]))
    scene.eps(torch.randn(1, 16, 16, 48), torch.tensor([500.0]))
    hook.remove()
    tokens = torch.cat([part.reshape(-1, 24) for part in inner]).unique(dim=0)
    assert len(tokens[tokens[:, -1] == 1]) == 1
    turns = tokens[tokens[:, 15:17].any(1)][:, 15:17]
    assert len(turns) >= 1
    assert len(turns.unique(dim=0)) == 1
