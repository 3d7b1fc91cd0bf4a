"""The page: its title, and its tabs."""

from __future__ import annotations

from importlib.metadata import metadata

import gradio as gr

from energycomp_studio.library import Library
from energycomp_studio.parts import FREE, stopper
from energycomp_studio.tabs.compose import compose_tab
from energycomp_studio.tabs.decompose import decompose_tab
from energycomp_studio.tabs.models import models_tab
from energycomp_studio.tabs.read import read_tab
from energycomp_studio.tabs.track import track_tab
from energycomp_studio.worker import Worker


def build(model: str, *, device: str = "cpu") -> gr.Blocks:
    """Builds the page; `model` is shown first."""
    library = Library(model, device)
    worker = Worker()
    with gr.Blocks(title="energycomp studio", analytics_enabled=False) as blocks:
        gr.HTML(_title(), elem_id="studio-title")
        stop = gr.Button("Stop", variant="stop", visible=False, elem_id="studio-stop")
        with gr.Tabs(elem_id="studio-tabs") as tabs:
            with gr.Tab("Compose", id="compose"):
                opened = compose_tab(blocks, library, worker, stop)
            with gr.Tab("Read", id="read"):
                reads = read_tab(library, worker, stop)
            with gr.Tab("Track", id="track"):
                track_tab(library, worker, stop)
            with gr.Tab("Decompose", id="decompose"):
                decomposes = decompose_tab(library, worker, stop)
            with gr.Tab("Models", id="models"):
                models_tab(library, worker, tabs, opened, reads, decomposes)
        stop.click(stopper(worker), None, None, **FREE)
        blocks.unload(stopper(worker))  # of the browser tab that was closed
    blocks.queue(max_size=64, default_concurrency_limit=1, api_open=False)
    return blocks


def _title() -> str:
    urls = dict(entry.split(", ", 1) for entry in metadata("energycomp-studio").get_all("Project-URL") or ())
    links = {"Documentation": f"{urls['Repository']}/blob/main/docs/studio.md", "Source": urls["Repository"]}
    linked = "".join(f"<a href='{url}' target='_blank' rel='noopener'>{name}</a>" for name, url in links.items())
    return f"<header class='studio-title'><h1>energycomp studio</h1><nav>{linked}</nav></header>"
