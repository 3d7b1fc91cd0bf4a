"""Arrow rooms and rooms with solids, with masks, readers of mask files, and a classifier of arrow rooms."""
