"""The energy of a committee, the mean or that of one member, as a pure function."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from mace_scf_jax.predict.committee import Committee, load_committee
from mace_scf_jax.predict.evaluation import SPREAD
from mace_scf_jax.predict.use import Options
from mace_scf_jax.simulate.functional import Context, EnergyFunction, Matrix, energy_function
from mace_scf_jax.simulate.neighbours import Neighbours
from mace_scf_jax.simulate.preparation import Preparation
from mace_scf_jax.simulate.results import Results

WITH_SPREAD = ("energy", "forces")
"""Outputs whose sample standard deviations over the members are among the results."""


@dataclasses.dataclass(frozen=True, eq=False)
class CommitteeEnergyFunction(EnergyFunction):
    """The mean energy of a committee for one structure, and the means of all results.

    With ``aggregation: reference`` numbers are those of the reference member in place of means.

    As an `EnergyFunction`, whose `model` is the first member, but for ``parameters`` and ``start``,
    which are tuples over the members. Forces are derivatives of the mean energy. Ends of searches
    are the worst of the members, steps the most; ``energy_std`` and ``forces_std`` among
    `Results.further` are sample standard deviations over them.
    """

    committee: Committee

    @property
    def parameters(self) -> tuple[dict[str, Any], ...]:
        """Of all members."""
        return tuple(member.parameters for member in self.committee.members)

    def results(
        self,
        positions: Float[ArrayLike, "atoms 3"],
        neighbours: Neighbours,
        **arguments: Any,
    ) -> Results:
        """The means of what the members predict, with the arguments of `EnergyFunction.results`."""
        members = self._of_members(positions, neighbours, **arguments)
        return _combined(members, self.committee.reference)

    def follow(
        self,
        positions: Float[ArrayLike, "atoms 3"],
        cell: Matrix,
        context: Context,
        *,
        stress: bool = False,
        parameters: tuple[dict[str, Any], ...] | None = None,
    ) -> tuple[Results, Context]:
        """Follow the atoms to where they are now; see `EnergyFunction.follow`."""
        neighbours = context.neighbours.update(positions, cell, renewed_at=1.0)
        members = self._of_members(
            positions,
            neighbours,
            cell=cell,
            stress=stress,
            start=context.start,
            parameters=parameters,
        )
        states = None
        if self.model.is_self_consistent:
            states = tuple(
                found.scf_state.with_memory(neighbours.graph, member.scf)
                for found, member in zip(members, self.committee.members, strict=True)
            )
        return _combined(members, self.committee.reference), Context(neighbours, states)

    def _of_members(
        self,
        positions: Float[ArrayLike, "atoms 3"],
        neighbours: Neighbours,
        *,
        start: tuple[Any, ...] | None = None,
        parameters: tuple[dict[str, Any], ...] | None = None,
        **arguments: Any,
    ) -> list[Results]:
        members = self.committee.members
        return [
            EnergyFunction(member).results(
                positions, neighbours, start=begin, parameters=own, **arguments
            )
            for member, begin, own in zip(
                members,
                (None,) * len(members) if start is None else start,
                self.parameters if parameters is None else parameters,
                strict=True,
            )
        ]


def committee_energy_function(
    committee: Committee | str | Path,
    *,
    skin: float = 0.5,
    largest_strain: float = 0.0,
    **options: Unpack[Options],
) -> tuple[CommitteeEnergyFunction, Preparation]:
    """The mean energy of a committee as a pure function, and the preparation of structures.

    Args:
        committee: a committee, or its folder; with ``aggregation: reference`` the energy is that of
            the reference member.
        skin: as for `mace_scf_jax.energy_function`, like the others.
        largest_strain: range of cells that one preparation serves.
        options: how the models are used, see `mace_scf_jax.predict.use.Options`.

    Returns:
        As `mace_scf_jax.energy_function`; one preparation serves all members.

    Raises:
        CommitteeFileError: the folder holds no readable committee.
        CommitteeError: the committee is not complete, or its members disagree.
        ModelFileError: a model file cannot be used.
        TypeError: there is no such option.
        ValueError: an option is out of range.
    """
    loaded = committee if isinstance(committee, Committee) else load_committee(committee)
    loaded = loaded.using(**options)
    _, prepare = energy_function(loaded.first, skin=skin, largest_strain=largest_strain)
    return CommitteeEnergyFunction(loaded.first, loaded), prepare


def _combined(members: list[Results], reference: int | None) -> Results:
    """Means of numbers; the worst end and the most steps of the searches; valid if all are.

    Args:
        reference: position of the member whose numbers are taken in place of means.
    """

    def of_all(*values: Array) -> Array:
        stacked = jnp.stack(values)
        if jnp.issubdtype(stacked.dtype, jnp.floating):
            return jnp.mean(stacked, axis=0) if reference is None else values[reference]
        return jnp.all(stacked, axis=0) if stacked.dtype == bool else jnp.max(stacked, axis=0)

    # What the searches have learned belongs to each member.
    single = [dataclasses.replace(member, scf_memory=None) for member in members]
    combined = jax.tree.map(of_all, *single)
    spread = {
        f"{name}{SPREAD}": jnp.std(jnp.stack([getattr(each, name) for each in single]), 0, ddof=1)
        for name in WITH_SPREAD
        if getattr(combined, name) is not None
    }
    return dataclasses.replace(combined, further=combined.further | spread)
