"""`energycomp explain`: an image in; which of its pixels each component explains out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from energycomp.errors import InputError
from energycomp.progress import working
from energycomp_cli.files import check_png
from energycomp_cli.items import read_image
from energycomp_cli.options import Components, Count, ModelName, Png, Run, loading, parse_count, read_text


def explain(
    run: Run,
    model: ModelName,
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="Image file.")],
    component: Components = None,
    out: Png = Path("explained.png"),
    count: Count = None,
) -> None:
    """Show which pixels of an image each component explains, and its share of the explained error.

    ```sh
    energycomp explain clevr scene.png -o explained.png
    energycomp explain text photo.png --component "red cube" --component "blue sphere"
    ```

    Components are the given ones, or those that infer or decompose finds. The PNG shows the image beside one map per
    component: the denoising error without it minus the error with it, relative to the maximum.
    """
    check_png(out)
    searched = parse_count(count)
    picture = read_image(image)
    with loading(model):
        import torch

        from energycomp.decomposition import decomposer_of
        from energycomp.images import save_image
        from energycomp.inference import OutOfDistributionWarning, answer_text, explain as explained, infer

        loaded = run.load(model, searchable=True, reads={"--component": component or []})
        known: Any = [read_text(loaded, text, "--component") for text in component or []]
    if searched is not None and (known or loaded.encoder is not None):
        what = "components that are given" if known else f"{model}, which reads its parts in one pass"
        raise InputError(f"got --count {count} with {what}; expected a search for it; leave it out")
    with working("energycomp: explaining ..."), warnings.catch_warnings():
        warnings.simplefilter("ignore", OutOfDistributionWarning)  # it is in the answer
        if known or loaded.encoder is not None:
            values = torch.cat(known) if known else decomposer_of(loaded).encode([picture])[0]
            solution = explained(picture, loaded, values, generator=run.seed)
        else:
            solution = infer(picture, loaded, count=searched, generator=run.seed, progress=False)
    save_image(solution.picture(maps=True), out)
    objects = solution.table()
    for row, share in zip(objects, [] if solution.share is None else solution.share.tolist(), strict=False):
        row["share"] = share
    record = {**solution.record(), "objects": objects, "maps": solution.maps().tolist(), "path": str(out)}
    warned = [f"warning: {one}" for one in solution.warnings]
    run.show(record, [answer_text(record, *warned), str(out)])
