"""The page: its tabs."""

from __future__ import annotations

import gradio as gr

from energycomp_studio.library import Library
from energycomp_studio.parts import stopper
from energycomp_studio.tabs.compose import compose_tab
from energycomp_studio.tabs.decompose import decompose_tab
from energycomp_studio.tabs.read import read_tab
from energycomp_studio.worker import Worker


def build(model: str, *, device: str = "cpu") -> gr.Blocks:
    """The page.

    Args:
        model: that is shown first.
        device: where models run.
    """
    library, worker = Library(model, device), Worker()
    with gr.Blocks(title="energycomp studio", analytics_enabled=False) as blocks:
        with gr.Tab("Compose", id="compose"):
            compose_tab(blocks, library, worker, prefix="compose", choose=False)
        with gr.Tab("Read", id="read"):
            read_tab(library, worker)
        with gr.Tab("Decompose", id="decompose"):
            decompose_tab(library, worker)
        with gr.Tab("Models", id="models"):
            compose_tab(blocks, library, worker, prefix="models", choose=True)
        blocks.unload(stopper(worker))  # of the browser tab that was closed
    blocks.queue(max_size=64, default_concurrency_limit=1, api_open=False)
    return blocks
