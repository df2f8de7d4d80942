"""ASE calculator of a committee: mean results and how far the members disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Unpack

import ase
import numpy as np
from jaxtyping import Float

from mace_scf_jax.models import Use
from mace_scf_jax.models.outputs import outputs_for
from mace_scf_jax.predict.committee import Aggregation, Committee, load_committee
from mace_scf_jax.predict.convergence import NotConverged, NotConvergedError
from mace_scf_jax.predict.evaluation import SPREAD
from mace_scf_jax.predict.spread import mean_and_std
from mace_scf_jax.simulate.calculator import InputCalculator, MACESCFCalculator
from mace_scf_jax.simulate.keywords import CalculatorOptions, in_our_words, refuse_unnamed
from mace_scf_jax.simulate.warm_start import WarmStart


class CommitteeCalculator(InputCalculator):
    """Mean energies, forces, stress and multipoles of a committee, with their spread, for ASE.

    Results and inputs are those of `MACESCFCalculator`, means over the members, or those of the
    reference member (``aggregation="reference"``). For each of them
    ``results`` has the sample standard deviation too: ``energy_std``, ``forces_std``,
    ``stress_std``, ``charges_std``, …, in the same shape and unit. Every member's own results are
    those of ``calculators``.

    Args:
        committee: a committee, its folder, or several model files.
        unnamed: nothing: all else is given by its name.
        warm_start: start from the solutions of previous geometries; each member has its own.
        not_converged: what to do if the multipoles of a member are not self-consistent.
        smooth: make energies smooth functions of the cell, see `MACESCFCalculator`.
        aggregation, reference_member: see `Committee`; None for what the committee says.
        options: see `CalculatorOptions`.

    Raises:
        CommitteeFileError: the folder holds no readable committee.
        CommitteeError: the committee is not complete, or its members disagree.
        ModelFileError: a model file cannot be used.
        TypeError: there is no such keyword.
        ValueError: an option makes no sense for the models.
    """

    options = CalculatorOptions
    implemented_properties: ClassVar[list[str]] = []

    def __init__(
        self,
        committee: Committee | str | Path | Sequence[str | Path] | None = None,
        *unnamed: Any,
        warm_start: WarmStart | None = None,
        not_converged: NotConverged = "raise",
        smooth: bool = False,
        aggregation: Aggregation | None = None,
        reference_member: int | None = None,
        **options: Unpack[CalculatorOptions],
    ) -> None:
        refuse_unnamed(type(self).__name__, unnamed)
        self.refuse_unknown(options)
        source, of_models, of_ase = in_our_words(type(self).__name__, committee, options)
        loaded = source if isinstance(source, Committee) else load_committee(source)
        self.committee = loaded.using(**of_models).aggregating(aggregation, reference_member)
        self.calculators = tuple(
            MACESCFCalculator(
                member, warm_start=warm_start, not_converged=not_converged, smooth=smooth
            )
            for member in self.committee.members
        )
        of_one = self.calculators[0].implemented_properties
        spread = [f"{name}{SPREAD}" for name in of_one if name != "free_energy"]
        self.implemented_properties = [*of_one, *spread]
        super().__init__(**of_ase)

    def reset(self) -> None:
        """Forget the last calculation."""
        super().reset()
        for calculator in self.calculators:
            calculator.reset()

    def get_hessian(
        self, atoms: ase.Atoms | None = None
    ) -> list[Float[np.ndarray, "components atoms 3"]]:
        """What `MACESCFCalculator.get_hessian` returns for every member."""
        return [each.get_hessian(self.chosen(atoms)) for each in self.calculators]

    def get_descriptors(
        self, atoms: ase.Atoms | None = None, invariants_only: bool = True, num_layers: int = -1
    ) -> list[Float[np.ndarray, "atoms features"]]:
        """What `MACESCFCalculator.get_descriptors` returns for every member."""
        return [
            each.get_descriptors(self.chosen(atoms), invariants_only, num_layers)
            for each in self.calculators
        ]

    def read_inputs(self, atoms: ase.Atoms) -> dict[str, np.ndarray]:
        """Copies of what the models read besides elements, positions and cell."""
        return self.calculators[0].read_inputs(atoms)

    def compute(self, inputs: dict[str, np.ndarray], *, stress: bool) -> dict[str, Any]:
        """Means, or results of the reference member, and deviations for ``self.atoms``."""
        for name, calculator in zip(self.committee.names, self.calculators, strict=True):
            try:
                calculator.calculate(self.atoms, ["stress"] if stress else [])
            except NotConvergedError as error:
                raise NotConvergedError(f"{name}: {error}") from None
        results: dict[str, Any] = {}
        members = [calculator.results for calculator in self.calculators]
        reference = self.committee.reference
        for name in (entry.name for entry in outputs_for(Use.COMMITTEES)):
            if name in members[0]:
                mean, spread = mean_and_std([entry[name] for entry in members])
                followed = mean[()] if reference is None else members[reference][name]
                results[name], results[f"{name}{SPREAD}"] = followed, spread[()]
        return results | {"free_energy": results["energy"]}
