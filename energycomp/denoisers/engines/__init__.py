"""Engines: what runs a network in place of torch's own kernels, such as OpenVINO. A module is one engine."""

from energycomp.denoisers.engines.engine import Engine as Engine, Run as Run, run_by as run_by
