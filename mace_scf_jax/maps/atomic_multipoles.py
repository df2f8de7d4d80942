"""Atoms with given multipoles, checked and made ready for the electrostatics."""

from __future__ import annotations

import dataclasses
import math

import ase
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.boundary import BoundaryMode
from mace_scf_jax.data.cells import coulomb_cell, electrostatic_cell
from mace_scf_jax.data.reciprocal import half_space_indices
from mace_scf_jax.data.sizes import round_up
from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    System,
    check_inputs,
    choose_mesh,
    choose_open_mesh,
    prepare,
    resolve_boundary,
)
from mace_scf_jax.electrostatics.moments import atomic_dipole_contributions
from mace_scf_jax.mesh import Mesh, OpenMesh


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AtomicMultipoles:
    """Multipoles at atoms in an external potential V0 + E·r; all arrays in float64."""

    positions: Float[Array | np.ndarray, "atoms 3"]
    """Positions in Å."""
    multipoles: Float[Array | np.ndarray, "atoms components"]
    """Multipoles in e Å^l, in the order of `harmonics`."""
    cell: Float[Array | np.ndarray, "3 3"]
    """Cell of the electrostatics in Å (rows)."""
    pbc: Bool[Array | np.ndarray, "3"]
    external_field: Float[Array | np.ndarray, "3"]
    """E, the gradient of the external potential, in V/Å (x, y, z)."""
    k_indices: Int[Array | np.ndarray, "kvectors 3"]
    k_mask: Bool[Array | np.ndarray, "kvectors"]
    """False for padding: sizes are rounded up, so that cells of similar size compile once."""
    repeat: Float[Array | np.ndarray, ""]
    """Length in Å as of `mace_scf_jax.data.cells.repeat_length`."""
    settings: ElectrostaticsSettings = dataclasses.field(metadata={"static": True})
    """Density and boundary condition, which is not ``auto``."""
    mesh: Mesh | None = dataclasses.field(default=None, metadata={"static": True})
    """Grid of the sums; None for direct ones."""
    open_mesh: OpenMesh | None = dataclasses.field(default=None, metadata={"static": True})
    """The same without periodic direction in the boundary condition ``exact``."""

    def strained(self, strain: Float[Array, "3 3"]) -> AtomicMultipoles:
        """The same multipoles at atoms and in a cell transformed by 1 + ½(ε + εᵀ)."""
        symmetric = 0.5 * (strain + strain.T)
        return dataclasses.replace(
            self,
            positions=self.positions + self.positions @ symmetric,
            cell=self.cell + self.cell @ symmetric,
        )

    def prepared(self, *, chunk: int | None = None) -> System:
        """The geometry, prepared for sums.

        Args:
            chunk: wavevectors whose phases are in memory together; None chooses by size.
        """
        return prepare(
            jnp.asarray(self.positions),
            jnp.ones(len(self.positions), dtype=bool),
            jnp.asarray(self.cell),
            jnp.asarray(self.pbc),
            jnp.asarray(self.k_indices),
            jnp.asarray(self.k_mask),
            jnp.asarray(self.repeat),
            settings=self.settings,
            mesh=self.mesh,
            open_mesh=self.open_mesh,
            chunk=chunk,
        )

    def dipole(self) -> Float[Array, "3"]:
        """Σ Q_i r_i + d_i in e Å (x, y, z)."""
        return jnp.sum(
            atomic_dipole_contributions(jnp.asarray(self.positions), jnp.asarray(self.multipoles)),
            axis=0,
        )


def multipoles_of_atoms(
    atoms: ase.Atoms,
    multipoles: Float[np.ndarray, "atoms components"],
    *,
    settings: ElectrostaticsSettings,
    external_field: Float[np.ndarray, "3"] | None = None,
    reach: float = 0.0,
) -> AtomicMultipoles:
    """Check multipoles and their atoms, and choose boundary condition and reciprocal vectors.

    Atoms without periodic direction get the cell of `electrostatic_cell`.

    Args:
        atoms: positions, cell and periodicity.
        multipoles: in e Å^l, in the order of `harmonics`.
        settings: density and boundary condition; ``auto`` is resolved for these atoms.
        external_field: gradient of an external potential in V/Å; None for none.
        reach: distance in Å above and below a slab to which its potential is to hold in the
            boundary condition ``exact``; further away it is NaN.

    Raises:
        ElectrostaticsInputError: NaN or infinity, or a cell without volume.
        BoundaryError: the periodicity does not fit the boundary condition.
        MeshError: a mesh is asked for, and the boundary is open or the accuracy out of reach.
        DataError: lattice vectors of periodic directions are zero or linearly dependent.
        ValueError: there are not (max_l + 1)² multipoles for each atom, or the field is not three
            finite numbers.
    """
    multipoles = np.asarray(multipoles, dtype=np.float64)
    expected = (len(atoms), settings.num_multipoles)
    if multipoles.shape != expected:
        raise ValueError(
            f"multipoles: found shape {multipoles.shape}, expected {expected} for {len(atoms)} "
            f"atoms and max_l = {settings.max_l}"
        )
    field = np.zeros(3) if external_field is None else np.asarray(external_field, dtype=np.float64)
    if field.shape != (3,) or not np.all(np.isfinite(field)):
        raise ValueError(f"external field: found {field.tolist()}, expected three finite numbers")
    pbc = np.array(atoms.pbc, dtype=bool)
    positions = np.array(atoms.positions, dtype=np.float64)
    cell, _ = electrostatic_cell(np.array(atoms.cell, dtype=np.float64), pbc, positions)
    settings = dataclasses.replace(settings, boundary=resolve_boundary(settings.boundary, pbc))
    check_inputs(positions, multipoles, cell, pbc, settings.boundary)
    k_indices, count, mesh = np.zeros((0, 3), dtype=np.int32), 0, None
    tails = None if settings.tails is None else settings.tails + reach
    repeated, repeat = coulomb_cell(positions, cell, pbc, tails)
    open_mesh = None
    if math.isinf(repeat):
        open_mesh = choose_open_mesh(settings, positions)
    else:
        mesh = choose_mesh(settings, repeated, len(atoms))
    if not (settings.boundary is BoundaryMode.REALSPACE or math.isinf(repeat) or mesh):
        k_indices = half_space_indices(repeated, settings.kspace_cutoff, with_zero=repeat > 0.0)
        count = round_up(len(k_indices))
    padded = np.zeros((count, 3), dtype=np.int32)
    padded[: len(k_indices)] = k_indices
    return AtomicMultipoles(
        positions=positions,
        multipoles=multipoles,
        cell=cell,
        pbc=pbc,
        external_field=field,
        k_indices=padded,
        k_mask=np.arange(count) < len(k_indices),
        repeat=np.asarray(repeat),
        settings=settings,
        mesh=mesh,
        open_mesh=open_mesh,
    )
