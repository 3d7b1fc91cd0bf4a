"""Questions and relations of a reading: CLEVR's programs, questions in words, and what cannot be answered."""

from typing import Any
from warnings import catch_warnings, simplefilter

import attrs
import pytest
import torch

from energycomp import Composer, Solution, infer, load
from energycomp.errors import InputError
from energycomp.inference import AttributeErrors
from energycomp.seeds import seeded
from energycomp_scenes import Belief, answer, belief, joined, left_of, near
from energycomp_scenes.questions import program_of
from energycomp_scenes.reading import SIZES, pool

CODES = torch.tensor([[1, 2, 2, 1], [2, 3, 1, 2], [2, 2, 1, 1]])  # small red metal cube, large blue rubber sphere, ...
GROUND = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, -1.0]])


def certain() -> Belief:
    return Belief(GROUND[None], CODES[None])


SAID = [
    ("How many cubes are there?", 2),
    ("How many red things are in front of the sphere?", 2),
    ("how many other things are behind the large cube", 2),
    ("how many metal things are left of the blue sphere?", 1),
    ("what color is the small cube?", "red"),
    ("What shape is the thing that is right of the blue ball?", "cube"),
    ("what material is the big cube in front of the sphere?", "rubber"),
    ("what size is the shiny block?", "small"),
    ("what is left of the large cube?", [1, 2]),
    ("what is right of the large cube?", []),
    ("is there a green thing?", "no"),
    ("are there any large things behind the small cube?", "yes"),
    ("is the sphere blue?", "yes"),
    ("is the large sphere metallic?", "no"),
    ("is the small cube left of the sphere?", "yes"),
    ("is the small cube behind the sphere?", "no"),
    ("is the small cube near the sphere?", "yes"),
    ("how many things are in the same row as the sphere?", 0),
    ("are there more cubes than spheres?", "yes"),
    ("are there fewer cubes than spheres?", "no"),
    ("are there as many small things as spheres?", "yes"),
    ("is the sphere the same size as the large cube?", "yes"),
    ("does the small cube have the same colour as the sphere?", "no"),
    ("what color is the cube?", None),
    ("what color is the cylinder?", None),
]


@pytest.mark.parametrize(("question", "said"), SAID)
def test_questions_in_words(question: str, said: Any) -> None:
    found = answer(question, certain())
    assert found.value == said
    assert found.probability == (0.0 if said is None else 1.0)
    assert found.granted == (said is not None)


UNCLEAR = (
    "", "why?", "how many", "how many cubs?", "what is left of the", "is the sphere very blue?", "what color the cube"
)  # fmt: skip


@pytest.mark.parametrize("question", UNCLEAR)
def test_questions_that_are_not_understood(question: str) -> None:
    with pytest.raises(InputError, match="expected"):
        program_of(question)


def step(function: str, *inputs: int, word: str | None = None) -> dict[str, Any]:
    return {"type": function, "inputs": list(inputs), "side_inputs": [] if word is None else [word]}


def test_programs_of_the_official_files() -> None:
    scene, cube = step("scene"), step("filter_shape", 0, word="cube")
    large = [scene, step("filter_size", 0, word="large"), step("filter_shape", 1, word="cube"), step("unique", 2)]
    left, behind = step("relate", 3, word="left"), step("relate", 3, word="behind")
    both = [scene, cube, step("count", 1), step("count", 0)]
    for program, said in (
        ([*large, step("same_color", 3), step("count", 4)], 1),
        ([*large, left, step("filter_shape", 4, word="cube"), step("union", 5, 1), step("count", 6)], 3),
        ([*large, behind, step("intersect", 4, 1), step("exist", 5)], "yes"),
        ([*both, step("less_than", 2, 3)], "yes"),
        ([*both, step("greater_than", 2, 3)], "no"),
        ([*both, step("equal_integer", 2, 3)], "no"),
        (large, [3]),  # the object itself, by its number
    ):
        assert answer(program, certain()).value == said


def test_programs_that_there_are_not() -> None:
    scene = step("scene")
    for program in (
        [], [step("dance")], [step("filter_color", 0, word="red")], [scene, step("filter_color", 0, word="mauve")],
        [scene, step("filter_color", 0)], [scene, step("relate", 0, word="above")],
        [scene, step("unique", 0), step("relate", 1, word="above")],
    ):  # fmt: skip
        with pytest.raises(InputError, match="expected"):
            answer(program, certain())


def test_what_is_taken_for_granted_is_evidence() -> None:
    codes = CODES.expand(4, -1, -1).clone()
    codes[1:, 2, 1] = 3  # in three of four scenes the large cube is blue, like the sphere
    unsure = Belief(GROUND.expand(4, -1, -1), codes)
    assert answer("what color is the large cube?", unsure).value == "blue"
    found = answer("what shape is the blue thing?", unsure)  # there is one in a single scene
    assert (found.value, found.granted, found.probability) == ("sphere", 0.25, 1.0)
    assert str(found) == "sphere (100%)"
    assert "no answer" in str(answer("what shape is the cyan thing?", unsure))


def test_the_probability_of_a_set_is_its_share_of_the_samples() -> None:
    """Three cubes left of a sphere: in most samples two of them are left of it, but another pair in each."""
    codes = torch.tensor([[1, 2, 2, 1]] * 3 + [[2, 3, 1, 2]]).expand(10, -1, -1)
    left, right = [-1.0, 0.0], [1.0, 0.0]
    rows = [[left, left, right]] * 4 + [[left, right, left]] * 3 + [[right, left, left]] * 3
    ground = torch.tensor([[*row, [0.0, 0.0]] for row in rows])
    found = answer("what is left of the sphere?", Belief(ground, codes))
    assert found.value == [1, 2]  # 1, 2, 3 are in it by their marginals of 0.7, and no sample has all three
    assert found.probability == pytest.approx(0.4)
    for alone in (answer("what is left of the sphere?", Belief(ground[:, 3:], codes[:, 3:])),
                  answer([step("scene")], Belief(ground[:, 4:], codes[:, 4:]))):  # fmt: skip
        assert (alone.value, alone.probability) == ([], 1.0)


@pytest.mark.parametrize(
    "question", ["what color is the thing?", "how many red things are there?", "is the thing large?"]
)
def test_a_question_about_words_that_were_not_read_is_refused(question: str) -> None:
    """They were answered with the last word of the attribute, and with 0, at 100 %."""
    places = belief(solution(values=torch.tensor([[0.3, 0.5, 0, 0, 0, 0.0]])))
    assert answer("how many things are there?", places).value == 1
    with pytest.raises(InputError, match="expected"):
        answer(question, places)


def solution(words: torch.Tensor | None = None, values: torch.Tensor | None = None) -> Solution:
    known = torch.tensor([[0.3, 0.5, 1, 2, 2, 1], [0.7, 0.5, 2, 3, 1, 2.0]]) if values is None else values
    posteriors = None if words is None else words.split(SIZES, dim=1)
    return Solution(known, len(known), 0.0, 0.0, 0, posteriors=posteriors)


def test_a_belief_has_the_words_and_places_of_a_reading() -> None:
    words = torch.zeros(2, 15)
    words[:, [0, 1]] = torch.tensor([[0.8, 0.2], [0.0, 1.0]])
    words[:, 3], words[:, 10], words[:, 12] = 1.0, 1.0, 1.0
    read = belief(solution(words), draws=4000)
    assert abs(float((read.codes[:, 0, 0] == 1).float().mean()) - 0.8) < 0.03
    assert bool((read.codes[:, :, 1:] == torch.tensor([2, 1, 1])).all())
    assert read.probability(left_of("1", "2")) == 1.0
    (row,) = read.relations()
    assert row["left of"] == 1.0
    assert 0.05 < row["in front of"] < 0.95  # at the same height in the picture, and maybe of different sizes
    assert row["near"] == read.probability(near("1", "2"))


def test_a_belief_of_few_objects() -> None:
    empty = belief(solution(values=torch.zeros(0, 6)))
    assert empty.relations() == []
    assert answer("how many things are there?", empty).value == 0
    assert answer("what color is the cube?", empty).value is None
    plain = belief(solution(), draws=10)  # a reading without certainties
    assert bool((plain.codes == solution().conditions[:, 2:].long()).all())
    with pytest.raises(InputError, match="no objects"):
        belief(Solution(torch.zeros(2, 2), 2, 0.0, 0.0, 0))
    with pytest.raises(InputError, match="the object '7'"):
        certain().probability(left_of("1", "7"))


def test_evidence_that_two_readers_share_counts_once() -> None:
    """The pool of a posterior with itself is itself, and a likelihood can be taken up before or after pooling."""
    draw = seeded(0)
    p, q, likelihood = (torch.rand(3, 4, generator=draw).softmax(1) for _ in range(3))
    torch.testing.assert_close(pool(p, p), p)
    before = [one * likelihood / (one * likelihood).sum(1, keepdim=True) for one in (p, q)]
    after = pool(p, q) * likelihood
    torch.testing.assert_close(pool(*before), after / after.sum(1, keepdim=True))


def test_a_reader_joined_with_itself_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    words = torch.rand(2, 15, generator=seeded(0))
    words[0, 12] = 2.0  # a cube
    posteriors = tuple(each / each.sum(1, keepdim=True) for each in words.split(SIZES, 1))
    words = torch.cat(posteriors, dim=1)
    codes = torch.stack([each.argmax(1) + 1 for each in posteriors], dim=1)
    values = torch.cat([torch.tensor([[0.3, 0.5], [0.7, 0.5]]), codes], dim=1)
    read = Solution(
        values, 2, 1.0, 0.1, 0, p_value=0.03, component_gain=torch.ones(2), posteriors=posteriors,
        fit=0.9,
    )  # fmt: skip
    model = load("clevr-small")
    assert model.defaults.beta is not None

    def says(said: torch.Tensor) -> None:
        errors = tuple(-each.log() / model.defaults.beta for each in said.split([2, 8, 2, 3], 1))
        monkeypatch.setattr(
            "energycomp_scenes.reading.read_attributes", lambda *_, **__: AttributeErrors(values, errors)
        )

    says(words)
    both = joined(read, torch.zeros(3, 64, 64), model)
    torch.testing.assert_close(torch.cat(both.posteriors, dim=1), words)
    assert (both.error, both.p_value, both.fit) == (1.0, 0.03, 0.9)  # of the same words
    cubes = (values[:, 5:] == 1).float()
    turned = attrs.evolve(read, conditions=torch.cat([values, 31 * cubes], dim=1))
    kept = joined(turned, torch.zeros(3, 64, 64), model)
    assert cubes[:, 0].tolist() == [1.0, 0.0]
    assert kept.conditions.equal(turned.conditions)  # with the turns that were read
    assert kept.error == 1.0
    says(words.flip(0).square())  # another reader, which is surer
    other = joined(read, torch.zeros(3, 64, 64), model)
    assert not torch.equal(other.conditions, values)
    assert (other.p_value, other.component_gain, other.fit, other.runner_up) == (None,) * 4
    assert other.record()["error"] is None  # it is not known of these words
    with pytest.raises(InputError, match="to join"):
        joined(Solution(torch.zeros(1, 6), 1, 0.0, 0.0, 0), torch.zeros(3, 64, 64), model)
    unknown = attrs.evolve(read, posteriors=tuple(torch.full_like(each, torch.nan) for each in posteriors))
    with pytest.raises(InputError, match="to join"):  # of a model without an inverse temperature
        joined(unknown, torch.zeros(3, 64, 64), model)


def test_two_readings_are_joined() -> None:
    model, other = (
        attrs.evolve(one, defaults=attrs.evolve(one.defaults, draws=4)) for one in map(load, ["clevr-small"] * 2)
    )
    image = Composer([model("large red rubber cube at 0.4,0.5")]).sample(generator=0, num_inference_steps=20)[0]
    with catch_warnings():
        simplefilter("ignore")
        read = infer(image, model, count=1)
    both = joined(read, image, other)
    assert torch.allclose(both.posteriors[1].sum(), torch.tensor(1.0))
    assert both.rows > read.rows
    assert both.table()[0]["color"] == "red"
    assert (both.error, both.p_value) == (read.error, read.p_value)  # of the same words
