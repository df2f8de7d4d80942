"""Energies of a model as pure functions of positions, cell, charge and field.

energy_fn, prepare = mace_scf_jax.energy_function(model)
neighbours = prepare(atoms)                        # on the host, once
energy = energy_fn(positions, neighbours)          # eV; jit, grad, vmap, scan
results = energy_fn.results(positions, neighbours, stress=True)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from mace_scf_jax.models import SCFState
from mace_scf_jax.models.meaning import as_nan
from mace_scf_jax.predict.model import Model, load_model
from mace_scf_jax.predict.suitability import unread_inputs
from mace_scf_jax.predict.use import Options
from mace_scf_jax.simulate.neighbours import Neighbours
from mace_scf_jax.simulate.preparation import EXTRA_ROOM, Preparation
from mace_scf_jax.simulate.results import Results, to_results

Vector = Float[ArrayLike, "3"]
Matrix = Float[ArrayLike, "3 3"]
Scalar = Float[ArrayLike, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """What one evaluation of a model hands to the next."""

    neighbours: Neighbours
    start: SCFState | tuple[SCFState, ...] | None = None
    """From where a self-consistent model starts, or each of a committee; None for its own initial
    state."""


@dataclasses.dataclass(frozen=True, eq=False)
class EnergyFunction:
    """The energy of a model for one structure: call it, or ask for all `results`.

    Pure and differentiable, in the precision of the model's parameters; positions, cells and
    energies are in double precision. Nothing depends on anything but the arguments. Where the
    neighbours do not serve, `Results.valid` is false, and all other numbers are NaN, derivatives of
    the energy too.
    """

    model: Model

    @property
    def parameters(self) -> Any:
        """What the model has learned, to be handed to what is compiled."""
        return self.model.parameters

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
        total_spin: Scalar | None = None,
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
            total_charge: e, for families that conserve it and models that embed it.
            external_field: gradient of the external potential, V/Å.
            fermi_level: eV, for self-consistent models: the given one at constant Fermi level,
                otherwise where the search for it starts.
            total_spin: multiplicity 2S + 1, for models that read it.
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
            "total_spin": total_spin,
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
            self.parameters if parameters is None else parameters,
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


def energy_function(
    model: Model | str | Path,
    *,
    skin: float = 0.5,
    largest_strain: float = 0.0,
    extra_capacity: float = EXTRA_ROOM,
    **options: Unpack[Options],
) -> tuple[EnergyFunction, Preparation]:
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
        the `Neighbours` of an ASE structure: see `Preparation`. Both can be pickled.

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
    return EnergyFunction(loaded), Preparation(loaded, skin, largest_strain, extra_capacity)
