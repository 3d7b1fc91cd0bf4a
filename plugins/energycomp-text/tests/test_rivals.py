"""Wrong sets of concepts: each differs in one concept, and no replaced one forms a pair that was held out."""

import torch

from energycomp_datasets.solids.solids import CONCEPTS, held_out_pairs, seen_pairs
from energycomp_text.model import own_words
from energycomp_text.rivals import Concepts

SEEN = torch.tensor([[CONCEPTS.index(name) for name in pair] for pair in seen_pairs()])
KNOWN = Concepts.of(SEEN, CONCEPTS)


def drawn(shown: torch.Tensor, known: Concepts = KNOWN) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """The image of each rival, its concepts without what is added, and what is added."""
    words, rows = own_words(), torch.full_like(shown, -1)
    rows[shown >= 0] = torch.arange(int((shown >= 0).sum()))
    rivals = known.rivals(shown, rows, words, torch.Generator().manual_seed(0))
    of_row = {int(row): int(concept) for row, concept in zip(rows.flatten(), shown.flatten(), strict=True)}
    prompts = words(words.enumerate_support()).rows
    found = []
    for image, gone, came in zip(*(t.tolist() for t in (rivals.owner, rivals.dropped, rivals.added)), strict=True):
        kept = tuple(concept for concept in shown[image].tolist() if concept >= 0 and concept != of_row.get(gone, -2))
        added = ()
        if came >= 0:
            same = (prompts == rivals.condition.rows[came]).flatten(1).all(1).nonzero()[:, 0]
            added = (int(same),)
        found.append((image, kept, added))
    return found


def test_every_concept_is_left_out_and_each_of_its_words_replaced_and_one_is_too_many() -> None:
    found = drawn(torch.tensor([[0, 2], [3, -1], [-1, -1]]))
    assert [image for image, _, _ in found].count(0) == 6  # a red sphere beside a red cylinder is held out
    assert [image for image, _, _ in found].count(1) == 3
    assert {image for image, _, _ in found} == {0, 1}
    assert {kept for image, kept, added in found if image == 0 and not added} == {(0,), (2,)}
    assert [len(kept) + len(added) for image, kept, added in found if image == 1] == [1, 1, 2]


def test_no_rival_is_a_held_out_pair_or_the_truth() -> None:
    shown = SEEN.repeat(8, 1)
    held_out = {tuple(sorted(CONCEPTS.index(name) for name in pair)) for pair in held_out_pairs()}
    alike = others = 0
    for image, kept, added in drawn(shown):
        rival, true = tuple(sorted(kept + added)), tuple(sorted(shown[image].tolist()))
        assert rival != true
        assert rival not in held_out
        assert len(set(rival)) == len(rival)
        if len(rival) == 2:
            gone = CONCEPTS[next(iter(set(true) - set(kept)))]
            shares = bool(set(gone.split()) & set(CONCEPTS[added[0]].split()))
            alike, others = alike + shares, others + (not shares)
    assert alike / (alike + others) > 0.7  # most differ in their shape or their colour alone


def test_a_data_set_of_two_concepts_has_few_rivals() -> None:
    known = Concepts.of(torch.tensor([[0, 1]]), ("red cube", "blue sphere"))
    assert drawn(torch.tensor([[0, 1]]), known) == [(0, (1,), ()), (0, (0,), ())]
