"""Relations and scene graphs: what they mean, how they are written, and places that satisfy them."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from energycomp.errors import InputError
from energycomp.seeds import seeded
from energycomp_clevr.objects import Objects
from energycomp_datasets.clevr.layout import object_values, scene_of
from energycomp_scenes import Formula, SceneGraph, behind, layout_prior, left_of, near, placed, right_of, scene
from energycomp_scenes.layouts import prior_of, train_network
from energycomp_scenes.relations import KINDS, OPPOSITE, ground_of

INDEX = {"a": 0, "b": 1, "c": 2}
PAIRS = [("a", "b"), ("b", "c"), ("c", "a")]
FORMULAS = st.recursive(
    st.builds(Formula, st.sampled_from(sorted(KINDS)), st.sampled_from(PAIRS)),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=6,
)


def test_places_on_the_ground_are_those_of_the_record() -> None:
    scene = scene_of(3, 0, (6, 6))
    flat = torch.nn.functional.normalize(-scene.camera[:2], dim=0)
    right = torch.stack([flat[1], -flat[0]])
    true = torch.stack([scene.positions[:, :2] @ right, scene.positions[:, :2] @ flat], 1)
    assert torch.allclose(ground_of(object_values(scene), scene.camera), true, atol=1e-3)


@given(FORMULAS, st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_energies_and_truth_agree(formula: Formula, seed: int) -> None:
    ground = 4 * torch.randn(40, 3, 2, generator=seeded(seed))
    holds, energy = formula.holds(ground, INDEX), -formula.log_probability(ground, INDEX)
    assert bool(((~formula).holds(ground, INDEX) == ~holds).all())
    assert bool((energy[holds] < 12).all())  # at most a bit for each factor, and for each choice
    assert bool((energy[~holds] > 0.3).all())  # a factor that fails costs more than a bit, a choice less
    clearly = -formula.log_probability(ground, INDEX, clear=1.0)
    assert bool((clearly >= energy - 1e-5).all())


@given(FORMULAS)
@settings(max_examples=60, deadline=None)
def test_what_is_shown_is_read_back(formula: Formula) -> None:
    (read,) = scene(f"a: cube; b: cube; c: cube; ({formula!r}) or a near b").relations  # a choice has no circle
    ground = 3 * torch.randn(64, 3, 2, generator=seeded(0))
    assert read.parts[0].holds(ground, INDEX).equal(formula.holds(ground, INDEX))


def test_demands_are_what_must_hold() -> None:
    formula = ~(left_of("a", "b") | near("a", "c")) & behind("b", "c")
    graph = SceneGraph({"a": "cube", "b": "cube", "c": "cube"}, (formula,))
    assert graph.demands == (~left_of("a", "b"), ~near("a", "c"), behind("b", "c"))
    assert all(OPPOSITE[OPPOSITE[kind]] == kind for kind in OPPOSITE)


REFUSED = [
    ("", "without objects"),
    ("a left of b", "without objects"),
    ("a: cube; a left of c", "the name 'c'"),
    ("a: cube; a: sphere", "the name 'a'"),
    ("not: cube", "the name 'not'"),
    ("a: cube; b: cube; a above b", "got 'above'"),
    ("a: cube; b: cube; a left of", "got 'the end'"),
    ("a: cube; b: cube; (a left of b", r"no '\)'"),
    ("a: cube; b: cube; a left of b b", "got 'b'"),
    ("a: cube; a left of a", "relation to itself"),
    ("a: cube; b: cube; a left of b; b left of a", "b is left of a, a is left of b"),
    ("a: cube; b: cube; c: cube; a behind b; b behind c; not (c in front of a)", "without a circle"),
    # No places satisfy these.
    ("a: cube; b: cube; a near b; not a near b", "a near b"),
    ("a: cube at 0.8,0.5; b: cube at 0.2,0.5; a left of b", "a left of b"),
    ("a: cubus", "the word 'cubus'"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_what_a_scene_may_not_say(text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energycomp_scenes.placing.TRIES", 1)
    with pytest.raises(InputError, match=said):
        placed(scene(text), generator=0)


def test_places_satisfy_a_graph_and_keep_what_is_given() -> None:
    graph = scene(
        "a: red cube; b: small sphere at 0.5,0.5; c: cylinder; d: cube; a left of b; c right of b or c behind b; "
        "not d near a; d in front of b"
    )
    values = placed(graph, 6, generator=1)
    assert values.shape == (6, 4, 6)
    assert bool(graph.holds(ground_of(values)).all())
    assert values[:, 1, :2].allclose(torch.tensor([0.5, 0.5]))
    assert values[0, :, 2:].tolist() == [[0, 2, 0, 1], [1, 0, 0, 2], [0, 0, 0, 3], [0, 0, 0, 1]]
    assert bool(Objects().support.check(values.flatten(0, 1)).all())
    assert len(values[:, 0].unique(dim=0)) == 6
    assert placed(graph, 6, generator=1).equal(values)


def test_one_object_has_a_place() -> None:
    assert placed(scene("a: 0.3,0.4"), generator=0)[0, 0].tolist() == pytest.approx([0.3, 0.4, 0, 0, 0, 0])
    assert placed(scene("a: object"), 2, generator=0).shape == (2, 1, 6)


def test_a_layout_is_learned() -> None:
    random = seeded(0)
    scenes = []
    for _ in range(300):  # two objects: the second one is to the right of the first, at the same height
        first = torch.rand(2, generator=random) * torch.tensor([0.5, 1.0])
        scenes.append(torch.cat([torch.stack([first, first + torch.tensor([0.4, 0.0])]), torch.ones(2, 1)], 1))
    pairs = torch.tensor([[[0.2, 0.3], [0.6, 0.3]], [[0.2, 0.3], [0.6, 0.9]]])
    likely, unlikely = prior_of(train_network(scenes, steps=200)).energy(pairs)
    assert likely < unlikely - 3
    assert layout_prior() is layout_prior()


def test_formulas_are_of_formulas() -> None:
    for combine in (lambda: left_of("a", "b") & 1, lambda: right_of("a", "b") | "c"):
        with pytest.raises(TypeError):
            combine()
