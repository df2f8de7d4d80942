"""What a model says about one structure, as a pytree."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mace_scf_jax.models import SCFState
from mace_scf_jax.models.outputs import OUTPUTS, ends_of_searches
from mace_scf_jax.scf import JacobianMemory
from mace_scf_jax.scf.status import SolverStatus


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Results:
    """Everything a model predicts for one structure; None for what it does not have.

    `mace_scf_jax.predict.model.Prediction` has the units and meanings.
    """

    energy: Float[Array, ""]
    forces: Float[Array, "atoms 3"] | None
    stress: Float[Array, "3 3"] | None
    electrostatic_energy: Float[Array, ""] | None
    node_energy: Float[Array, "atoms"]
    contributions: Float[Array, "terms"]
    multipoles: Float[Array, "atoms components"] | None
    dipole: Float[Array, "3"] | None
    total_charge: Float[Array, ""] | None
    polarizability: Float[Array, "3 3"] | None
    fermi_level: Float[Array, ""] | None
    further: dict[str, Array]
    """Outputs of single families by name, such as ``scf_steps``, ``chemical_potential``."""
    scf_memory: JacobianMemory | None
    """What the search for the multipoles has learned, if it started with such a memory."""
    valid: Bool[Array, ""]
    """Whether the neighbours were complete and the reciprocal vectors serve the cell. Where false,
    all numbers are NaN: update the neighbours, or prepare the structure again."""

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether multipoles that are solved for are solved; true where they are not."""
        converged = jnp.asarray(True)
        for end in ends_of_searches(self.further):
            converged &= self.further[end.name] == SolverStatus.CONVERGED
        return converged

    @property
    def scf_state(self) -> SCFState | None:
        """What a self-consistent model can start from at the next geometry; None for others."""
        if self.fermi_level is None:
            return None
        return SCFState(self.multipoles, self.fermi_level[None], self.scf_memory)

    def by_name(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """Outputs of the atoms, and all others with ``valid`` and ``converged``, by name."""
        named = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        named |= named.pop("further") | {"converged": self.converged, "scf_memory": None}
        named = {name: value for name, value in named.items() if value is not None}
        of_atoms = {
            name: named.pop(name)
            for name in list(named)
            if name in OUTPUTS and OUTPUTS[name].per_atom
        }
        return of_atoms, named


def to_results(outputs: dict[str, Array], valid: Bool[Array, ""]) -> Results:
    """Results from the outputs of a model for a batch of one structure.

    Args:
        outputs: arrays by name.
        valid: whether the neighbours served.
    """
    served = jnp.where(valid & jnp.isfinite(outputs["energy"][0]), 1.0, jnp.nan)
    outputs = {
        name: values * served.astype(values.dtype)
        if name != "scf_memory" and jnp.issubdtype(values.dtype, jnp.floating)
        else values
        for name, values in outputs.items()
    }
    memory = outputs.get("scf_memory")
    single = {
        name: values if OUTPUTS[name].per_atom else values[0]
        for name, values in outputs.items()
        if name not in ("scf_memory", "virials")
    }
    named = {
        name: single.pop(name, None) for name in OUTPUTS.keys() & Results.__annotations__.keys()
    }
    return Results(**named, further=single, scf_memory=memory, valid=valid)
