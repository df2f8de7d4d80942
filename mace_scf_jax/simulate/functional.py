"""Energies of a model as pure functions of positions, cell, charge and field.

energy_fn, prepare = mace_scf_jax.energy_function(model)
neighbours = prepare(atoms)                        # on the host, once
energy = energy_fn(positions, neighbours)          # eV; jit, grad, vmap, scan
results = energy_fn.results(positions, neighbours, stress=True)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.sizes import BatchSizes, round_up
from mace_scf_jax.data.structure import search_box
from mace_scf_jax.electrostatics import SummationMethod
from mace_scf_jax.graph import Graph
from mace_scf_jax.mesh import common_mesh
from mace_scf_jax.models import SCFState, SelfConsistency
from mace_scf_jax.predict.model import Model, load_model
from mace_scf_jax.simulate.neighbours import Neighbours, images_needed
from mace_scf_jax.simulate.results import Results, to_results

Positions = Float[ArrayLike, "atoms 3"]
Vector = Float[ArrayLike, "3"]
Matrix = Float[ArrayLike, "3 3"]
Scalar = Float[ArrayLike, ""]


@dataclasses.dataclass(frozen=True, eq=False)
class EnergyFunction:
    """The energy of a model for one structure: call it, or ask for all `results`.

    Pure and differentiable, in the precision of the model's parameters. Nothing depends on
    anything but the arguments. Energies for which the neighbours do not serve are NaN, and so are
    their derivatives; `Results.valid` tells.
    """

    model: Model

    def __call__(
        self,
        positions: Positions,
        neighbours: Neighbours,
        *,
        strain: Matrix | None = None,
        cell: Matrix | None = None,
        total_charge: Scalar | None = None,
        external_field: Vector | None = None,
        fermi_level: Scalar | None = None,
        start: SCFState | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> Float[Array, ""]:
        """The energy in eV.

        Args:
            positions: Å; need not lie within the cell.
            neighbours: from `prepare`, or an update of them.
            strain: ε; positions and cell are multiplied by 1 + ½(ε + εᵀ).
            cell: lattice vectors as rows, Å.
            total_charge: e, for families that conserve it.
            external_field: gradient of the external potential, V/Å.
            fermi_level: eV, for self-consistent models: the given one at constant Fermi level,
                otherwise where the search for it starts.
            start: multipoles and Fermi level from which self-consistent models start, such as
                `Results.scf_state` of a similar geometry.
            parameters: of the model; by default its own.

        Cell, charge, field and Fermi level are by default those of the structure that was prepared.
        """
        graph, valid = self._graph(
            positions,
            neighbours,
            strain,
            cell=cell,
            total_charge=total_charge,
            external_field=external_field,
            fermi_level=fermi_level,
        )
        outputs = self._evaluate(parameters, graph, start, forces=False, stress=False)
        return outputs["energy"][0] * _nan_unless(valid, graph)

    def results(
        self,
        positions: Positions,
        neighbours: Neighbours,
        *,
        forces: bool = True,
        stress: bool = False,
        strain: Matrix | None = None,
        cell: Matrix | None = None,
        total_charge: Scalar | None = None,
        external_field: Vector | None = None,
        fermi_level: Scalar | None = None,
        start: SCFState | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> Results:
        """Everything that the model predicts; arguments as for the energy.

        Args:
            forces: whether to compute forces.
            stress: whether to compute stress.
        """
        graph, valid = self._graph(
            positions,
            neighbours,
            strain,
            cell=cell,
            total_charge=total_charge,
            external_field=external_field,
            fermi_level=fermi_level,
        )
        outputs = self._evaluate(parameters, graph, start, forces=forces, stress=stress)
        results = to_results(outputs, valid)
        return dataclasses.replace(results, energy=results.energy * _nan_unless(valid, graph))

    def _evaluate(
        self,
        parameters: dict[str, Any] | None,
        graph: Graph,
        start: SCFState | None,
        **wanted: bool,
    ) -> dict[str, Array]:
        if start is not None and not self.model.is_self_consistent:
            raise ValueError(
                "start: expected a self-consistent model, found one of the family "
                f"{self.model.settings.family}"
            )
        given = self.model.parameters if parameters is None else parameters
        return self.model.evaluate(given, graph, start, **wanted)

    def _graph(
        self,
        positions: Positions,
        neighbours: Neighbours,
        strain: Matrix | None,
        **given: Matrix | Vector | Scalar | None,
    ) -> tuple[Graph, Bool[Array, ""]]:
        """The structure at these arguments, and whether its neighbours serve."""
        prepared = neighbours.graph
        dtype = prepared.positions.dtype
        positions = jnp.asarray(positions, dtype)
        if positions.shape != prepared.positions.shape:
            raise ValueError(
                f"positions: found shape {positions.shape}, expected {prepared.positions.shape} "
                "as in the prepared structure"
            )
        changes = {
            name: jnp.asarray(value, dtype)[None]
            for name, value in given.items()
            if value is not None
        }
        graph = prepared.replace(positions=positions, **changes)
        if strain is not None:
            graph = graph.strained(jnp.asarray(strain, dtype)[None])
        return graph, neighbours.is_valid(graph.positions, graph.cell[0])


Prepare = Callable[..., Neighbours]


def energy_function(
    model: Model | str | Path,
    *,
    skin: float = 0.5,
    largest_strain: float = 0.0,
    extra_capacity: float = 0.1,
    scf: SelfConsistency | None = None,
    sums: SummationMethod | str | None = None,
) -> tuple[EnergyFunction, Prepare]:
    """The energy of a model as a pure function, and the preparation of structures on the host.

    Args:
        model: a model or the path of its file.
        skin: length in Å by which edges reach beyond the model's cutoff: neighbours stay valid
            while no atom moves by more than half of it.
        largest_strain: relative change of the cell's vectors that one set of reciprocal vectors, or
            one mesh, is to serve. With 0 energies are those of `Model.predict`; otherwise there are
            more vectors, or grid points, and energies are smooth functions of the cell.
        extra_capacity: room for more neighbours than there are, as a part of them.
        scf: how the multipoles of a self-consistent model are solved for; None for the way of the
            model.
        sums: how electrostatic sums are done (see `Model.with_sums`); None for the way of the
            model.

    Returns:
        The energy function, and ``prepare(atoms, previous=None)``, which makes the `Neighbours` of
        an ASE structure. Inputs of the model are read from its ``info`` and ``arrays``. With
        ``previous`` no array is smaller than there, so that what is compiled is used again.

    Raises:
        ValueError: an option is out of range.
        ModelFileError: the file cannot be used.
    """
    if not (np.isfinite(skin) and skin > 0.0):
        raise ValueError(f"skin: found {skin}, expected a positive length in Å")
    if not 0.0 <= largest_strain < 1.0:
        raise ValueError(f"largest_strain: found {largest_strain}, expected a number from 0 to 1")
    if not (np.isfinite(extra_capacity) and extra_capacity >= 0.0):
        raise ValueError(f"extra_capacity: found {extra_capacity}, expected at least 0")
    loaded = (model if isinstance(model, Model) else load_model(model)).with_sums(sums)
    if scf is not None:
        loaded = dataclasses.replace(loaded, scf=scf)

    default_capacity = extra_capacity

    def prepare(
        atoms: ase.Atoms,
        previous: Neighbours | None = None,
        *,
        extra_capacity: float | None = None,
    ) -> Neighbours:
        """Find the neighbours and reciprocal vectors of a structure.

        Args:
            atoms: the structure.
            previous: neighbours of the same atoms, none of whose arrays is to shrink.
            extra_capacity: other than the one given to `energy_function`.

        Raises:
            DataError: the structure cannot be used, or ``previous`` has other atoms.
            BoundaryError: its periodicity does not fit the model's electrostatics.
        """
        return prepare_neighbours(
            loaded,
            atoms,
            previous,
            skin=skin,
            largest_strain=largest_strain,
            extra_capacity=default_capacity if extra_capacity is None else extra_capacity,
        )

    return EnergyFunction(loaded), prepare


def prepare_neighbours(
    model: Model,
    atoms: ase.Atoms,
    previous: Neighbours | None = None,
    *,
    skin: float,
    largest_strain: float,
    extra_capacity: float,
) -> Neighbours:
    """Neighbours of a structure; see `energy_function`."""
    structure = model.prepare(from_atoms(atoms), skin=skin, largest_strain=largest_strain)
    cell, pbc = structure.configuration.cell, structure.configuration.pbc
    if previous is not None and not np.array_equal(structure.species, previous.graph.species):
        raise DataError("previous neighbours: found those of other atoms")

    reach = model.settings.backbone.r_max + skin
    box = search_box(cell, pbc)
    # Vectors may shrink by the strain before the reciprocal vectors have to be chosen anew.
    images = images_needed(box * (1.0 - largest_strain), pbc, reach)
    room = round_up(int(np.ceil((1.0 + extra_capacity) * structure.neighbour_counts().max())))
    has_kvectors = model.settings.kspace_cutoff is not None
    kvectors, mesh = structure.num_kvectors, structure.mesh
    if previous is not None:
        if mesh is not None and previous.graph.mesh is not None:
            mesh = common_mesh((mesh, previous.graph.mesh))
        images = tuple(np.maximum(images, previous.images).tolist())
        room = max(room, previous.graph.neighbours_per_atom)
        kvectors = max(kvectors, previous.graph.k_indices.shape[1])
    candidates = structure.num_atoms * int(np.prod(2 * np.array(images) + 1))
    room = max(1, min(room, candidates))
    graph = collate(
        [structure],
        BatchSizes(
            atoms=structure.num_atoms,
            edges=structure.num_atoms * room,
            graphs=1,
            slots=structure.num_atoms,
            kvectors=round_up(kvectors),
            neighbours_per_atom=room,
        ),
        dtype=model.dtype,
        labels=False,
        padding=False,
        mesh=mesh,
    )
    graph = jax.device_put(graph)
    return Neighbours(
        graph=graph,
        search_box=jnp.asarray(box, model.dtype),
        reciprocal_cell=graph.cell[0],
        overflow=jnp.asarray(False),
        cutoff=model.settings.backbone.r_max,
        skin=skin,
        largest_strain=None if mesh is None and not has_kvectors else largest_strain,
        images=images,
    )


def _nan_unless(valid: Bool[Array, ""], graph: Graph) -> Float[Array, ""]:
    """A factor that makes an energy, and what is derived from it, NaN."""
    return jnp.where(valid, 1.0, jnp.nan).astype(graph.positions.dtype)
