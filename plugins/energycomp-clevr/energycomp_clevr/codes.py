"""The words of CLEVR, their codes, and the columns of the value of an object: x, y, its codes, and a turn."""

ATTRIBUTES = {
    "size": ("small", "large"),
    "color": ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
    "material": ("rubber", "metal"),
    "shape": ("cube", "sphere", "cylinder"),
}  # the words of CLEVR, in the order of their codes

SIZE = 2 + list(ATTRIBUTES).index("size")
SHAPE = 2 + list(ATTRIBUTES).index("shape")
TURN = 2 + len(ATTRIBUTES)
CUBE = 1 + ATTRIBUTES["shape"].index("cube")
QUARTER = 90  # degrees, after which a cube looks the same
