"""The network of `clevr`: its heads see a sketch of their object, and it finishes decoded pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from energycomp.components import Composition, Condition
from energycomp.denoisers import Cells, TwoStageUNet, configured
from energycomp.sampling import Finish, finish_pictures
from energycomp_clevr.finish import MAPS, drawing
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
        self.edges = Finish(MAPS) if finishes else None

    def begin(self) -> Finish:
        """What draws its edges; a new one, which leaves pictures as they are, where it has none."""
        if self.edges is None:
            self.edges = Finish(MAPS)
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
        if self.edges is None:
            return pictures

        def draw(tokens: Tensor) -> Tensor:
            is_view = tokens[:, -1] == 1
            views = tokens[is_view, -VIEW_COLUMNS:-1]
            return drawing(tokens[~is_view], pictures.shape[2:], views[0] if len(views) else None)

        return finish_pictures(self.edges, self, composition, pictures, draw)
