"""A configuration made ready for a model: species, edges, reciprocal indices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import vesin
from ase.data import chemical_symbols
from jaxtyping import Bool, Float, Int

from mace_scf_jax.data.cells import coulomb_cell
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.reciprocal import half_space_indices
from mace_scf_jax.mesh import Mesh, OpenMesh

_COINCIDENT = 1e-6

SHELLS_PER_ANGSTROM = 64.0 + np.pi / 4
"""Irrational, so that distances of ideal crystals are not on the surface of a shell."""

NO_KVECTORS = np.empty((0, 3), dtype=np.int32)


@dataclasses.dataclass(frozen=True)
class Structure:
    """A configuration with everything that the host prepares for a model."""

    configuration: Configuration
    species: Int[np.ndarray, "atoms"]
    """Index of each atom's element in the model's list of elements."""
    senders: Int[np.ndarray, "edges"]
    receivers: Int[np.ndarray, "edges"]
    """Receiving atoms, non-decreasing."""
    cell_shifts: Int[np.ndarray, "edges 3"]
    """Edge vector = r_receiver - r_sender + cell_shift @ cell."""
    k_indices: Int[np.ndarray, "kvectors 3"]
    repeat: float = 0.0
    """Length in Å as of `repeat_length`."""
    mesh: Mesh | None = None
    """Grid of the electrostatic sums; None where they are direct, or there are none."""
    open_mesh: OpenMesh | None = None
    """The same of a structure without periodic direction in the boundary condition ``exact``."""

    @property
    def num_atoms(self) -> int:
        """Number of atoms."""
        return len(self.species)

    @property
    def num_edges(self) -> int:
        """Number of directed edges."""
        return len(self.senders)

    @property
    def num_kvectors(self) -> int:
        """Number of reciprocal vectors in half space."""
        return len(self.k_indices)

    def neighbour_counts(self) -> Int[np.ndarray, "atoms"]:
        """Number of edges that each atom receives."""
        return np.bincount(self.receivers, minlength=self.num_atoms)


def prepare(
    configuration: Configuration,
    *,
    elements: Sequence[int],
    cutoff: float,
    kspace_cutoff: float | None = None,
    tails: float | None = None,
    largest_strain: float = 0.0,
    mesh: Mesh | None = None,
    open_mesh: OpenMesh | None = None,
) -> Structure:
    """Find edges and reciprocal vectors of a configuration.

    Args:
        elements: atomic numbers that the model knows, ascending.
        cutoff: cutoff of the edges, Å.
        kspace_cutoff: cutoff of the reciprocal vectors, 1/Å; None where the model needs none.
        tails: length in Å to which Gaussians reach; given for the boundary condition ``exact``, see
            `repeat_length`.
        largest_strain: range of cells that the reciprocal vectors are to serve, as for
            `half_space_indices`.
        mesh: grid of the electrostatic sums, which then need no reciprocal vectors.
        open_mesh: grid for a structure without periodic direction; None for a sum over pairs.

    Raises:
        DataError: if an element is unknown to the model, two atoms coincide, or reciprocal vectors
            are asked for and the cell has no volume.
    """
    try:
        senders, receivers, shifts = neighbour_list(
            configuration.positions, configuration.cell, configuration.pbc, cutoff
        )
        _check_distances(configuration, senders, receivers, shifts)
        cell, repeat = coulomb_cell(
            configuration.positions, configuration.cell, configuration.pbc, tails
        )
        k_indices = NO_KVECTORS
        if kspace_cutoff is not None and mesh is None and not math.isinf(repeat):
            k_indices = half_space_indices(
                cell, kspace_cutoff, largest_strain=largest_strain, with_zero=repeat > 0.0
            )
        return Structure(
            configuration=configuration,
            species=species_of(configuration.atomic_numbers, elements),
            senders=senders,
            receivers=receivers,
            cell_shifts=shifts,
            k_indices=k_indices,
            repeat=repeat,
            mesh=mesh,
            open_mesh=open_mesh,
        )
    except DataError as error:
        raise DataError(f"{configuration.location}: {error}") from None


def prepare_all(
    configurations: Iterable[Configuration],
    *,
    elements: Sequence[int],
    cutoff: float,
    kspace_cutoff: float | None = None,
    tails: float | None = None,
) -> list[Structure]:
    """`prepare` for each configuration."""
    return [
        prepare(entry, elements=elements, cutoff=cutoff, kspace_cutoff=kspace_cutoff, tails=tails)
        for entry in configurations
    ]


def neighbour_list(
    positions: Float[np.ndarray, "atoms 3"],
    cell: Float[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "3"],
    cutoff: float,
) -> tuple[Int[np.ndarray, "edges"], Int[np.ndarray, "edges"], Int[np.ndarray, "edges 3"]]:
    """All directed pairs of atoms and their images closer than the cutoff.

    Both directions of a pair are listed, all images within the cutoff, and an atom with its own
    images, but not with itself. The vector of an edge is
    `positions[receiver] - positions[sender] + cell_shift @ cell`.

    Args:
        positions: positions, Å; need not lie within the cell.
        cell: lattice vectors as rows, Å; only those of periodic directions matter.
        pbc: periodic directions.
        cutoff: largest distance, Å.

    Returns:
        Senders, receivers and integer cell shifts, sorted by receiver, `shell` of the distance,
        sender and shift.

    Raises:
        DataError: if the cutoff is not positive.
    """
    if not cutoff > 0.0:
        raise DataError(f"cutoff: found {cutoff}, expected a positive length in Å")
    pbc = np.asarray(pbc, dtype=bool)
    search = vesin.NeighborList(cutoff=float(cutoff), full_list=True, n_threads=1)
    senders, receivers, shifts, distances = search.compute(
        np.asarray(positions, dtype=np.float64), search_box(cell, pbc), pbc.tolist(), "ijSd"
    )
    keys = (receivers, shell(distances), senders, *(shifts - shifts.min(axis=0, initial=0)).T)
    sizes = [int(np.max(key, initial=0)) + 1 for key in keys]
    order = np.argsort(np.ravel_multi_index(keys, sizes))  # one number sorts faster than several
    return (
        senders[order].astype(np.int32),
        receivers[order].astype(np.int32),
        shifts[order].astype(np.int32),
    )


def shell(distances: Any) -> Any:
    """Number of the spherical shell of a distance in Å, so coarse that rounding seldom matters.

    Edges of an atom are in the order of shells, so that those within a smaller cutoff come first.

    Args:
        distances: an array of NumPy or JAX.
    """
    return (distances * SHELLS_PER_ANGSTROM).astype(np.int32)


def search_box(cell: np.ndarray, pbc: np.ndarray) -> np.ndarray:
    """A box with volume for the search: open directions get unit vectors normal to the others.

    Pairs do not depend on the vectors of open directions, but the search needs a box that can be
    inverted, and a slab or wire may come with zero vectors there.
    """
    box = np.array(cell, dtype=np.float64)
    if pbc.all():
        return box
    periodic = box[pbc]
    _, _, axes = np.linalg.svd(periodic if len(periodic) else np.zeros((1, 3)))
    box[~pbc] = axes[len(periodic) :]
    return box


def species_of(
    atomic_numbers: Int[np.ndarray, "atoms"], elements: Sequence[int]
) -> Int[np.ndarray, "atoms"]:
    """Index of each atomic number among the elements that the model knows, which ascend.

    Raises:
        DataError: if an element is unknown to the model, or `elements` are not ascending.
    """
    known = np.asarray(elements)
    if np.any(np.diff(known) <= 0):
        raise DataError(f"elements: found {list(elements)}, expected ascending atomic numbers")
    species = np.searchsorted(known, atomic_numbers).astype(np.int32)
    unknown = known[np.minimum(species, len(known) - 1)] != atomic_numbers
    if unknown.any():
        found = ", ".join(chemical_symbols[z] for z in np.unique(atomic_numbers[unknown]))
        expected = ", ".join(chemical_symbols[z] for z in known)
        raise DataError(f"found element {found}, unknown to the model, which knows {expected}")
    return species


def _check_distances(
    configuration: Configuration, senders: np.ndarray, receivers: np.ndarray, shifts: np.ndarray
) -> None:
    """Refuse atoms on top of each other, between which no direction is defined."""
    positions = configuration.positions
    vectors = positions[receivers] - positions[senders] + shifts @ configuration.cell
    coincident = np.flatnonzero(np.sum(vectors**2, axis=1) < _COINCIDENT**2)
    if len(coincident):
        pair = sorted((int(senders[coincident[0]]), int(receivers[coincident[0]])))
        raise DataError(f"found atoms {pair[0]} and {pair[1]} at the same position")
