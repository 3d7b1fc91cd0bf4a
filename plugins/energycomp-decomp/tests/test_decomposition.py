"""Taking pictures apart: stripes whose parts are known exactly, chains one by one, masks by brute force, refusals."""

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from energycomp import decompose, load, region
from energycomp.components import Composition, predict
from energycomp.decomposition import add, edit, recombine, traverse
from energycomp.denoisers import count_rows
from energycomp.errors import CheckpointError, InputError
from energycomp.images import strip, to_unit
from energycomp.models import Model, save_pretrained
from energycomp.sampling import make_scheduler, sample
from energycomp.seeds import seeded
from energycomp.testing import stripes_model, tiny_model
from energycomp.testing.models import BACKGROUND, Stripes, StripesEncoder
from energycomp_decomp import DiffusionDecomposer
from energycomp_decomp.diffusion import MASK_THRESHOLD
from energycomp_lab.checks import ConformanceError, check_encoder
from energycomp_lab.checks.painter import paint_stripes
from energycomp_lab.evaluation import Example, MaskIoU, MaskRecall, evaluate, match_masks

pytestmark = pytest.mark.usefixtures("stripes")
K, STEPS = 4, 5
RULES: tuple[Any, ...] = ("product", "mean")


def colours(batch: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, K, 3, generator=seeded(seed)) * 0.7 + 0.2


def test_parts_of_stripes_are_the_stripes() -> None:
    painted = colours(2)
    pictures = paint_stripes(painted)
    found = decompose(to_unit(pictures), stripes_model(), generator=seeded(0))
    assert torch.allclose(found.parts.whole, pictures, atol=1e-5)
    for k in range(K):
        alone = torch.full_like(painted, BACKGROUND)
        alone[:, k] = painted[:, k]
        assert torch.allclose(found.parts.images[:, k], paint_stripes(alone), atol=1e-5)
        assert torch.equal(found.parts.masks[:, k], paint_stripes(alone)[:, 0] != BACKGROUND)


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_any_number_of_latents_is_decoded(count: int) -> None:
    painted = colours(1)
    decomposer = DiffusionDecomposer(stripes_model())
    latents = decomposer.encode(paint_stripes(painted))
    several = torch.cat([latents, latents], dim=1)[:, :count]
    expected = torch.full_like(painted, BACKGROUND)
    for k in range(count):
        expected[0, k % K] += painted[0, k % K] - BACKGROUND  # a stripe that is there twice is twice as bright
    picture = decomposer.decode(several, generator=seeded(0))
    assert torch.allclose(picture, paint_stripes(expected).clamp(-1, 1), atol=1e-5)


def test_a_mean_shows_every_part_weaker_and_masks_differ_from_the_median() -> None:
    painted = colours(1)
    found = decompose(to_unit(paint_stripes(painted)), stripes_model(rule="mean"), generator=seeded(0))
    assert torch.allclose(found.parts.whole, found.parts.images.mean(1), atol=1e-5)
    images = found.parts.images
    expected = (images - images.median(dim=1, keepdim=True).values).abs().amax(2) > MASK_THRESHOLD
    assert found.parts.masks is not None
    assert torch.equal(found.parts.masks, expected)
    assert 0 < float(expected.float().mean()) < 1
    two = decompose(to_unit(paint_stripes(colours(1))), stripes_model(rule="mean", parts=2), generator=seeded(0))
    assert two.parts.masks is None  # a median of two is no ground


def test_weights_make_parts_stronger_and_weaker() -> None:
    painted = colours(1)
    decomposer = DiffusionDecomposer(stripes_model())
    latents = decomposer.encode(paint_stripes(painted))
    weights = torch.tensor([0.5, 0.0, 1.0, 1.0])
    # Weights that sum to 1 need no unconditional row.
    for given, rows in ((weights, 5 * (4 + 1)), (torch.tensor([[0.0, 0.0, 0.0, 1.0]]), 5 * 4)):
        with count_rows() as spent:
            shown = decomposer.decode(latents, weights=given, generator=seeded(0), num_inference_steps=5)
        weighted = BACKGROUND + (painted - BACKGROUND) * given.view(-1, 1)
        assert torch.allclose(shown, paint_stripes(weighted), atol=1e-5)
        assert spent.rows == rows
    varying: Any = region("left half")
    with pytest.raises(InputError, match=r"got weights \[left half\]; expected a tensor \(4,\) or \(1, 4\)"):
        decomposer.decode(latents, weights=varying, num_inference_steps=5)
    for wrong in (torch.ones(3), torch.ones(4).long(), torch.full((4,), torch.nan)):
        with pytest.raises(InputError, match="finite numbers"):
            decomposer.decode(latents, weights=wrong)


def test_what_is_done_with_latents_is_done_to_pictures() -> None:
    one, two = colours(1, 1), colours(1, 2)
    decomposer = DiffusionDecomposer(stripes_model())
    a, b = decomposer.encode(paint_stripes(one)), decomposer.encode(paint_stripes(two))

    def shown(latents: Tensor) -> Tensor:
        return decomposer.decode(latents, generator=seeded(0))

    mixed = torch.cat([one[:, :2], two[:, 2:]], dim=1)
    assert torch.allclose(shown(recombine([a, b], [[0, 1], [2, 3]])), paint_stripes(mixed), atol=1e-5)
    both = (one + two - BACKGROUND).clamp(max=1)
    assert torch.allclose(shown(add(a, b)), paint_stripes(both), atol=1e-5)
    expected = torch.full_like(one, BACKGROUND)
    expected[:, :2] = one[:, :2]
    assert torch.allclose(shown(a[:, :2]), paint_stripes(expected), atol=1e-5)
    expected = one.clone()
    expected[:, 2, 0] = 0.75
    expected[:, 2, 2] = 0.25
    shift = 0.75 - BACKGROUND, 0.25 - BACKGROUND  # latents are the place of a stripe, and its colour above the ground
    assert torch.allclose(shown(edit(a, 2, {1: shift[0], 3: shift[1]})), paint_stripes(expected), atol=1e-5)
    for value, some in zip((-0.1, 0.3), traverse(a, 1, 2, [-0.1, 0.3]), strict=True):
        expected = one.clone()
        expected[:, 1, 1] = BACKGROUND + value
        assert torch.allclose(shown(some), paint_stripes(expected), atol=1e-5)


def chain(model: Model, composition: Composition, noise: Tensor) -> Tensor:
    """One chain by itself, through the evaluator of compositions."""
    scheduler = make_scheduler("ddim", model.denoiser.alphas_cumprod, prediction_type="sample", value_range=(-1.0, 1.0))

    def predicted(x: Tensor, timestep: Tensor, kind: Any) -> Tensor:
        return predict(composition, x, timestep, prediction_type=kind)

    return sample(predicted, noise.shape, scheduler, num_inference_steps=STEPS, initial=noise, progress=False)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("count", [1, 3, 4])
def test_one_batch_of_chains_is_as_one_by_one_with_less_work(rule: Any, count: int) -> None:
    model, batch = stripes_model(rule=rule, leak=0.8), 2
    decomposer = DiffusionDecomposer(model)
    latents = decomposer.encode(torch.rand(batch, 3, 16, 16, generator=seeded(3)))[:, :count]
    with count_rows() as spent:
        parts = decomposer.parts(latents, generator=seeded(7), num_inference_steps=STEPS)
    noise = torch.randn(batch, 3, 16, 16, generator=seeded(7))
    with count_rows() as looped:
        for b in range(batch):
            leaves = [Composition.of(model.leaf(latents[b, k : k + 1])) for k in range(count)]
            whole = chain(model, model.compose(latents[b]), noise[b : b + 1])
            assert torch.allclose(parts.whole[b], whole[0].clamp(-1, 1), atol=1e-5)
            for k, leaf in enumerate(leaves):
                alone = chain(model, leaf, noise[b : b + 1])
                assert torch.allclose(parts.images[b, k], alone[0].clamp(-1, 1), atol=1e-5)
    needs_null = rule == "product" and count > 1
    reference = batch * (rule == "product")
    assert spent.rows == batch * STEPS * (2 * count + needs_null) + reference
    assert spent.rows - reference == looped.rows
    assert spent.trunks == batch * ((STEPS - 1) * (count + 1) + 1)
    assert looped.trunks == batch * STEPS * (count + 1)
    assert not torch.allclose(parts.whole, decomposer.parts(latents, generator=seeded(8)).whole, atol=1e-2)


@pytest.mark.parametrize("rule", RULES)
def test_decoding_costs_a_chain_a_picture(rule: Any) -> None:
    model = stripes_model(rule=rule, leak=0.8)
    decomposer = DiffusionDecomposer(model)
    latents = torch.randn(2, 3, 4, generator=seeded(1))
    with count_rows() as spent:
        pictures = decomposer.decode(latents, generator=seeded(2), num_inference_steps=STEPS)
    assert (spent.rows, spent.trunks) == (2 * STEPS * (3 + (rule == "product")), 2 * STEPS)
    noise = torch.randn(2, 3, 16, 16, generator=seeded(2))
    for b in range(2):
        expected = chain(model, model.compose(latents[b]), noise[b : b + 1]).clamp(-1, 1)
        assert torch.allclose(pictures[b : b + 1], expected, atol=1e-5)
    each = decomposer.decode(latents, generator=[seeded(3), seeded(4)], num_inference_steps=STEPS)
    alone = decomposer.decode(latents[1:], generator=seeded(4), num_inference_steps=STEPS)
    assert torch.allclose(each[1:], alone, atol=1e-5)


def test_a_network_of_one_stage() -> None:
    class OneStage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Stripes(leak=0.5)

        def forward(self, sample: Tensor, timestep: Tensor, condition: Any) -> Tensor:
            return self.inner.head(self.inner.features(sample, timestep), condition, torch.arange(len(sample)))

    two = stripes_model(leak=0.5)
    one = attrs.evolve(two, denoiser=attrs.evolve(two.denoiser, network=OneStage()))
    latents = torch.randn(2, 3, 4, generator=seeded(5))
    a, b = (DiffusionDecomposer(m).parts(latents, generator=seeded(0), num_inference_steps=3) for m in (one, two))
    assert torch.allclose(a.images, b.images, atol=1e-5)
    assert torch.allclose(a.whole, b.whole, atol=1e-5)


def test_an_encoder_in_training_is_asked_in_evaluation_mode() -> None:
    model = stripes_model()
    modes: list[bool] = []
    model.encoder.train().register_forward_hook(lambda module, *_: modes.append(module.training))
    DiffusionDecomposer(model).encode(torch.zeros(1, 3, 16, 16))
    assert modes == [False]
    assert model.encoder.training


BATCH = torch.zeros(2, K, 4)
WRONG: dict[str, tuple[Any, str]] = {
    "no part": (BATCH[:, :0], "at least one image and one row"),
    "no picture": (BATCH[:0], "at least one image and one row"),
    "one row": (BATCH[0], "expected floating point"),
    "whole numbers": (BATCH.long(), "expected floating point"),
    "a list": ([[0.0]], "type list"),
    "another model": (BATCH[..., :3], "width 3; expected 4, that of 'stripes'"),
    "not finite": (BATCH * torch.nan, "NaN or infinity"),
}


@pytest.mark.parametrize(("latents", "reason"), WRONG.values(), ids=WRONG.keys())
def test_latents_that_cannot_be_decoded(latents: Any, reason: str) -> None:
    decomposer = DiffusionDecomposer(stripes_model())
    with count_rows() as spent:
        for method in (decomposer.decode, decomposer.parts):
            with pytest.raises(InputError, match=reason):
                method(latents)
    assert spent.rows == 0


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no encoder": (lambda: DiffusionDecomposer(tiny_model()), "has no encoder"),
    "encoder without name": (lambda: attrs.evolve(stripes_model(), encoder_name=None), "expected both or neither"),
    "generators": (lambda: DiffusionDecomposer(stripes_model()).decode(BATCH, generator=[seeded(0)]), "expected one"),
    "no sources": (lambda: recombine([], []), "got 0 images"),
    "takes": (lambda: recombine([BATCH], [[0], [1]]), "rows of 2"),
    "row": (lambda: recombine([BATCH], [[4]]), "from 0 to 3"),
    "negative": (lambda: recombine([BATCH], [[-1]]), "from 0 to 3"),
    "nothing": (lambda: recombine([BATCH], [[]]), "one row"),
    "widths": (lambda: add(BATCH, BATCH[..., :2]), "all from one model"),
    "edited row": (lambda: edit(BATCH, 4, {0: 1.0}), "got part 4 of 4; expected a whole number from 0 to 3"),
    "dimension": (lambda: edit(BATCH, 0, {0: 1.0, 4: 1.0}), "got dimension 4 of 4; expected a whole number"),
    "negative dimension": (lambda: traverse(BATCH, 0, -1, [1.0]), "got dimension -1 of 4"),
    "value": (lambda: traverse(BATCH, 0, 0, [1.0, float("nan")]), "expected finite numbers"),
    "value of half precision": (lambda: edit(BATCH.half(), 0, {0: 1e6}), "expected finite numbers of torch.float16"),
    "masks": (lambda: match_masks(torch.zeros(1, 2, 2), torch.zeros(1, 3, 3)), "got masks"),
    "strip": (lambda: strip(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), torch.zeros(1, 2, 3, 4, 4)), "decompose"),
    "values": (
        lambda: evaluate(
            stripes_model(), [Example(torch.zeros(3, 16, 16), conditions=[(0.5, 0.5)])], MetricCollection([MaskIoU()])
        ),
        "expected the masks",
    ),
    "no examples": (lambda: evaluate(stripes_model(), [], MetricCollection([MaskIoU()])), "no examples"),
}


@pytest.mark.parametrize(("attempt", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_has_no_meaning(attempt: Callable[[], object], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        attempt()


def test_masks_are_matched_as_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    for found_count, true_count in itertools.product((0, 1, 3, 4), (1, 2, 4)):
        found = torch.from_numpy(rng.random((found_count, 5, 5)) < 0.5)
        true = torch.from_numpy(rng.random((true_count, 5, 5)) < 0.5)
        pairs = np.array([[float((f & t).sum() / (f | t).sum()) for f in found] for t in true])
        padded = np.concatenate([pairs.reshape(true_count, found_count), np.zeros((true_count, true_count))], axis=1)
        columns = itertools.permutations(range(padded.shape[1]), true_count)
        best = max(sum(padded[t, f] for t, f in enumerate(chosen)) for chosen in columns)
        iou = match_masks(found, true)
        assert iou.shape == (true_count,)
        assert float(iou.sum()) == pytest.approx(best, abs=1e-6)


def test_evaluation_counts_what_is_found_and_compares_with_the_mean_picture() -> None:
    painted = colours(3)
    painted[1, 2:] = BACKGROUND  # two stripes only
    pictures = paint_stripes(painted)
    stripe = torch.arange(16) // 4 == torch.arange(K)[:, None]
    masks = [stripe[:, None].expand(-1, 16, -1)[:count] for count in (4, 2, 4)]
    masks[2] = torch.cat([masks[2], torch.ones(1, 16, 16, dtype=torch.bool)])  # one that nothing finds
    examples = [Example(picture, masks=mask) for picture, mask in zip(pictures, masks, strict=True)]
    metrics = MetricCollection({"recall": MaskRecall(), "iou": MaskIoU()}, compute_groups=False)
    report = evaluate(stripes_model(), examples, metrics, progress=False)
    values = report.values
    assert (values["recall"], values["iou"]) == pytest.approx((10 / 11, 10 / 11))
    assert values["mse"] == pytest.approx(0, abs=1e-9)
    assert values["mse_baseline"] == pytest.approx(float((pictures - pictures.mean(0)).square().mean()), rel=1e-5)
    assert report.rows_per_image == 10 * (2 * K + 1) + 1
    assert report.intervals["mse_baseline"][0] < values["mse_baseline"] < report.intervals["mse_baseline"][1]
    assert {"recall", "iou", "mse", "mse_baseline", "images"} < report.as_dict().keys()
    without = [Example(torch.rand(3, 16, 16), masks=torch.zeros(0, 1, 1, dtype=torch.bool))]
    report = evaluate(stripes_model(), without, MetricCollection({"recall": MaskRecall()}), progress=False)
    assert report.as_dict()["recall"] is None
    assert report.values["mse"] > 0


def test_a_model_with_an_encoder_is_saved_and_loaded(tmp_path: Path) -> None:
    model = stripes_model(leak=0.3)
    assert model.encoder is not None
    with torch.no_grad():
        for parameter in model.trained.parameters():
            parameter.mul_(1.5)
    save_pretrained(model, tmp_path / "model", dtype=torch.float16)
    again = load(tmp_path / "model")
    assert model.trained.state_dict().keys() == again.trained.state_dict().keys() == {"network.scale", "encoder.scale"}
    pictures = torch.rand(1, 3, 16, 16)
    before, after = (decompose(to_unit(pictures), m, generator=seeded(0)).parts for m in (model, again))
    assert torch.equal(before.images, after.images)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda config, tensors: tensors.pop("encoder.scale"), "1 missing tensors"),
        (lambda config, tensors: config.pop("encoder"), "1 extra tensors, 'encoder.scale'"),
        (lambda config, tensors: config["encoder"].pop("config"), "KeyError: 'config'"),
        (lambda config, tensors: config["encoder"]["config"].update(parts=5), "does not describe a model"),
        (lambda config, tensors: tensors["encoder.scale"].fill_(torch.nan), "not finite"),
    ],
    ids=["weights", "config", "keys", "arguments", "numbers"],
)
def test_an_encoder_that_does_not_fit_its_file(tmp_path: Path, rewrite: Any, change: Any, reason: str) -> None:
    save_pretrained(stripes_model(), tmp_path / "model")
    rewrite(tmp_path / "model", change)
    with pytest.raises(CheckpointError, match=reason):
        load(tmp_path / "model")


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "expected (3, K, D)": lambda latents: latents.flatten(1),
    "NaN or infinity": lambda latents: latents / 0,
    "global random": lambda latents: latents + torch.rand(()),
    "one by one": lambda latents: latents - latents.mean(0),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_encoders_that_do_not_conform(reason: str) -> None:
    class Broken(StripesEncoder):
        def forward(self, samples: Tensor) -> Tensor:
            return FAULTS[reason](super().forward(samples))

    with pytest.raises(ConformanceError, match=re.escape(reason)):
        check_encoder(Broken())
