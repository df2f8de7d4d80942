"""One geometry, prepared for electrostatics: what does not depend on the multipoles.

`prepare` forms sums and corrections once; energy, field features and potentials are then linear or
quadratic in the multipoles and may be applied many times (see `operator`).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mace_scf_jax.boundary import (
    BoundaryError,
    BoundaryMode,
    check_pbc,
    check_slab_cell,
    encloses_volume,
    is_slab,
    plane_normal,
    repeated_cell,
    resolve_boundary,
)
from mace_scf_jax.electrostatics.corrections import Correction, correction
from mace_scf_jax.electrostatics.mesh_choice import uses_mesh
from mace_scf_jax.electrostatics.settings import ElectrostaticsSettings
from mace_scf_jax.electrostatics.sums import (
    DirectSum,
    DisplacedSum,
    MeshSum,
    OpenSum,
    SumByPeriodicity,
    Summation,
    Truncation,
)
from mace_scf_jax.electrostatics.sums.direct import PHASES_IN_MEMORY
from mace_scf_jax.electrostatics.sums.truncation import keeps_copies_apart, room_beside_slab
from mace_scf_jax.graph import Graph
from mace_scf_jax.mesh import Mesh, MeshError, OpenMesh


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
    repeat: Float[Array, ""] | None = None,
    *,
    settings: ElectrostaticsSettings,
    open_slots: int | None = None,
    mesh: Mesh | None = None,
    open_mesh: OpenMesh | None = None,
    chunk: int | None = None,
) -> System:
    """Prepare one geometry.

    Args:
        positions: atomic positions in Å.
        atom_mask: False for padding atoms, whose other values do not matter.
        cell: lattice vectors in Å (rows); not used with open boundary, nor without atoms.
        pbc: periodicity along x, y, z; used by ``mixed_periodic`` and ``exact``.
        k_indices: integer reciprocal indices of one half space up to `settings.kspace_cutoff`;
            not used with open boundary, nor with a mesh.
        k_mask: False for padding indices.
        repeat: for the boundary conditions ``exact`` and ``displaced_charges``, what
            `mace_scf_jax.data.cells.repeat_length` gave on the host.
        settings: density and boundary condition.
        open_slots: how many atoms there are at most without a periodic direction, of those of a
            batch; None for all.
        mesh: what `choose_mesh` gave on the host; None for direct sums.
        open_mesh: what `choose_open_mesh` gave; None for sums over pairs.
        chunk: wavevectors whose phases are in memory together; None chooses by size.

    Returns:
        The prepared geometry.

    Raises:
        BoundaryError: the boundary condition is ``auto``, or one that needs it is without
            ``repeat``.
        MeshError: the settings ask for a mesh, and there is none.
    """
    positions = jnp.where(atom_mask[:, None], positions, 0.0)
    # The cell of a padding graph may be singular, which would poison its derivatives.
    cell = jnp.where(jnp.any(atom_mask), cell, jnp.eye(3, dtype=cell.dtype))
    if settings.boundary is BoundaryMode.REALSPACE:
        pairs = OpenSum(positions, width=settings.smearing_width, max_l=settings.max_l)
        return System(positions, atom_mask, pairs, None, settings)
    periodic_sum = functools.partial(
        _periodic_sum,
        k_indices=k_indices,
        k_mask=k_mask,
        settings=settings,
        mesh=mesh,
        chunk=chunk,
    )
    tails = settings.tails
    if tails is None:
        _check_mesh(settings, len(positions), mesh)
        corrected = correction(settings.boundary, pbc, cell, exponent=settings.molecule_exponent)
        return System(positions, atom_mask, periodic_sum(positions, cell), corrected, settings)
    if repeat is None:
        raise BoundaryError(
            f"boundary {settings.boundary.value!r}: found no length of repeat, expected one"
        )
    if open_slots is None or open_mesh is not None:
        open_slots = len(positions)
    if not open_slots:  # open structures of any size have none
        _check_mesh(settings, len(positions), mesh)
    geometry = _by_periodicity(positions, atom_mask, cell, pbc, repeat, tails=tails)
    has_room = jnp.asarray(True) if open_mesh is None else open_mesh.serves(positions, atom_mask)
    has_room &= ~jnp.any(atom_mask[open_slots:])
    fits = geometry.fits & (has_room | ~geometry.is_open)
    # Prepared for other atoms or another boundary condition: better no number than a wrong one.
    positions = jnp.where(fits | ~jnp.any(atom_mask), positions, jnp.nan)
    of_open = jnp.where(geometry.is_open, positions[:open_slots], 0.0)
    width, max_l = settings.smearing_width, settings.max_l
    unbounded: OpenSum | MeshSum
    if settings.boundary is BoundaryMode.DISPLACED_CHARGES:
        unbounded = DisplacedSum(of_open, width=width, max_l=max_l)
    elif open_mesh is None:
        unbounded = OpenSum(of_open, width=width, max_l=max_l)
    else:
        unbounded = MeshSum.of_open(of_open, mesh=open_mesh, width=width, max_l=max_l)
    sums = SumByPeriodicity(
        periodic=periodic_sum(positions, geometry.cell, truncation=geometry.truncation),
        unbounded=unbounded,
        is_open=geometry.is_open,
        normal=geometry.normal,
        heights=geometry.heights,
        open_slots=open_slots,
    )
    return System(positions, atom_mask, sums, None, settings)


def _check_mesh(settings: ElectrostaticsSettings, num_atoms: int, mesh: Mesh | None) -> None:
    if mesh is None and uses_mesh(settings, num_atoms):
        raise MeshError(
            f"sums {settings.sums.value!r} of {num_atoms} atoms need a mesh, found none; "
            "`choose_mesh` makes it on the host"
        )


def _periodic_sum(
    positions: Float[Array, "atoms 3"],
    cell: Float[Array, "3 3"],
    *,
    k_indices: Int[Array, "kvectors 3"],
    k_mask: Bool[Array, "kvectors"],
    settings: ElectrostaticsSettings,
    mesh: Mesh | None,
    chunk: int | None,
    truncation: Truncation | None = None,
) -> DirectSum | MeshSum:
    """The sum over wavevectors, or on a mesh if there is one."""
    width, max_l = settings.smearing_width, settings.max_l
    if mesh is not None:
        return MeshSum.of(
            positions, cell, mesh=mesh, truncation=truncation, width=width, max_l=max_l
        )
    return DirectSum.of(
        positions,
        cell,
        k_indices,
        k_mask,
        truncation=truncation,
        fade=settings.fade,
        chunk=chunk,
        width=width,
        max_l=max_l,
    )


class _ByPeriodicity(NamedTuple):
    """What the boundary condition ``exact`` makes of a cell and its periodic directions."""

    cell: Float[Array, "3 3"]
    """The cell that is repeated; of no use to an open structure."""
    truncation: Truncation
    is_open: Bool[Array, ""]
    normal: Float[Array, "3"]
    heights: Float[Array, "2"]
    """As of `SumByPeriodicity`."""
    fits: Bool[Array, ""]
    """Whether the repeat is one for these periodic directions and atoms."""


def _by_periodicity(
    positions: Float[Array, "atoms 3"],
    atom_mask: Bool[Array, "atoms"],
    cell: Float[Array, "3 3"],
    pbc: Bool[Array, "3"],
    repeat: Float[Array, ""],
    *,
    tails: float,
) -> _ByPeriodicity:
    repeat = jnp.where(jnp.any(atom_mask), repeat, jnp.inf)
    is_open = jnp.isinf(repeat)
    normal = jnp.asarray(plane_normal(cell, pbc))
    beside = positions, atom_mask, normal, repeat
    heights = room_beside_slab(*beside, tails=tails)
    anywhere = jnp.asarray([-jnp.inf, jnp.inf], heights.dtype)
    of_slab = keeps_copies_apart(*beside, tails=tails)
    of_crystal = jnp.all(pbc) & (repeat == 0.0)
    repeated = jnp.where(is_open, jnp.eye(3, dtype=cell.dtype), cell)
    return _ByPeriodicity(
        cell=jnp.asarray(repeated_cell(repeated, pbc, jnp.where(is_open, 1.0, repeat))),
        truncation=Truncation(pbc, repeat),
        is_open=is_open,
        normal=normal,
        heights=jnp.where(is_slab(pbc), heights, anywhere),
        fits=jnp.where(is_open, ~jnp.any(pbc), jnp.where(is_slab(pbc), of_slab, of_crystal)),
    )


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
    prepare_graph = functools.partial(
        prepare,
        settings=settings,
        open_slots=graph.open_slots,
        mesh=graph.mesh,
        open_mesh=graph.open_mesh,
        chunk=chunk,
    )
    return jax.vmap(prepare_graph)(
        graph.to_slots(graph.local_positions()),
        graph.slot_mask,
        jnp.asarray(graph.cell).astype(graph.dtype),
        graph.pbc,
        graph.k_indices,
        graph.k_mask,
        jnp.asarray(graph.repeat).astype(graph.dtype),
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
    resolved = resolve_boundary(mode, pbc)
    if resolved is BoundaryMode.REALSPACE:
        return
    if resolved.is_by_periodicity:
        cell = np.asarray(repeated_cell(cell, pbc, 1.0)) if np.any(pbc) else np.eye(3)
    if not encloses_volume(cell):
        raise ElectrostaticsInputError(
            f"cell: found {np.asarray(cell).tolist()}, expected three independent lattice vectors, "
            "also along open directions"
        )
    check_slab_cell(cell, pbc, mode)
