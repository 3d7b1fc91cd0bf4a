"""COMET: energies of latents, for comparison with Decomp Diffusion (Du et al., 2021)."""

from energycomp_decomp.comet.decomposer import CometDecomposer
from energycomp_decomp.comet.energy import EnergyNet, LatentEnergy, comet_loss, descend
from energycomp_decomp.comet.model import untrained

__all__ = ["CometDecomposer", "EnergyNet", "LatentEnergy", "comet_loss", "descend", "untrained"]
