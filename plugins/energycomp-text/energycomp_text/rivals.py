"""Wrong sets of concepts of an image, which the small model learns to tell from the right one."""

from __future__ import annotations

from itertools import combinations

import attrs
import torch
from torch import Tensor

from energycomp.components import Conditioner
from energycomp_lab.training import Rivals

NONE = -1


@attrs.frozen(eq=False)
class Concepts:
    """The concepts of a data set, and which pairs (M, M) of them it shows: replaced concepts form no other pair."""

    names: tuple[str, ...]
    seen: Tensor

    @classmethod
    def of(cls, shown: Tensor, names: tuple[str, ...]) -> Concepts:
        """Of images that show concepts (N, K), as indices into `names` with -1 for none."""
        pairs = torch.cat([shown[:, list(pair)] for pair in combinations(range(shown.shape[1]), 2)])
        pairs = pairs[(pairs >= 0).all(dim=1)]
        seen = torch.zeros(len(names), len(names), dtype=torch.bool)
        seen[pairs[:, 0], pairs[:, 1]] = seen[pairs[:, 1], pairs[:, 0]] = True
        return cls(names, seen)

    def rivals(
        self,
        shown: Tensor,
        true: Tensor,
        conditioner: Conditioner,
        generator: torch.Generator,
        *,
        device: torch.device | str = "cpu",
    ) -> Rivals:
        """Rivals of sets of concepts: one left out, each replaced by others, and one too many.

        Concepts that share a word with the right one are mistaken for it most: each of its words stays in one of them.
        An image that shows none of the concepts (B, K) has no rivals; `true` (B, K) is the index of the row of each.
        """
        wrong: list[int] = []
        found: list[tuple[int, int, int]] = []  # the image, the row that is dropped, the row that is added
        for image, (concepts, rows) in enumerate(zip(shown.tolist(), true.tolist(), strict=True)):
            present = [concept for concept in concepts if concept >= 0]
            for concept, row in zip(concepts, rows, strict=True):
                others = [other for other in present if other != concept]
                if concept < 0:
                    continue
                if others:
                    found.append((image, row, NONE))
                for instead in self._instead(concept, others, generator):
                    found.append((image, row, len(wrong)))
                    wrong.append(instead)
            if present and (extra := _one_of([c for c in range(len(self.names)) if c not in present], generator)) >= 0:
                found.append((image, NONE, len(wrong)))
                wrong.append(extra)
        owner, dropped, added = torch.tensor(found, dtype=torch.long).reshape(-1, 3).to(device).unbind(1)
        values = [torch.empty(0, *conditioner.value_shape, dtype=torch.long)]
        values += [conditioner.parse(concept=self.names[concept]) for concept in wrong]
        return Rivals(conditioner(torch.cat(values).to(device)), owner=owner, dropped=dropped, added=added)

    def _instead(self, concept: int, others: list[int], generator: torch.Generator) -> list[int]:
        """Other concepts that form only pairs of the data set with the others: one for each word, or any."""
        every = set(range(len(self.names))) - {concept, *others}
        possible = [wrong for wrong in sorted(every) if self.seen[wrong, others].all()]
        words = dict.fromkeys(self.names[concept].split())
        alike = [[wrong for wrong in possible if word in self.names[wrong].split()] for word in words]
        chosen = [_one_of(wrong, generator) for wrong in alike if wrong]
        return list(dict.fromkeys(chosen)) or ([_one_of(possible, generator)] if possible else [])


def _one_of(options: list[int], generator: torch.Generator) -> int:
    return options[int(torch.randint(len(options), (), generator=generator))] if options else NONE
