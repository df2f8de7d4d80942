"""One geometry, prepared for electrostatics: what does not depend on the multipoles.

`prepare` forms wavevectors, phases and corrections once; energy, field features and potentials are
then linear or quadratic in the multipoles and may be applied many times.
"""

from __future__ import annotations

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.boundary import BoundaryMode
from mace_scf_jax.electrostatics import corrections, mesh, reciprocal
from mace_scf_jax.electrostatics.corrections import Correction
from mace_scf_jax.electrostatics.mesh import MeshGeometry
from mace_scf_jax.electrostatics.mesh_settings import MeshError, SummationMethod
from mace_scf_jax.electrostatics.reciprocal import ReciprocalGeometry
from mace_scf_jax.electrostatics.settings import ElectrostaticsSettings
from mace_scf_jax.graph import Graph


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PeriodicPart:
    """What a system with reciprocal sums has and one with open boundary lacks."""

    geometry: ReciprocalGeometry | MeshGeometry
    correction: Correction

    @property
    def sums(self) -> types.ModuleType:
        """The module whose functions do the sums of this geometry: `reciprocal` or `mesh`."""
        return mesh if isinstance(self.geometry, MeshGeometry) else reciprocal


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class System:
    """A prepared geometry; with a leading axis of graphs on every array, a prepared batch."""

    positions: Float[Array, "atoms 3"]
    """Atomic positions in Å, zero for padding atoms."""
    atom_mask: Bool[Array, "atoms"]
    periodic: PeriodicPart | None
    """None with open boundary."""
    settings: ElectrostaticsSettings = dataclasses.field(metadata={"static": True})

    @property
    def has_pair_sums(self) -> bool:
        """Whether the interaction of each pair of atoms can be had from what is prepared.

        Not so with a mesh, nor if the phases of the wavevectors are made in chunks.
        """
        if self.periodic is None:
            return True
        geometry = self.periodic.geometry
        return isinstance(geometry, ReciprocalGeometry) and geometry.phases is not None

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
        chunk: wavevectors whose phases are in memory together; None chooses by size.

    Returns:
        The prepared geometry.

    Raises:
        BoundaryError: the boundary condition is ``auto``.
        MeshError: the method is ``auto``, or ``mesh`` without a mesh.
    """
    positions = jnp.where(atom_mask[:, None], positions, 0.0)
    periodic = None
    if settings.boundary is not BoundaryMode.REALSPACE:
        # The cell of a padding graph may be singular, which would poison its derivatives.
        cell = jnp.where(jnp.any(atom_mask), cell, jnp.eye(3, dtype=cell.dtype))
        periodic = PeriodicPart(
            geometry=_prepare_mesh(positions, cell, settings)
            if settings.method is not SummationMethod.DIRECT
            else reciprocal.prepare(
                positions, cell, k_indices, k_mask, fade=settings.fade, chunk=chunk
            ),
            correction=corrections.correction(
                settings.boundary,
                pbc,
                reciprocal.cell_volume(cell),
                exponent=settings.molecule_exponent,
            ),
        )
    return System(positions, atom_mask, periodic, settings)


def _prepare_mesh(
    positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"], settings: ElectrostaticsSettings
) -> MeshGeometry:
    if settings.method is SummationMethod.AUTO or settings.mesh is None:
        raise MeshError(
            f"found method {settings.method.value!r} and mesh {settings.mesh}; choose method and "
            "mesh on the host with `resolve_method` first"
        )
    return mesh.prepare(positions, cell, mesh=settings.mesh)


def prepare_batch(
    graph: Graph, *, settings: ElectrostaticsSettings, chunk: int | None = None
) -> System:
    """Prepare every graph of a batch.

    Args:
        graph: the batch.
        settings: density and boundary condition.
        chunk: wavevectors of each graph whose phases are in memory together; None chooses by size.

    Returns:
        Prepared geometries, with a leading axis of graphs.

    Raises:
        BoundaryError: the boundary condition is ``auto``.
    """
    if chunk is None:
        chunk = max(1, reciprocal.PHASES_IN_MEMORY // max(1, graph.slots.size))
    return jax.vmap(functools.partial(prepare, settings=settings, chunk=chunk))(
        graph.to_slots(graph.positions),
        graph.slot_mask,
        graph.cell,
        graph.pbc,
        graph.k_indices,
        graph.k_mask,
    )
