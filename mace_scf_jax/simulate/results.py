"""What a model says about one structure, as a pytree."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.models import SCFState
from mace_scf_jax.predict.model import PER_ATOM_OUTPUTS
from mace_scf_jax.scf import JacobianMemory

_NAMED = (
    "energy",
    "forces",
    "stress",
    "electrostatic_energy",
    "node_energy",
    "contributions",
    "multipoles",
    "dipole",
    "total_charge",
    "polarizability",
    "fermi_level",
)
_STATUS = ("scf_status", "solver_status")
"""Outputs that are 0 where a solver converged."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Results:
    """Everything a model predicts for one structure; None for what it does not have."""

    energy: Float[Array, ""]
    """Total energy, eV."""
    forces: Float[Array, "atoms 3"] | None
    """-dE/dr, eV/Å."""
    stress: Float[Array, "3 3"] | None
    """dE/dε divided by the volume, eV/Å³ (ASE's sign: positive under tension)."""
    electrostatic_energy: Float[Array, ""] | None
    """Coulomb energy of the multipoles, part of the energy, eV."""
    node_energy: Float[Array, "atoms"]
    """Parts of the energy that belong to an atom, eV."""
    contributions: Float[Array, "terms"]
    """Isolated atoms and readout of each layer, parts of the energy, eV."""
    multipoles: Float[Array, "atoms components"] | None
    """Atomic multipoles, e Å^l, order Q, d_y, d_z, d_x."""
    dipole: Float[Array, "3"] | None
    """Dipole x, y, z, e Å."""
    total_charge: Float[Array, ""] | None
    """Sum of the charges, e."""
    polarizability: Float[Array, "3 3"] | None
    """From a readout, e Å²/V."""
    fermi_level: Float[Array, ""] | None
    """Fermi level of self-consistent models, eV."""
    further: dict[str, Array]
    """Outputs of single families by name, such as ``scf_steps``, ``chemical_potential``."""
    scf_memory: JacobianMemory | None
    """What the search for the multipoles has learned, if it started with such a memory."""
    valid: Bool[Array, ""]
    """Whether the neighbours were complete and the reciprocal vectors serve the cell. Where false,
    numbers are wrong: update the neighbours, or prepare the structure again."""

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether multipoles that are solved for are solved; true where they are not."""
        status = [self.further[name] == 0 for name in _STATUS if name in self.further]
        return status[0] if status else jnp.asarray(True)

    @property
    def scf_state(self) -> SCFState | None:
        """What a self-consistent model can start from at the next geometry; None for others."""
        if self.fermi_level is None:
            return None
        return SCFState(self.multipoles, self.fermi_level[None], self.scf_memory)


def to_results(outputs: dict[str, Array], valid: Bool[Array, ""]) -> Results:
    """Results from the outputs of a model for a batch of one structure without padding.

    Args:
        outputs: arrays by name.
        valid: whether the neighbours served.
    """
    memory = outputs.get("scf_memory")
    single = {
        name: values if name in PER_ATOM_OUTPUTS else values[0]
        for name, values in outputs.items()
        if name != "scf_memory"
    }
    named = {name: single.pop(name, None) for name in _NAMED}
    single.pop("virials", None)
    return Results(**named, further=single, scf_memory=memory, valid=valid)
