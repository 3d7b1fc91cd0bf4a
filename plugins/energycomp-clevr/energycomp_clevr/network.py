"""The network of `clevr`: its heads see a sketch of their object, and it finishes decoded pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from energycomp.components import Composition, Condition
from energycomp.denoisers import Cells, TwoStageUNet, configured
from energycomp_clevr.finish import Finish, drawing
from energycomp_clevr.prior import shown_conditions
from energycomp_clevr.sketch import SKETCHED, sketch
from energycomp_clevr.viewpoint import VIEW_COLUMNS


@configured
class SketchedUNet(TwoStageUNet):
    """A `TwoStageUNet` for tokens of `Objects(turns=True)`, whose head sees a sketch of the object.

    The sketch counts for nothing until it is trained: weights of a `TwoStageUNet` predict the same in it.

    Args:
        finishes: whether it draws straight edges into decoded pictures, see `Finish`; for tokens with room for a view.
    """

    config: dict[str, Any]  # by `configured`

    def __init__(self, *, finishes: bool = False, **config: object) -> None:
        super().__init__(**config)  # type: ignore[arg-type]
        self.sketch = torch.nn.Conv2d(SKETCHED, self.enter.out_channels, 3, padding=1, bias=False)
        torch.nn.init.zeros_(self.sketch.weight)
        self.edges = Finish() if finishes else None

    def begin(self) -> Finish:
        """What draws its edges; a new one, which leaves pictures as they are, where it has none."""
        if self.edges is None:
            self.edges = Finish()
            self.config["finishes"] = True
        return self.edges

    def placed(self, condition: Condition, cells: Cells) -> Tensor:
        """What a condition adds to the input of the head: its place, and its sketch; (R, head_channels, h, w)."""
        token = condition.rows[:, 0]
        seen = sketch(token * ~condition.null[:, None], cells)
        return super().placed(condition, cells) + self.sketch(seen.contiguous(memory_format=torch.channels_last))

    @torch.no_grad()
    def finish(self, composition: Composition, pictures: Tensor) -> Tensor:
        """As `energycomp.denoisers.Denoiser.finish`. Costs no network evaluation, and 0.1 CPU seconds a picture."""
        shown = None if self.edges is None else shown_conditions(composition, self, len(pictures))
        if self.edges is None or shown is None:
            return pictures
        made = []
        for picture, condition in zip(pictures.split(1), shown, strict=True):
            tokens = condition.rows[~condition.null, 0].to(picture)
            is_view = tokens[:, -1] == 1
            views = tokens[is_view, -VIEW_COLUMNS:-1]
            maps = drawing(tokens[~is_view], picture.shape[2:], views[0] if len(views) else None)
            kind = self.edges.enter.weight  # in half precision, say, or on a GPU
            made.append(self.edges(picture.to(kind), maps[None].to(kind)).to(picture))
        return torch.cat(made).clamp(-1, 1)
