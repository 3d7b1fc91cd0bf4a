"""Coloured solids with the concepts that they show, and image folders named after concepts."""
