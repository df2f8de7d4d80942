"""One geometry, prepared for electrostatics: what does not depend on the multipoles.

`prepare` forms sums and corrections once; energy, field features and potentials are then linear or
quadratic in the multipoles and may be applied many times (see `operator`).
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.boundary import (
    BoundaryMode,
    check_pbc,
    check_slab_cell,
    encloses_volume,
    resolve_boundary,
)
from mace_scf_jax.electrostatics.corrections import Correction, correction
from mace_scf_jax.electrostatics.mesh_choice import uses_mesh
from mace_scf_jax.electrostatics.settings import ElectrostaticsSettings
from mace_scf_jax.electrostatics.sums import DirectSum, MeshSum, OpenSum, Summation
from mace_scf_jax.electrostatics.sums.direct import PHASES_IN_MEMORY
from mace_scf_jax.graph import Graph
from mace_scf_jax.mesh import Mesh, MeshError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class System:
    """A prepared geometry; with a leading axis of graphs on every array, a prepared batch."""

    positions: Float[Array, "atoms 3"]
    """Atomic positions in Å, zero for padding atoms."""
    atom_mask: Bool[Array, "atoms"]
    sums: Summation
    """The sums over the density, of the periodic system or of the open one."""
    correction: Correction | None
    """What makes a periodic sum that of a slab or of a molecule; None if there is nothing to do."""
    settings: ElectrostaticsSettings = dataclasses.field(metadata={"static": True})

    @property
    def has_pair_sums(self) -> bool:
        """Whether the interaction of each pair of atoms can be had from what is prepared.

        Not so with a mesh, nor if the phases of the wavevectors are made in chunks.
        """
        return self.sums.has_pair_sums

    def masked(self, multipoles: Float[Array, "atoms components"]) -> Array:
        """The multipoles, zero for padding atoms.

        Raises:
            ValueError: their number of components is not (max_l + 1)².
        """
        self.require_components(multipoles)
        return jnp.where(self.atom_mask[:, None], multipoles, 0.0)

    def require_components(self, multipoles: Float[Array, "atoms components"]) -> None:
        """Refuse multipoles that are not of the degree of the density.

        Raises:
            ValueError: their number of components is not (max_l + 1)².
        """
        if multipoles.shape[-1] != self.settings.num_multipoles:
            raise ValueError(
                f"multipoles have {multipoles.shape[-1]} components per atom, expected "
                f"{self.settings.num_multipoles} for max_l = {self.settings.max_l}"
            )


def prepare(
    positions: Float[Array, "atoms 3"],
    atom_mask: Bool[Array, "atoms"],
    cell: Float[Array, "3 3"],
    pbc: Bool[Array, "3"],
    k_indices: Int[Array, "kvectors 3"],
    k_mask: Bool[Array, "kvectors"],
    *,
    settings: ElectrostaticsSettings,
    mesh: Mesh | None = None,
    chunk: int | None = None,
) -> System:
    """Prepare one geometry.

    Args:
        positions: atomic positions in Å.
        atom_mask: False for padding atoms, whose other values do not matter.
        cell: lattice vectors in Å (rows); not used with open boundary, nor without atoms.
        pbc: periodicity along x, y, z; used by ``mixed_periodic`` only.
        k_indices: integer reciprocal indices of one half space up to `settings.kspace_cutoff`;
            not used with open boundary, nor with a mesh.
        k_mask: False for padding indices.
        settings: density and boundary condition.
        mesh: what `choose_mesh` gave on the host; None for direct sums.
        chunk: wavevectors whose phases are in memory together; None chooses by size.

    Returns:
        The prepared geometry.

    Raises:
        BoundaryError: the boundary condition is ``auto``.
        MeshError: the settings ask for a mesh, and there is none.
    """
    positions = jnp.where(atom_mask[:, None], positions, 0.0)
    # The cell of a padding graph may be singular, which would poison its derivatives.
    cell = jnp.where(jnp.any(atom_mask), cell, jnp.eye(3, dtype=cell.dtype))
    width, max_l = settings.smearing_width, settings.max_l
    sums: Summation
    if settings.boundary is BoundaryMode.REALSPACE:
        sums = OpenSum(positions, width=width, max_l=max_l)
    elif mesh is not None:
        sums = MeshSum.of(positions, cell, mesh=mesh, width=width, max_l=max_l)
    elif uses_mesh(settings, len(positions)):
        raise MeshError(
            f"sums {settings.sums.value!r} of {len(positions)} atoms need a mesh, found none; "
            "`choose_mesh` makes it on the host"
        )
    else:
        sums = DirectSum.of(
            positions,
            cell,
            k_indices,
            k_mask,
            fade=settings.fade,
            chunk=chunk,
            width=width,
            max_l=max_l,
        )
    corrected = correction(settings.boundary, pbc, cell, exponent=settings.molecule_exponent)
    return System(positions, atom_mask, sums, corrected, settings)


def prepare_batch(
    graph: Graph, *, settings: ElectrostaticsSettings, chunk: int | None = None
) -> System:
    """Prepare every graph of a batch.

    Args:
        settings: density and boundary condition.
        chunk: wavevectors of each graph whose phases are in memory together; None chooses by size.

    Returns:
        Prepared geometries, with a leading axis of graphs.

    Raises:
        BoundaryError: the boundary condition is ``auto``.
    """
    if chunk is None:
        chunk = max(1, PHASES_IN_MEMORY // max(1, graph.slots.size))
    return jax.vmap(functools.partial(prepare, settings=settings, mesh=graph.mesh, chunk=chunk))(
        graph.to_slots(graph.local_positions()),
        graph.slot_mask,
        jnp.asarray(graph.cell).astype(graph.dtype),
        graph.pbc,
        graph.k_indices,
        graph.k_mask,
    )


class ElectrostaticsInputError(ValueError):
    """Values that no electrostatic energy is defined for."""


def check_inputs(
    positions: Float[np.ndarray, "atoms 3"],
    multipoles: Float[np.ndarray, "atoms components"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    mode: BoundaryMode | str,
) -> None:
    """Refuse a system that the electrostatics cannot treat; traced functions cannot check values.

    Args:
        positions: atomic positions in Å (host array).
        multipoles: atomic multipoles in e Å^l (host array).
        cell: lattice vectors in Å (rows), of either handedness; not looked at with open boundary.
        pbc: periodicity along x, y, z.
        mode: boundary condition.

    Raises:
        ElectrostaticsInputError: NaN or infinity among positions or multipoles (names the first
            atom), or a cell without volume.
        BoundaryError: an unsupported periodicity, or a slab that is not in the xy plane.
    """
    for name, values in (("positions", positions), ("multipoles", multipoles)):
        faulty = np.flatnonzero(~np.all(np.isfinite(values), axis=1))
        if len(faulty):
            raise ElectrostaticsInputError(
                f"{name} of atom {faulty[0]}: found {values[faulty[0]].tolist()}, expected finite "
                "numbers"
            )
    check_pbc(pbc, mode)
    if resolve_boundary(mode, pbc) is BoundaryMode.REALSPACE:
        return
    if not encloses_volume(cell):
        raise ElectrostaticsInputError(
            f"cell: found {np.asarray(cell).tolist()}, expected three independent lattice vectors, "
            "also along open directions"
        )
    check_slab_cell(cell, pbc, mode)
