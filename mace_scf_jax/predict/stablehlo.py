"""A model for one size of structures as StableHLO: runs wherever JAX does, without this package.

The file is an ``.npz`` archive: ``function`` holds what ``jax.export`` serialised, ``input/<name>``
an example of every argument, ``meta`` a JSON description.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mace_scf_jax._version import __version__
from mace_scf_jax.data.sizes import BatchSizes, required_sizes
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.dispersion.settings import refuse_dispersion
from mace_scf_jax.files import write_whole
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import (
    DirectStep,
    InitialDensity,
    InitialFermiLevel,
    SelfConsistency,
    build,
    evaluate,
    required_inputs,
)
from mace_scf_jax.models.meaning import as_nan
from mace_scf_jax.models.outputs import OUTPUTS
from mace_scf_jax.predict.model import Model
from mace_scf_jax.predict.use import PLATFORMS
from mace_scf_jax.scf import SolverStatus

FORMAT = "mace-scf-jax stablehlo"

DESCRIPTIONS = {
    "positions": "Å",
    "species": "index of the element of each atom in `elements`",
    "num_atoms": "how many atoms are real; the others are padding",
    "senders": "sending atom of each directed edge, in any order",
    "receivers": "receiving atom of each directed edge",
    "cell_shifts": "integers n: vector of an edge = r_receiver - r_sender + n @ cell, in Å",
    "num_edges": "how many edges are real; edges longer than `cutoff` may be among them",
    "cell": "lattice vectors as rows, Å",
    "pbc": "periodic directions",
    "total_charge": "e",
    "external_field": "gradient of the external potential, V/Å",
    "total_spin": "multiplicity 2S + 1",
    "fermi_level": "eV; a start value where the total charge is kept",
    "charges": "formal charge of each atom, e",
    "enegs": "electronegativity of each atom, eV/e",
    "hardness": "hardness of each atom, eV/e²",
}
"""Meaning of the arguments."""

Inputs = dict[str, Any]
_GRAPH = 0
"""Index of the structure in its batch; the other graph is padding."""


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """A compiled function of plain arrays for structures up to a size.

    ``function`` takes the entries of ``inputs`` as keyword arguments and returns outputs by name,
    per-atom ones with a row for every atom, padding included.
    """

    function: jax.export.Exported
    inputs: dict[str, np.ndarray]
    """Arguments for the structure that the function was made with."""
    description: dict[str, Any]
    """Family, elements, cutoff, capacities and meaning of the arguments, as plain data."""

    def save(self, path: str | Path) -> None:
        """Write the file; it is read with NumPy, JSON and JAX alone."""
        with write_whole(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                meta=json.dumps(self.description),
                function=np.frombuffer(self.function.serialize(), np.uint8),
                **{f"input/{name}": values for name, values in self.inputs.items()},
            )


def export_stablehlo(
    model: Model,
    structure: Structure,
    *,
    forces: bool = True,
    stress: bool = False,
    atoms: int | None = None,
    edges: int | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> ExportedModel:
    """A function of plain arrays that predicts as the model does.

    Reciprocal vectors, or the mesh, belong to the function: they are those of the given structure,
    so other structures have to have (nearly) its cell. Self-consistent models are solved for as
    ``model.scf`` says; outputs tell how well, as those of the model do.

    Args:
        structure: prepared by `Model.prepare`; it tells the sizes and the reciprocal vectors.
        forces: whether the function returns forces.
        stress: whether it returns stress and virials.
        atoms: capacity; by default the number of atoms.
        edges: capacity; by default one fifth more than the structure has.
        platforms: kinds of devices that the function can run on.

    Raises:
        ValueError: a capacity is smaller than what the structure needs, or the search for the
            multipoles starts from reference data.
        DispersionError: the model has a dispersion.
    """
    refuse_dispersion(model.settings.dispersion, "StableHLO")
    if model.scf is not None:
        _check_start(model.scf)
    sizes = _capacities(structure, atoms, edges)
    inputs = _example(model, structure, sizes)
    module, parameters = build(model.settings), jax.tree.map(jnp.asarray, model.parameters)
    k_indices = np.array(structure.k_indices)

    def function(**arguments: Array) -> dict[str, Array]:
        graph = _graph(arguments, k_indices, model.dtype).replace(
            mesh=structure.mesh,
            open_mesh=structure.open_mesh,
            repeat=jnp.asarray([structure.repeat, math.inf], np.float64),
            open_slots=sizes.open_slots,
        )
        outputs = evaluate(module, parameters, graph, how=model.scf, forces=forces, stress=stress)
        outputs = as_nan(model.settings, outputs, graph)
        return {
            name: values if OUTPUTS[name].per_atom else values[_GRAPH]
            for name, values in outputs.items()
        }

    shapes = {
        name: jax.ShapeDtypeStruct(values.shape, values.dtype) for name, values in inputs.items()
    }
    exported = jax.export.export(jax.jit(function), platforms=tuple(platforms))(**shapes)
    return ExportedModel(exported, inputs, _description(model, sizes, exported, platforms))


def _capacities(structure: Structure, atoms: int | None, edges: int | None) -> BatchSizes:
    needed = required_sizes([structure])
    atoms = needed.atoms if atoms is None else atoms + 1  # the last atom is padding
    edges = needed.edges + needed.edges // 5 if edges is None else edges
    for name, found, least in (
        ("atoms", atoms - 1, needed.atoms - 1),
        ("edges", edges, needed.edges),
    ):
        if found < least:
            raise ValueError(
                f"capacity for {name}: the structure has {least}, expected at least as many, "
                f"found {found}"
            )
    slots = atoms - 1
    return dataclasses.replace(
        needed,
        atoms=atoms,
        edges=edges,
        slots=slots,
        open_slots=slots if needed.open_slots else 0,
    )


def _example(model: Model, structure: Structure, sizes: BatchSizes) -> Inputs:
    """Arguments for a structure, padded with zeros."""
    configuration, dtype = structure.configuration, model.dtype

    def padded(values: np.ndarray, size: int) -> np.ndarray:
        out = np.zeros((size, *values.shape[1:]), values.dtype)
        out[: len(values)] = values
        return out

    def real(values: np.ndarray) -> np.ndarray:
        return np.asarray(values, dtype)

    values = configuration.values
    inputs = {
        "positions": padded(configuration.positions, sizes.atoms),
        "species": padded(np.asarray(structure.species, np.int32), sizes.atoms),
        "num_atoms": np.int32(structure.num_atoms),
        "senders": padded(np.asarray(structure.senders, np.int32), sizes.edges),
        "receivers": padded(np.asarray(structure.receivers, np.int32), sizes.edges),
        "cell_shifts": padded(np.asarray(structure.cell_shifts, np.int32), sizes.edges),
        "num_edges": np.int32(structure.num_edges),
        "cell": configuration.cell,
        "pbc": np.asarray(configuration.pbc, bool),
    }
    if model.settings.electrostatics is not None:
        inputs |= {name: real(values[name]) for name in ("total_charge", "external_field")}
    inputs |= {name: real(values[name]) for name in model.settings.graph_inputs}
    if isinstance(model.scf, SelfConsistency) and _reads_fermi_level(model.scf):
        inputs["fermi_level"] = real(values["fermi_level"])
    for name in required_inputs(model.settings):
        inputs[name] = padded(real(values[name]), sizes.atoms)
    return {name: np.asarray(value) for name, value in inputs.items()}


def _graph(given: dict[str, Array], k_indices: np.ndarray, dtype: np.dtype) -> Graph:
    """The batch of one structure and one padding graph that plain arrays describe."""
    positions = given["positions"]
    num_atoms, num_edges = positions.shape[0], given["senders"].shape[0]
    atom, edge = (jnp.arange(size, dtype=np.int32) for size in (num_atoms, num_edges))
    last = num_atoms - 1
    atom_mask = (atom < given["num_atoms"]) & (atom < last)
    edge_mask = edge < given["num_edges"]
    receivers = jnp.where(edge_mask, given["receivers"], last)
    order = jnp.argsort(receivers, stable=True)
    edge_mask = edge_mask[order]
    slots = jnp.where(atom_mask[:last], atom[:last], 0)
    nothing = jnp.zeros(2, dtype)

    def graphs(values: Array) -> Array:
        return jnp.stack([values, jnp.zeros_like(values)])

    def graph_input(name: str, shape: tuple[int, ...] = ()) -> Array:
        return graphs(given.get(name, jnp.zeros(shape, dtype)))

    return Graph(
        positions=jnp.where(atom_mask[:, None], positions, 0.0),
        species=jnp.where(atom_mask, given["species"], 0),
        atom_graph=(~atom_mask).astype(np.int32),
        atom_mask=atom_mask,
        senders=jnp.where(edge_mask, given["senders"][order], last),
        receivers=receivers[order],
        cell_shifts=jnp.where(edge_mask[:, None], given["cell_shifts"][order], 0),
        edge_mask=edge_mask,
        cell=jnp.stack([given["cell"], 10.0 * jnp.eye(3, dtype=given["cell"].dtype)]),
        pbc=graphs(given["pbc"]),
        graph_mask=jnp.asarray([True, False]),
        total_charge=graph_input("total_charge"),
        fermi_level=graph_input("fermi_level"),
        total_spin=graph_input("total_spin"),
        external_field=graph_input("external_field", (3,)),
        slots=graphs(slots),
        slot_mask=graphs(atom_mask[:last]),
        slot_of_atom=jnp.where(atom_mask, atom, 0),
        k_indices=jnp.asarray(np.stack([k_indices, np.zeros_like(k_indices)])),
        k_mask=jnp.asarray(np.repeat([[True], [False]], len(k_indices), axis=1)),
        repeat=jnp.zeros(2, np.float64),
        atom_data={
            name: jnp.where(atom_mask, given[name], 0.0)
            for name in ("charges", "enegs", "hardness")
            if name in given
        },
        labels={},
        weights={},
        config_weight=nothing,
    )


def _check_start(scf: SelfConsistency | DirectStep) -> None:
    if isinstance(scf, DirectStep) or scf.initial_density is InitialDensity.FROM_DATA:
        raise ValueError(
            "exported functions read no reference multipoles: expected a search that starts from "
            "the local guess or from zero"
        )


def _reads_fermi_level(scf: SelfConsistency) -> bool:
    return scf.initial_fermi_level is InitialFermiLevel.FROM_DATA


def _self_consistency(scf: SelfConsistency) -> dict[str, Any]:
    """How multipoles are solved for, as plain data."""
    return {
        "solver": type(scf.solver).__name__,
        "max_steps": scf.solver.max_steps,
        "tolerance": scf.solver.tolerance,
        "constant": "total_charge" if scf.constant_charge else "fermi_level",
        "initial_density": scf.initial_density.value,
        "status": {status.name.lower(): int(status) for status in SolverStatus},
    }


def _description(
    model: Model, sizes: BatchSizes, exported: jax.export.Exported, platforms: Sequence[str]
) -> dict[str, Any]:
    names = exported.in_tree.unflatten(range(len(exported.in_avals)))[1]
    outputs = exported.out_tree.unflatten(exported.out_avals)
    return {
        "format": FORMAT,
        "version": __version__,
        "family": model.settings.family,
        "elements": list(model.settings.elements),
        "cutoff": model.settings.backbone.r_max,
        "capacity": {"atoms": sizes.atoms - 1, "edges": sizes.edges, "kvectors": sizes.kvectors},
        "platforms": list(platforms),
        "inputs": {name: DESCRIPTIONS[name] for name in sorted(names)},
        "outputs": {name: list(aval.shape) for name, aval in outputs.items()},
        **({} if model.scf is None else {"self_consistency": _self_consistency(model.scf)}),
    }
