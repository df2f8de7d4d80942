"""ASE calculator of a trained model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Unpack

import ase
import numpy as np
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from jaxtyping import Float

from mace_scf_jax.data.errors import NO_FILE
from mace_scf_jax.models import Use
from mace_scf_jax.models.outputs import DERIVATIVES, outputs_for
from mace_scf_jax.predict.convergence import NotConverged, check_policy, report_convergence
from mace_scf_jax.predict.distances import SHORTEST, DistanceWatch
from mace_scf_jax.predict.layer_features import layer_features
from mace_scf_jax.predict.model import Model, load_model
from mace_scf_jax.predict.surplus import NOTICEABLE, SurplusWatch
from mace_scf_jax.predict.use import no_attribute, refuse_unknown
from mace_scf_jax.simulate.evaluator import Evaluator
from mace_scf_jax.simulate.geometry import read_geometry, read_inputs, same_inputs
from mace_scf_jax.simulate.hessian import hessian
from mace_scf_jax.simulate.keywords import (
    OF_MACE,
    ASEOptions,
    CalculatorOptions,
    in_our_words,
    refuse_unnamed,
)
from mace_scf_jax.simulate.warm_start import WarmStart, WarmStarter

PROPERTIES = {
    "energy": "energy",
    "free_energy": "energy",
    "forces": "forces",
    "stress": "stress",
    "charges": "charges",
    "dipole": "dipole",
    "polarizability": "polarizability",
}
"""What ASE may ask for by name: the output that it is, or is part of."""


class InputCalculator(Calculator):
    """An ASE calculator that notices changes of its inputs in ``info`` and ``arrays`` too.

    A subclass reads its inputs, and computes results from ``self.atoms`` and these.
    """

    options: ClassVar[Any] = ASEOptions
    """Names of keywords beside those of ``__init__`` itself."""
    _inputs: Mapping[str, np.ndarray] = {}

    @classmethod
    def refuse_unknown(cls, given: Mapping[str, Any]) -> None:
        """Refuse keywords that the calculator cannot be made with.

        Raises:
            TypeError: names the first one, and what to do instead.
        """
        own = inspect.signature(cls).parameters.values()
        named = [entry.name for entry in own if entry.kind is not entry.VAR_KEYWORD]
        refuse_unknown(cls.__name__, given, (*named, *cls.options.__annotations__))

    def set(self, **given: Any) -> dict[str, Any]:
        """Refuse parameters, of which these calculators have none; ASE keeps and ignores them.

        Raises:
            TypeError: there are some; says what to do instead.
        """
        self.refuse_unknown(given)
        if given:
            raise TypeError(
                f"{type(self).__name__}.set: found {', '.join(given)}, which can only be given "
                "when the calculator is made"
            )
        return {}

    def chosen(self, atoms: ase.Atoms | None) -> ase.Atoms:
        """The given structure, or that of the last calculation.

        Raises:
            ValueError: there is neither.
        """
        if atoms is None and self.atoms is None:
            raise ValueError(f"{type(self).__name__}: expected a structure, found none")
        return self.atoms if atoms is None else atoms

    def __getattr__(self, name: str) -> Any:
        """Refuse an attribute that there is not.

        Raises:
            AttributeError: says what there is in place of those of MACE's calculator.
        """
        raise no_attribute(self, name, OF_MACE)

    def read_inputs(self, atoms: ase.Atoms) -> dict[str, np.ndarray]:
        """Copies of all that results depend on besides elements, positions, cell and pbc."""
        raise NotImplementedError

    def compute(self, inputs: dict[str, np.ndarray], *, stress: bool) -> dict[str, Any]:
        """The results for ``self.atoms``."""
        raise NotImplementedError

    def check_state(self, atoms: ase.Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation, with "info" for inputs."""
        changes = super().check_state(atoms, tol=tol)
        return changes if same_inputs(self.read_inputs(atoms), self._inputs) else [*changes, "info"]

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Fill ``results``; called by ASE."""
        super().calculate(atoms, properties, system_changes)
        inputs = self.read_inputs(self.atoms)
        self.results = self.compute(inputs, stress="stress" in (properties or ()))
        self._inputs = inputs


class MACESCFCalculator(InputCalculator):
    """Energies, forces, stress and multipoles for ASE.

    ``atoms.info`` holds the inputs ``total_charge`` (e), ``total_spin`` (multiplicity 2S + 1),
    ``external_field`` (V/Å) and ``fermi_level`` (eV); a change of them is noticed. A list of
    neighbours outlives steps, and the sizes of the compiled function leave room, so that moving
    atoms and changing cells rarely compile anew. Once the stress has been asked for, every
    calculation has it: a step at constant pressure is one calculation. A copy by pickle has model,
    settings and results, and compiles for itself.

    Results: energy, free_energy (eV), forces (eV/Å), stress (eV/Å³, Voigt), and for models with
    charges: charges (e), multipoles (e Å^l; order Q, d_y, d_z, d_x), dipole (e Å; x, y, z),
    electrostatic_energy (eV), and polarizability (e Å²/V) where the model reads it out. There is no
    stress of a structure without periodic directions, and no dipole of one that is periodic in
    three, unless the family has a polarization; of a slab it is NaN along the plane. Further
    results are the outputs that `mace_scf_jax.models.OUTPUTS` has for calculators, and of
    self-consistent models convergence_history, the residual of every step.

    Calculations raise `DataError` for a structure with an element that the model lacks, or that
    cannot be used; `BoundaryError` where its periodicity does not fit the model's electrostatics;
    `NotConvergedError` where multipoles are not self-consistent and the policy is to raise.
    """

    options = CalculatorOptions
    implemented_properties: ClassVar[list[str]] = [*PROPERTIES]

    def __init__(
        self,
        model: Model | str | Path | None = None,
        *unnamed: Any,
        warm_start: WarmStart | None = None,
        not_converged: NotConverged = "raise",
        smooth: bool = False,
        **options: Unpack[CalculatorOptions],
    ) -> None:
        """Make a calculator.

        Args:
            model: a model or the path of its file.
            unnamed: nothing: all else is given by its name.
            warm_start: start from the solutions of previous geometries; None to solve every
                geometry by itself, which makes results independent of the past.
            not_converged: what to do if the multipoles are not self-consistent.
            smooth: make energies smooth functions of the cell, as for relaxations; see `Evaluator`.
                They then differ a little from those of `Model.predict`.
            options: see `CalculatorOptions`. ``scf=SelfConsistency(constant_charge=False)`` keeps
                the Fermi level of ``atoms.info``.

        Raises:
            ModelFileError: the file cannot be used.
            TypeError: there is no such keyword; says what to do instead.
            ValueError: there is no such policy, or an option makes no sense for the model.
        """
        refuse_unnamed(type(self).__name__, unnamed)
        self.refuse_unknown(options)
        model, of_model, of_ase = in_our_words(type(self).__name__, model, options)
        if isinstance(model, list | tuple):
            raise TypeError(f"found {len(model)} models, which a CommitteeCalculator is for")
        super().__init__(**of_ase)
        check_policy(not_converged)
        self.model = load_model(model, **of_model)
        settings = self.model.settings
        if warm_start is not None and not self.model.is_self_consistent:
            raise ValueError(
                f"warm_start: expected a self-consistent model, found one of the family "
                f"{settings.family}"
            )
        outputs = (*settings.outputs, *DERIVATIVES)
        self.implemented_properties = [
            name for name, output in PROPERTIES.items() if output in outputs
        ]
        self.not_converged = not_converged
        self.evaluator = Evaluator(self.model, smooth=smooth)
        self._warm_starter = None if warm_start is None else WarmStarter(warm_start)
        self._start: Mapping[str, Any] | None = None
        keys = self.model.input_keys
        self._places = keys.stored_under("info"), keys.stored_under("arrays")
        self._given = tuple(entry.name for entry in outputs_for(Use.CALCULATORS))
        self._with_stress = False
        self._surplus = SurplusWatch(self.model.keeps_total_charge)
        self._distances = DistanceWatch(settings)

    def start_from(self, solved: Mapping[str, Any]) -> None:
        """Start the next calculation from given multipoles and Fermi level.

        Args:
            solved: ``multipoles`` [atoms, components] (e Å^l) and ``fermi_level`` (eV) by name:
                a prediction, or the results of a calculator.
        """
        self.reset()
        self._start = solved

    def get_hessian(
        self, atoms: ase.Atoms | None = None
    ) -> Float[np.ndarray, "components atoms 3"]:
        """Second derivatives of the energy by differentiation, in eV/Å²; see `hessian`.

        Constraints are not looked at. ``VibrationsData.from_2d`` of ASE takes them as
        ``.reshape(3 * len(atoms), -1)``.

        Args:
            atoms: the structure; None for that of the last calculation.

        Raises:
            ValueError: there is no structure.
            NotConvergedError: multipoles are not self-consistent, and the policy is to raise.
        """
        matrix = hessian(self.model, self.chosen(atoms), not_converged=self.not_converged)
        return matrix.reshape(len(matrix), -1, 3)

    def get_descriptors(
        self, atoms: ase.Atoms | None = None, invariants_only: bool = True, num_layers: int = -1
    ) -> Float[np.ndarray, "atoms features"]:
        """Learned features of every atom; see `layer_features` for arguments and errors.

        Args:
            atoms: the structure; None for that of the last calculation.
        """
        return layer_features(
            self.model,
            self.chosen(atoms),
            invariants_only=invariants_only,
            num_layers=num_layers,
        )

    def read_inputs(self, atoms: ase.Atoms) -> dict[str, np.ndarray]:
        """Copies of what the model reads besides elements, positions and cell."""
        return read_inputs(atoms, *self._places)

    def compute(self, inputs: dict[str, np.ndarray], *, stress: bool) -> dict[str, Any]:
        """The results for ``self.atoms``, from a warm start where there is one."""
        self._with_stress |= stress
        geometry = read_geometry(self.atoms, inputs)
        solve = functools.partial(
            self.evaluator.evaluate, self.atoms, geometry, stress=self._with_stress
        )
        start, self._start = self._start, None
        if start is not None or self._warm_starter is None:
            found = solve(start)
        else:
            found = self._warm_starter.solve(geometry, solve)
        if not found["converged"]:
            report_convergence([found], [NO_FILE], not_converged=self.not_converged)
        total, wanted = found.get("total_charge", 0.0), self.evaluator.total_charge
        if abs(total - wanted) > NOTICEABLE:  # a step is to call little
            self._surplus.look(total, wanted)
        if SHORTEST in found:
            self._distances.look(found)
        results = {name: found[name] for name in self._given if name in found}
        results["energy"] = results["free_energy"] = float(found["energy"])
        results["forces"] = np.asarray(found["forces"], dtype=np.float64)
        if "stress" in found:
            results["stress"] = full_3x3_to_voigt_6_stress(found["stress"])
        if "scf_history" in found:
            results["convergence_history"] = found["scf_history"][: found["scf_steps"]].tolist()
        return results
