"""What a file of ænet says about one element, and the energies that follow from it."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from mace_scf_jax.backbones import Descriptor
from mace_scf_jax.backbones.chebyshev.networks import ACTIVATIONS, Architecture
from mace_scf_jax.backbones.chebyshev.normalisation import deviations_of_moments


class AenetFileError(ValueError):
    """A file is no potential of ænet that can be read, or files do not go together."""


Layer = tuple[Float[np.ndarray, "inputs nodes"], Float[np.ndarray, "nodes"]]
"""Weights and biases."""


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureRange:
    """Statistics of raw features over the atoms of one element."""

    minimum: Float[np.ndarray, "f"]
    maximum: Float[np.ndarray, "f"]
    average: Float[np.ndarray, "f"]
    second_moment: Float[np.ndarray, "f"]
    """⟨G²⟩, which ænet calls covariance."""
    atoms: int = 0
    """Number of atoms behind them; 0 if it is not known."""

    def normalised(self, features: Float[np.ndarray, "atoms f"]) -> Float[np.ndarray, "atoms f"]:
        """(G - ⟨G⟩)/σ; zero for features that hardly vary."""
        std = deviations_of_moments(self.average, self.second_moment)
        scale = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0.0)
        return (features - self.average) * scale


@dataclasses.dataclass(frozen=True)
class TrainingSummary:
    """What a file tells about the training set."""

    name: str
    atoms: int = 0
    """0 if it is not known, like the number of structures."""
    structures: int = 0
    energies: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Least, largest and mean energy per atom without that of isolated atoms, as the file has them:
    in eV, or normalised (`train.x` of ænet)."""


@dataclasses.dataclass(frozen=True, eq=False)
class ElementPotential:
    """The potential of the atoms of one element."""

    source: str
    """Path of the file, for messages."""
    description: str
    element: int
    """Atomic number."""
    descriptor: Descriptor
    architecture: Architecture
    layers: tuple[Layer, ...]
    """Hidden layers and the output."""
    features: FeatureRange
    E_scaling: float
    """S in 1/eV."""
    E_shift: float
    """e_0 in eV."""
    atomic_energies: dict[int, float]
    """E0 in eV by atomic number, in the order of the file."""
    training: TrainingSummary

    def energies(self, features: Float[np.ndarray, "atoms f"]) -> Float[np.ndarray, "atoms"]:
        """Energies of atoms of the element in eV, network/S + e_0 + E0.

        Args:
            features: raw ones.
        """
        values = self.features.normalised(features)
        activations = [*(name for _, name in self.architecture), "linear"]
        for (weights, biases), activation in zip(self.layers, activations, strict=True):
            values = np.asarray(ACTIVATIONS[activation](jnp.asarray(values @ weights + biases)))
        own = self.atomic_energies[self.element]
        return values[:, 0] / self.E_scaling + self.E_shift + own
