"""Energies of a model as pure functions of positions, cell, charge and field.

energy_fn, prepare = mace_scf_jax.energy_function(model)
neighbours = prepare(atoms)                        # on the host, once
energy = energy_fn(positions, neighbours)          # eV; jit, grad, vmap, scan
results = energy_fn.results(positions, neighbours, stress=True)
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import ase
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.sizes import BatchSizes, merge, required_sizes
from mace_scf_jax.data.structure import search_box
from mace_scf_jax.mesh import Mesh, common_mesh
from mace_scf_jax.models import SCFState
from mace_scf_jax.models.meaning import as_nan
from mace_scf_jax.predict.model import Model, load_model
from mace_scf_jax.predict.suitability import unread_inputs
from mace_scf_jax.predict.use import Options, device_named
from mace_scf_jax.simulate.neighbours import Neighbours, images_needed
from mace_scf_jax.simulate.results import Results, to_results

Vector = Float[ArrayLike, "3"]
Matrix = Float[ArrayLike, "3 3"]
Scalar = Float[ArrayLike, ""]

EXTRA_ROOM = 0.1
"""Room for more neighbours of an atom than there are at first, as a part of them: moving atoms that
outgrow it compile anew, and every step pays for it."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """What one evaluation of a model hands to the next."""

    neighbours: Neighbours
    start: SCFState | None = None
    """From where a self-consistent model starts; None for its own initial state."""


@dataclasses.dataclass(frozen=True, eq=False)
class EnergyFunction:
    """The energy of a model for one structure: call it, or ask for all `results`.

    Pure and differentiable, in the precision of the model's parameters; positions, cells and
    energies are in double precision. Nothing depends on anything but the arguments. Where the
    neighbours do not serve, `Results.valid` is false, and all other numbers are NaN, derivatives of
    the energy too.
    """

    model: Model

    def __call__(
        self,
        positions: Float[ArrayLike, "atoms 3"],
        neighbours: Neighbours,
        **arguments: Any,
    ) -> Float[Array, ""]:
        """The energy in eV, with the arguments of `results`."""
        return self.results(positions, neighbours, forces=False, **arguments).energy

    def results(
        self,
        positions: Float[ArrayLike, "atoms 3"],
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
        """Everything that the model predicts.

        Cell, charge, field and Fermi level are by default those of the structure that was prepared.

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

        Raises:
            ValueError: there are not as many positions as prepared atoms, or the model does not
                read what is given, such as ``start`` where it is not self-consistent.
        """
        if start is not None and not self.model.is_self_consistent:
            raise ValueError(
                "start: expected a self-consistent model, found one of the family "
                f"{self.model.settings.family}"
            )
        prepared = neighbours.graph
        precise = prepared.positions.dtype
        positions = jnp.asarray(positions, precise)
        if positions.shape != prepared.positions.shape:
            raise ValueError(
                f"positions: found shape {positions.shape}, expected {prepared.positions.shape} "
                "as in the prepared structure"
            )
        given = {
            "cell": cell,
            "total_charge": total_charge,
            "external_field": external_field,
            "fermi_level": fermi_level,
        }
        for name in unread_inputs(self.model.settings):
            if given[name] is not None:
                raise ValueError(
                    f"{name}: models of the family {self.model.settings.family} do not read it"
                )
        changes = {
            name: jnp.asarray(value, precise if name == "cell" else prepared.dtype)[None]
            for name, value in given.items()
            if value is not None
        }
        graph = prepared.replace(positions=positions, **changes)
        if strain is not None:
            graph = graph.strained(jnp.asarray(strain, precise)[None])
        valid = neighbours.is_valid(graph.positions, graph.cell[0])
        outputs = self.model.evaluate(
            self.model.parameters if parameters is None else parameters,
            graph,
            start,
            forces=forces,
            stress=stress,
        )
        return to_results(as_nan(self.model.settings, outputs, graph), valid)

    def follow(
        self,
        positions: Float[ArrayLike, "atoms 3"],
        cell: Matrix,
        context: Context,
        *,
        stress: bool = False,
        parameters: dict[str, Any] | None = None,
    ) -> tuple[Results, Context]:
        """Follow the atoms to where they are now: all engines of dynamics do each step by this.

        Args:
            positions: Å.
            cell: Å.
            context: what the evaluation before handed on.
            parameters: of the model; by default its own.

        Returns:
            The results, and the context of the next evaluation: neighbours, renewed if need be,
            and for self-consistent models the solved state with the memory of searches.
        """
        neighbours = context.neighbours.update(positions, cell, renewed_at=1.0)
        results = self.results(
            positions,
            neighbours,
            cell=cell,
            stress=stress,
            start=context.start,
            parameters=parameters,
        )
        state = results.scf_state
        if state is not None:
            state = state.with_memory(neighbours.graph, self.model.scf)
        return results, Context(neighbours, state)


Prepare = Callable[..., Neighbours]
Images = tuple[int, int, int]
Choose = Callable[[BatchSizes, Images], tuple[BatchSizes, Images]]


def energy_function(
    model: Model | str | Path,
    *,
    skin: float = 0.5,
    largest_strain: float = 0.0,
    extra_capacity: float = EXTRA_ROOM,
    **options: Unpack[Options],
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
        options: how the model is used, see `mace_scf_jax.predict.use.Options`.

    Returns:
        The energy function, and ``prepare(atoms, previous=None, extra_capacity=None)``, which makes
        the `Neighbours` of an ASE structure. Inputs of the model are read from its ``info`` and
        ``arrays``. With ``previous`` no array is smaller than there, so that what is compiled is
        used again. It raises `DataError` where the structure cannot be used or ``previous`` has
        other atoms, and `BoundaryError` where its periodicity does not fit the electrostatics.

    Raises:
        TypeError: there is no such option.
        ValueError: an option is out of range.
        ModelFileError: the file cannot be used.
    """
    if not (np.isfinite(skin) and skin > 0.0):
        raise ValueError(f"skin: found {skin}, expected a positive length in Å")
    if not 0.0 <= largest_strain < 1.0:
        raise ValueError(f"largest_strain: found {largest_strain}, expected a number from 0 to 1")
    if not (np.isfinite(extra_capacity) and extra_capacity >= 0.0):
        raise ValueError(f"extra_capacity: found {extra_capacity}, expected at least 0")
    loaded = load_model(model, **options)
    default_capacity = extra_capacity

    def prepare(
        atoms: ase.Atoms,
        previous: Neighbours | None = None,
        *,
        extra_capacity: float | None = None,
    ) -> Neighbours:
        def choose(needed: BatchSizes, images: Images) -> tuple[BatchSizes, Images]:
            extra = default_capacity if extra_capacity is None else extra_capacity
            sizes = needed.with_room(extra)
            if previous is None:
                return sizes, images
            return merge((sizes, previous.sizes)), tuple(map(max, images, previous.images))

        made = prepare_neighbours(
            loaded,
            atoms,
            choose,
            skin=skin,
            largest_strain=largest_strain,
            mesh=None if previous is None else previous.graph.mesh,
        )
        if previous is not None and not np.array_equal(made.graph.species, previous.graph.species):
            raise DataError("previous neighbours: found those of other atoms")
        return made

    return EnergyFunction(loaded), prepare


def prepare_neighbours(
    model: Model,
    atoms: ase.Atoms,
    choose: Choose,
    *,
    skin: float,
    largest_strain: float,
    mesh: Mesh | None = None,
) -> Neighbours:
    """Find the neighbours and reciprocal vectors of a structure on the host.

    Args:
        model: what they are for.
        choose: from the sizes and images that are needed to those of the arrays.
        skin: as for `energy_function`.
        largest_strain: as for `energy_function`.
        mesh: that the mesh of the structure, if it has one, is not to be coarser than.

    Raises:
        DataError: the structure cannot be used.
        BoundaryError: its periodicity does not fit the model's electrostatics.
    """
    structure = model.prepare(model.read(atoms), skin=skin, largest_strain=largest_strain)
    pbc = structure.configuration.pbc
    cutoff = model.settings.backbone.r_max
    box = search_box(structure.configuration.cell, pbc)
    sizes, images = choose(
        required_sizes([structure], "per_atom", padding=False),
        # Vectors may shrink by the strain before the reciprocal vectors have to be chosen anew.
        images_needed(box * (1.0 - largest_strain), pbc, cutoff + skin),
    )
    if mesh is not None and structure.mesh is not None:
        mesh = common_mesh((mesh, structure.mesh))
    else:
        mesh = structure.mesh
    graph = jax.device_put(
        collate([structure], sizes, dtype=model.dtype, labels=False, padding=False, mesh=mesh),
        None if model.device is None else device_named(model.device),
    )
    in_cell = mesh is not None or model.settings.kspace_cutoff is not None
    depends_on_cell = in_cell and not math.isinf(structure.repeat)
    return Neighbours(
        graph=graph,
        search_box=jnp.asarray(box, graph.cell.dtype),
        reciprocal_cell=graph.cell[0],
        overflow=jnp.asarray(False),
        cutoff=cutoff,
        skin=skin,
        largest_strain=largest_strain if depends_on_cell else None,
        images=images,
        tails=model.settings.tails,
    )
