"""Models in JAX-MD: what `jax_md.simulate` and `jax_md.minimize` ask of an energy.

    neighbor_fn, energy_fn = jax_md_functions(model, atoms)
    _, shift = jax_md.space.free()                     # positions are not wrapped
    init, apply = jax_md.simulate.nve(energy_fn, shift, dt=0.5 * ase.units.fs)
    neighbors = neighbor_fn.allocate(atoms.positions)
    state = init(key, atoms.positions, kT=..., mass=atoms.get_masses(), neighbor=neighbors)

Boxes follow JAX-MD: a number, three lengths, or a matrix with lattice vectors as *columns*.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Unpack

import ase
import ase.cell
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from mace_scf_jax.data.properties import GRAPH_INPUTS
from mace_scf_jax.models import SCFState
from mace_scf_jax.predict.model import Model
from mace_scf_jax.predict.use import Options, refuse_unknown
from mace_scf_jax.simulate.functional import EnergyFunction, energy_function
from mace_scf_jax.simulate.neighbours import Neighbours
from mace_scf_jax.simulate.preparation import Preparation
from mace_scf_jax.simulate.results import Results

Box = Float[ArrayLike, "..."]
Scalar = Float[ArrayLike, ""]
Vector = Float[ArrayLike, "3"]

OF_JAX_MD = ("dt", "gamma", "kT", "preconditioner_position", "pressure")
"""Keywords that JAX-MD hands on to energies and neighbour lists, for which they mean nothing."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NeighborList:
    """Neighbours with the protocol of JAX-MD, to be passed on as ``neighbor``."""

    neighbours: Neighbours
    fractional_coordinates: bool = dataclasses.field(metadata={"static": True})

    @property
    def did_buffer_overflow(self) -> Bool[Array, ""]:
        """Whether the list is incomplete and has to be allocated anew."""
        return self.neighbours.overflow

    def update(
        self, position: Float[ArrayLike, "atoms 3"], *, box: Box | None = None, **unused: object
    ) -> NeighborList:
        """The list at new positions; can be part of a compiled loop."""
        refuse_unknown("NeighborList.update", unused, OF_JAX_MD)
        positions, cell = self.real_space(position, box)
        return dataclasses.replace(self, neighbours=self.neighbours.update(positions, cell))

    def real_space(
        self, position: Float[ArrayLike, "atoms 3"], box: Box | None
    ) -> tuple[Float[Array, "atoms 3"], Float[Array, "3 3"]]:
        """Positions in Å, near those of the last search even if they were wrapped, and the cell."""
        graph = self.neighbours.graph
        dtype = graph.positions.dtype
        cell = self.neighbours.cell if box is None else to_cell(box).astype(dtype)
        positions = jnp.asarray(position, dtype)
        if self.fractional_coordinates:
            from jax_md.space import transform  # whose derivatives are those by real positions

            positions = transform(cell.T, positions)
        before, now = (self.neighbours.box_of(each) for each in (self.neighbours.cell, cell))
        reference = self.neighbours.positions @ jnp.linalg.solve(before, now)
        jumped = jnp.round((positions - reference) @ jnp.linalg.inv(now))
        jumped = jnp.where(graph.pbc[0], jax.lax.stop_gradient(jumped), 0.0)
        return positions - jumped @ cell, cell


@dataclasses.dataclass(frozen=True, eq=False)
class NeighborFunctions:
    """Allocates and updates neighbour lists, like `jax_md.partition.NeighborListFns`."""

    prepare: Preparation
    atoms: ase.Atoms
    fractional_coordinates: bool

    def allocate(
        self,
        position: Float[ArrayLike, "atoms 3"],
        extra_capacity: int = 0,
        *,
        box: Box | None = None,
        **unused: object,
    ) -> NeighborList:
        """A list with arrays of the right size, made on the host.

        Args:
            position: as for the energy.
            extra_capacity: neighbours of each atom for which to have more room than usual.
            box: as for the energy.

        Raises:
            DataError: the structure cannot be used.
            TypeError: there is no such keyword.
        """
        refuse_unknown("NeighborFunctions.allocate", unused, OF_JAX_MD)
        atoms = self.atoms.copy()
        if box is not None:
            atoms.set_cell(np.asarray(to_cell(box)))
        positions = np.asarray(position, np.float64)
        if self.fractional_coordinates:
            positions = positions @ np.asarray(atoms.cell)
        atoms.positions = positions
        neighbours = self.prepare(atoms)
        if extra_capacity:
            room = neighbours.graph.neighbours_per_atom
            most = int(neighbours.graph.edge_mask.reshape(-1, room).sum(axis=1).max())
            more = (room + extra_capacity) / max(most, 1) - 1.0
            neighbours = self.prepare(atoms, extra_capacity=more)
        return NeighborList(neighbours, self.fractional_coordinates)

    def update(
        self, position: Float[ArrayLike, "atoms 3"], neighbors: NeighborList, **options: object
    ) -> NeighborList:
        """`NeighborList.update`."""
        return neighbors.update(position, **options)


@dataclasses.dataclass(frozen=True, eq=False)
class JaxMDEnergy:
    """The energy as JAX-MD calls it."""

    energy_fn: EnergyFunction

    def __call__(
        self,
        position: Float[ArrayLike, "atoms 3"],
        neighbor: NeighborList,
        *,
        box: Box | None = None,
        perturbation: Box | None = None,
        start: SCFState | None = None,
        total_charge: Scalar | None = None,
        external_field: Vector | None = None,
        fermi_level: Scalar | None = None,
        total_spin: Scalar | None = None,
        **unused: object,
    ) -> Float[Array, ""]:
        """The energy in eV; NaN if the list does not serve.

        Args:
            position: Å, or fractional.
            neighbor: from `NeighborFunctions`.
            box: the box; by default that of the list.
            perturbation: linear map, or factor, applied to positions and box.
            start: where self-consistent models start, such as `Results.scf_state`.
            total_charge, external_field, fermi_level, total_spin: as for `EnergyFunction.results`.

        Raises:
            TypeError: there is no such keyword, here or in JAX-MD.
        """
        refuse_unknown("the energy for JAX-MD", unused, (*OF_JAX_MD, "box", "start", *GRAPH_INPUTS))
        positions, cell = _perturbed(*neighbor.real_space(position, box), perturbation)
        return self.energy_fn(
            positions,
            neighbor.neighbours,
            cell=cell,
            start=start,
            total_charge=total_charge,
            external_field=external_field,
            fermi_level=fermi_level,
            total_spin=total_spin,
        )

    def results(
        self,
        position: Float[ArrayLike, "atoms 3"],
        neighbor: NeighborList,
        *,
        box: Box | None = None,
        **arguments: Any,
    ) -> Results:
        """Everything that the model predicts, with the arguments of `EnergyFunction.results`."""
        positions, cell = neighbor.real_space(position, box)
        return self.energy_fn.results(positions, neighbor.neighbours, cell=cell, **arguments)


def jax_md_functions(
    model: Model | str | Path,
    atoms: ase.Atoms,
    *,
    fractional_coordinates: bool = False,
    skin: float = 0.5,
    largest_strain: float = 0.0,
    **options: Unpack[Options],
) -> tuple[NeighborFunctions, JaxMDEnergy]:
    """Neighbour lists and energy of a structure for JAX-MD.

    Args:
        model: a model or the path of its file.
        atoms: elements, periodic directions, cell, and inputs of the model.
        fractional_coordinates: whether positions are fractional.
        skin: as for `energy_function`, like the others.
        largest_strain: above 0 where the box changes.
        options: how the model is used, see `mace_scf_jax.predict.use.Options`.

    Returns:
        ``neighbor_fn`` with ``allocate`` and ``update``, and ``energy_fn``.

    Raises:
        ValueError: an option is out of range.
        ModelFileError: the file cannot be used.
    """
    energy_fn, prepare = energy_function(model, skin=skin, largest_strain=largest_strain, **options)
    kept = atoms.copy()
    kept.calc = None
    return NeighborFunctions(prepare, kept, fractional_coordinates), JaxMDEnergy(energy_fn)


def to_cell(box: Box) -> Float[Array, "3 3"]:
    """Lattice vectors as rows from a box of JAX-MD: a number, lengths, or vectors as columns."""
    box = jnp.asarray(box)
    return box.T if box.ndim == 2 else box * jnp.eye(3, dtype=box.dtype)


def to_box(cell: ase.cell.Cell | Float[ArrayLike, "3 3"]) -> Float[Array, "3 3"]:
    """The box of JAX-MD, lattice vectors as columns, from a cell of ASE (rows)."""
    return jnp.asarray(np.asarray(cell).T)


def _perturbed(
    positions: Float[Array, "atoms 3"], cell: Float[Array, "3 3"], perturbation: Box | None
) -> tuple[Float[Array, "atoms 3"], Float[Array, "3 3"]]:
    if perturbation is None:
        return positions, cell
    change = to_cell(jnp.asarray(perturbation, cell.dtype))
    return positions @ change, cell @ change
