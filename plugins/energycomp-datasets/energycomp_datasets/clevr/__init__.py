"""CLEVR: a renderer of scenes with known places, and readers of CLEVR and CLEVRTex."""
