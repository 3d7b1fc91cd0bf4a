"""Blends of galaxies, taken apart: how many there are, and the light of each."""
