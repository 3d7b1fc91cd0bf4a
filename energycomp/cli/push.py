"""`energycomp push`: a model and its card to a repository of the hub."""

from __future__ import annotations

from typing import Annotated

import typer

from energycomp.cli.options import AsJson, ModelName, loading
from energycomp.cli.output import print_report


def push(
    model: ModelName,
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Repository of the hub: owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, if it is made.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch to write to; it is made where it is missing.", show_default="main")
    ] = None,
    message: Annotated[str | None, typer.Option("-m", "--message", help="Message of the commit.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store the model in half precision; not for a folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Upload a model with its model card to the hub, in one commit.

    The files of a folder are verified and uploaded as they are. A card that the repository has already is kept. The
    token is that of `hf auth login`, or of the environment variable HF_TOKEN.

    energycomp push runs/mine/model owner/name --private

    energycomp sample owner/name "0.3,0.45" "0.7,0.6" -o scene.png
    """
    with loading(model):
        import torch

        from energycomp.models import push_to_hub

    dtype = torch.float16 if half else None
    url = push_to_hub(model, repo, private=private or None, commit_message=message, revision=revision, dtype=dtype)
    print_report({"repo": repo, "revision": revision or "main", "commit": url}, [url], as_json)
