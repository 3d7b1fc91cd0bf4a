"""Coloured shapes with masks, one lit object with its factors, and metrics of these images."""
