"""What every process of a pool imports; the server that they are copies of imports it once."""

import energycomp.inference  # noqa: F401 - imports torch
