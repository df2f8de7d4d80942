"""Batches for the electrostatics tests: from a seed."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mace_scf_jax.data.cells import coulomb_cell
from mace_scf_jax.data.reciprocal import half_space_indices
from mace_scf_jax.graph import Graph
from mace_scf_jax.mesh import Mesh


@dataclasses.dataclass(frozen=True)
class System:
    """One structure with multipoles, on the host."""

    positions: np.ndarray
    multipoles: np.ndarray
    cell: np.ndarray
    pbc: tuple[bool, bool, bool] = (True, True, True)

    def replace(self, **changes) -> System:
        return dataclasses.replace(self, **changes)


def random_system(
    seed: int,
    num_atoms: int,
    *,
    max_l: int = 1,
    pbc: tuple[bool, bool, bool] = (True, True, True),
    length: float = 8.0,
    skew: float = 1.0,
) -> System:
    """A charged random structure in a skewed cell."""
    rng = np.random.default_rng(seed)
    return System(
        positions=rng.uniform(0.1, 0.9, (num_atoms, 3)) * length,
        multipoles=0.5 * rng.normal(size=(num_atoms, (max_l + 1) ** 2)),
        cell=length * np.eye(3) + skew * np.tril(rng.normal(size=(3, 3)), -1),
        pbc=pbc,
    )


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes that a batch is padded to."""

    atoms: int
    graphs: int
    slots: int
    kvectors: int


def batch(
    systems: list[System],
    cutoff: float | None,
    sizes: Sizes | None = None,
    mesh: Mesh | None = None,
    tails: float | None = None,
) -> tuple[Graph, jax.Array]:
    """Pad systems to one graph batch and the flat multipoles that belong to it.

    Without cutoff there are no reciprocal vectors; without sizes there is no padding. Padding
    values are deliberately absurd. `tails` are those of the boundary condition ``exact``.
    """
    counts = [len(system.positions) for system in systems]
    cells = [
        coulomb_cell(system.positions, system.cell, np.array(system.pbc), tails)
        for system in systems
    ]
    indices = [
        np.zeros((0, 3), int)
        if cutoff is None or np.isinf(repeat)
        else half_space_indices(cell, cutoff, with_zero=repeat > 0.0)
        for cell, repeat in cells
    ]
    repeats = np.array([repeat for _, repeat in cells])
    open_slots = max(
        (n for n, repeat in zip(counts, repeats, strict=True) if np.isinf(repeat)), default=0
    )
    if sizes is None:
        sizes = Sizes(sum(counts), len(systems), max(counts), max(map(len, indices)))
    num_atoms, num_graphs, num_slots, num_k = dataclasses.astuple(sizes)
    num_components = systems[0].multipoles.shape[1]

    positions = np.full((num_atoms, 3), 1e3)
    multipoles = np.full((num_atoms, num_components), 7.0)
    atom_graph = np.full(num_atoms, num_graphs - 1)
    cell = np.zeros((num_graphs, 3, 3))
    pbc = np.zeros((num_graphs, 3), bool)
    slots = np.zeros((num_graphs, num_slots), int)
    slot_mask = np.zeros((num_graphs, num_slots), bool)
    slot_of_atom = np.zeros(num_atoms, int)
    k_indices = np.zeros((num_graphs, num_k, 3), int)
    k_mask = np.zeros((num_graphs, num_k), bool)
    start = 0
    for index, system in enumerate(systems):
        count = counts[index]
        atoms = np.arange(start, start + count)
        positions[atoms] = system.positions
        multipoles[atoms] = system.multipoles
        atom_graph[atoms] = index
        cell[index] = system.cell
        pbc[index] = system.pbc
        slots[index, :count] = atoms
        slot_mask[index, :count] = True
        slot_of_atom[atoms] = np.arange(count)
        k_indices[index, : len(indices[index])] = indices[index]
        k_mask[index, : len(indices[index])] = True
        start += count
    atom_mask = np.arange(num_atoms) < sum(counts)
    graph = Graph(
        positions=positions,
        species=np.zeros(num_atoms, int),
        atom_graph=atom_graph,
        atom_mask=atom_mask,
        senders=np.zeros(0, int),
        receivers=np.zeros(0, int),
        cell_shifts=np.zeros((0, 3), int),
        edge_mask=np.zeros(0, bool),
        cell=cell,
        pbc=pbc,
        graph_mask=np.arange(num_graphs) < len(systems),
        total_charge=np.zeros(num_graphs),
        fermi_level=np.zeros(num_graphs),
        external_field=np.zeros((num_graphs, 3)),
        slots=slots,
        slot_mask=slot_mask,
        slot_of_atom=slot_of_atom,
        k_indices=k_indices,
        k_mask=k_mask,
        repeat=np.pad(repeats, (0, num_graphs - len(repeats))),
        atom_data={},
        labels={},
        weights={},
        config_weight=np.ones(num_graphs),
        open_slots=open_slots,
        mesh=mesh,
    )
    return jax.tree.map(jnp.asarray, (graph, multipoles))
