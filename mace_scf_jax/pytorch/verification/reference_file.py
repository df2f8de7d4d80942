"""Files of reference numbers, one ``.npz`` each, and how far computed ones deviate from them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import ase
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mace_scf_jax.data.cells import coulomb_cell
from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.reciprocal import half_space_indices
from mace_scf_jax.data.structure import NO_KVECTORS, Structure
from mace_scf_jax.graph import Graph
from mace_scf_jax.pytorch.files import ArchiveError, read_archive, with_prefix

_KIND_OF_MODEL = {"FixedPoint": "fixed_point", "PolarMACE": "polar_mace"}
"""Families whose inner stages are compared too."""


class ReferenceFileError(ValueError):
    """A file is not in the reference format."""


@dataclasses.dataclass(frozen=True)
class ReferenceFile:
    """The content of one reference file; arrays by name without their prefix."""

    path: Path
    meta: dict[str, Any]
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    """Weights by PyTorch state-dict name."""
    gradients: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Gradient of a loss by PyTorch state-dict name, in files about training."""
    steps: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Weights after some steps of an optimiser, ``<steps>/<name>``, where a file has them."""

    @property
    def kind(self) -> str:
        """What the file says it is about, or else what its content belongs to."""
        if "kind" in self.meta:
            return self.meta["kind"]
        if "descriptor" in self.meta:
            return "descriptor_training" if self.gradients else "descriptor"
        if "sigma" in self.meta:
            return "electrostatics"
        if self.gradients:
            return "training"
        if self.meta.get("model") in _KIND_OF_MODEL:
            return _KIND_OF_MODEL[self.meta["model"]]
        return "models" if "model" in self.meta else "blocks"


def read_reference_file(path: str | Path) -> ReferenceFile:
    """Read a reference file.

    Args:
        path: an ``.npz`` file with a JSON string ``meta`` and arrays ``in/…`` (or ``in_…``),
            ``out/…`` (or ``out_…``), ``state/…`` and ``grad/…``.

    Raises:
        ReferenceFileError: the file is missing, unreadable or has no metadata or outputs.
    """
    try:
        meta, arrays = read_archive(path)
    except ArchiveError as error:
        raise ReferenceFileError(str(error)) from error
    file = ReferenceFile(
        path=Path(path),
        meta=meta,
        inputs=with_prefix(arrays, "in/", "in_"),
        outputs=with_prefix(arrays, "out/", "out_"),
        state=with_prefix(arrays, "state/"),
        gradients=with_prefix(arrays, "grad/"),
        steps=with_prefix(arrays, "steps/"),
    )
    if not file.outputs:
        some = ", ".join(sorted(arrays)[:3])
        raise ReferenceFileError(
            f"{path}: no file of reference numbers; expected arrays 'out/…', found {len(arrays)} "
            f"others ({some}, …)"
        )
    return file


@dataclasses.dataclass(frozen=True)
class Deviation:
    """The largest deviation of one output from its reference."""

    output: str
    absolute: float
    """Largest absolute deviation."""
    relative: float
    """Largest absolute deviation over the largest reference magnitude."""
    tolerance: float
    """Largest relative deviation allowed."""
    floor: float
    """Absolute deviation that always passes (for references that are zero up to round-off)."""

    @property
    def passed(self) -> bool:
        """Whether the deviation is within its tolerance; NaN never is."""
        return bool(self.relative <= self.tolerance or self.absolute <= self.floor)


def deviation(
    output: str,
    computed: np.ndarray | Array,
    expected: np.ndarray,
    *,
    tolerance: float,
    floor: float = 1e-12,
) -> Deviation:
    """Compare one output with its reference.

    Args:
        output: its name.
        computed: what we compute.
        expected: the reference, of the same shape.
        tolerance: largest relative deviation allowed.
        floor: absolute deviation that always passes.

    Raises:
        ValueError: the shapes differ.
    """
    computed, expected = np.asarray(computed), np.asarray(expected)
    if computed.shape != expected.shape:
        raise ValueError(f"{output}: expected shape {expected.shape}, computed {computed.shape}")
    if expected.size == 0:
        return Deviation(output, 0.0, 0.0, tolerance, floor)
    absolute = float(np.max(np.abs(computed - expected)))
    magnitude = float(np.max(np.abs(expected)))
    relative = absolute / magnitude if magnitude > 0 else (0.0 if absolute == 0 else np.inf)
    return Deviation(output, absolute, relative, tolerance, floor)


NO_EDGES = (np.zeros((2, 0), dtype=np.int64), np.zeros((0, 3), dtype=np.int64))


def graph_from_arrays(
    positions: np.ndarray,
    graph_index: np.ndarray,
    *,
    cell: np.ndarray | None = None,
    pbc: np.ndarray | None = None,
    species: np.ndarray | None = None,
    edge_index: np.ndarray = NO_EDGES[0],
    unit_shifts: np.ndarray = NO_EDGES[1],
    kspace_cutoff: float | None = None,
    tails: float | None = None,
    info: dict[str, np.ndarray] | None = None,
    arrays: dict[str, np.ndarray] | None = None,
) -> Graph:
    """A padded batch with exactly the given cells and edges.

    Args:
        positions: [atoms, 3] in Å.
        graph_index: graph of each atom, non-decreasing.
        cell: [graphs, 3, 3] in Å, taken as it is; None for systems without one.
        pbc: [graphs, 3]; None for open systems.
        species: element index of each atom; None if it does not matter.
        edge_index: [2, edges] senders and receivers, in any order.
        unit_shifts: [edges, 3] lattice translations.
        kspace_cutoff: radius of the reciprocal sum in 1/Å; None for none.
        tails: length in Å to which Gaussians reach, for the boundary condition ``exact``.
        info: per-graph inputs by name (total_charge, external_field, ...).
        arrays: per-atom inputs by name (charges, ...).
    """
    species = np.zeros(len(positions), np.int64) if species is None else species
    senders, receivers = edge_index
    structures = []
    for index in range(int(graph_index.max()) + 1):
        own_atoms = np.flatnonzero(graph_index == index)
        first = own_atoms[0]
        own_edges = np.flatnonzero(graph_index[receivers] == index)
        own_edges = own_edges[np.argsort(receivers[own_edges], kind="stable")]
        own_cell = np.eye(3) if cell is None else cell[index]
        atoms = ase.Atoms(
            numbers=np.ones(len(own_atoms), dtype=int),
            positions=positions[own_atoms],
            cell=own_cell,
            pbc=False if pbc is None else pbc[index],
            info={name: values[index] for name, values in (info or {}).items()},
        )
        for name, values in (arrays or {}).items():
            atoms.set_array(name, values[own_atoms])
        repeated, repeat = coulomb_cell(atoms.positions, own_cell, atoms.pbc, tails)
        has_kvectors = kspace_cutoff is not None and not math.isinf(repeat)
        structures.append(
            Structure(
                configuration=dataclasses.replace(from_atoms(atoms), cell=own_cell),
                species=species[own_atoms].astype(np.int32),
                senders=senders[own_edges] - first,
                receivers=receivers[own_edges] - first,
                cell_shifts=np.rint(unit_shifts[own_edges]).astype(np.int32),
                k_indices=(
                    half_space_indices(repeated, kspace_cutoff, with_zero=repeat > 0.0)
                    if has_kvectors
                    else NO_KVECTORS
                ),
                repeat=repeat,
            )
        )
    return jax.tree.map(jnp.asarray, collate(structures, labels=False))
