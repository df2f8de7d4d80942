"""ASE calculator of fixed multipoles: their Coulomb energy and nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Unpack

import ase
import jax
import jax.numpy as jnp
import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    dipole_cartesian,
    system_energy,
    system_potential,
)
from mace_scf_jax.maps.atomic_multipoles import AtomicMultipoles, multipoles_of_atoms
from mace_scf_jax.simulate.calculator import InputCalculator
from mace_scf_jax.simulate.keywords import ASEOptions


class CoulombCalculator(InputCalculator):
    """Coulomb energy of fixed Gaussian multipoles on atoms, in an external field: E + D·E_ext.

    Multipoles (e Å^l; order Q, d_y, d_z, d_x) are those of `set_multipoles`, otherwise
    ``atoms.arrays["multipoles"]``; the field (V/Å, gradient of the potential) is that of
    `set_external_field`, otherwise ``atoms.info["external_field"]``, otherwise none. All changes
    of them are noticed. The boundary condition ``auto`` is resolved for each structure.

    Results: energy, free_energy (eV), forces (eV/Å, at fixed multipoles), stress (eV/Å³, Voigt;
    when asked for, and there is a periodic direction), charges (e), atomic_dipoles
    (e Å; x, y, z), dipole (e Å; x, y, z), external_field (V/Å) and electrostatic_potentials (V; at
    the atoms, own Gaussians and external field included).

    Calculations raise `ValueError` where there are no multipoles, or not (max_l + 1)² for every
    atom, or the field is not three numbers, and `BoundaryError` where the periodicity does not fit
    the boundary condition.
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "forces",
        "stress",
        "charges",
        "dipole",
    ]

    def __init__(
        self,
        settings: ElectrostaticsSettings,
        *,
        multipoles_key: str = "multipoles",
        external_field_key: str = "external_field",
        **options: Unpack[ASEOptions],
    ) -> None:
        """Make a calculator.

        Args:
            settings: density, boundary condition and reciprocal cutoff.
            multipoles_key: entry of ``atoms.arrays``.
            external_field_key: entry of ``atoms.info``.
            options: those of ASE's ``Calculator``: atoms, label, directory.

        Raises:
            TypeError: there is no such keyword.
        """
        super().__init__(**options)
        self.settings = settings
        self.multipoles_key = multipoles_key
        self.external_field_key = external_field_key
        self._set: dict[str, np.ndarray] = {}

    def set_multipoles(self, multipoles: Float[np.ndarray, "atoms components"]) -> None:
        """Keep multipoles for all further calculations.

        Args:
            multipoles: in e Å^l.

        Raises:
            ValueError: there are not (max_l + 1)² of each atom.
        """
        multipoles = np.array(multipoles, dtype=np.float64)
        if multipoles.ndim != 2 or multipoles.shape[1] != self.settings.num_multipoles:
            raise ValueError(
                f"multipoles: found shape {multipoles.shape}, expected (atoms, "
                f"{self.settings.num_multipoles}) for max_l = {self.settings.max_l}"
            )
        self._set["multipoles"] = multipoles

    def set_external_field(self, field: Sequence[float] | Float[np.ndarray, "3"]) -> None:
        """Keep an external field for all further calculations.

        Args:
            field: gradient of the potential in V/Å (x, y, z).

        Raises:
            ValueError: it is not three finite numbers.
        """
        field = np.array(field, dtype=np.float64)
        if field.shape != (3,) or not np.all(np.isfinite(field)):
            raise ValueError(
                f"external field: found {field.tolist()}, expected three finite numbers"
            )
        self._set["external_field"] = field

    def compute(self, inputs: dict[str, np.ndarray], *, stress: bool) -> dict[str, Any]:
        """The results for ``self.atoms``."""
        if "multipoles" not in inputs:
            raise ValueError(
                "multipoles: found neither any by set_multipoles nor "
                f"atoms.arrays[{self.multipoles_key!r}]"
            )
        sources = multipoles_of_atoms(
            self.atoms,
            inputs["multipoles"],
            settings=self.settings,
            external_field=inputs.get("external_field"),
        )
        found = jax.device_get(_evaluate(sources))
        results: dict[str, Any] = {name: np.asarray(found[name]) for name in found}
        results["energy"] = results["free_energy"] = float(found["energy"])
        results["charges"] = sources.multipoles[:, 0]
        results["atomic_dipoles"] = np.asarray(dipole_cartesian(jnp.asarray(sources.multipoles)))
        results["external_field"] = np.asarray(sources.external_field)
        if stress and self.atoms.pbc.any():
            results["stress"] = full_3x3_to_voigt_6_stress(np.asarray(_stress(sources)))
        return results

    def read_inputs(self, atoms: ase.Atoms) -> dict[str, np.ndarray]:
        """Copies of multipoles and field, what was set before what the atoms hold."""
        inputs = dict(self._set)
        if self.multipoles_key in atoms.arrays and "multipoles" not in inputs:
            inputs["multipoles"] = np.array(atoms.arrays[self.multipoles_key], dtype=np.float64)
        if self.external_field_key in atoms.info and "external_field" not in inputs:
            inputs["external_field"] = np.array(
                atoms.info[self.external_field_key], dtype=np.float64
            )
        return inputs


def _energy(sources: AtomicMultipoles) -> Float[Array, ""]:
    """Coulomb energy and that of the dipole in the field, eV."""
    coulomb = system_energy(sources.prepared(), jnp.asarray(sources.multipoles))
    return coulomb + jnp.sum(sources.dipole() * sources.external_field)


@jax.jit
def _evaluate(sources: AtomicMultipoles) -> dict[str, Array]:
    def energy(positions):
        return _energy(dataclasses.replace(sources, positions=positions))

    value, gradient = jax.value_and_grad(energy)(jnp.asarray(sources.positions))
    potentials = system_potential(sources.prepared(), jnp.asarray(sources.multipoles))
    return {
        "energy": value,
        "forces": -gradient,
        "dipole": sources.dipole(),
        "electrostatic_potentials": potentials
        + jnp.asarray(sources.positions) @ jnp.asarray(sources.external_field),
    }


@jax.jit
def _stress(sources: AtomicMultipoles) -> Float[Array, "3 3"]:
    gradient = jax.grad(lambda strain: _energy(sources.strained(strain)))(jnp.zeros((3, 3)))
    return gradient / jnp.abs(jnp.linalg.det(sources.cell))
