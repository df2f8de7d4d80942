"""MACEQEq: charges that minimise an electrostatic energy with learned electronegativities."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics import (
    System,
    batch_dipole,
    prepare_batch,
)
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.energies import ENERGIES_IN, energy_outputs, layer_terms
from mace_scf_jax.models.families.qeq.settings import (
    ENEGS_INPUT,
    HARDNESS_INPUT,
    ChargeEquilibrationSettings,
)
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.models.variational import minimise, read_scalars
from mace_scf_jax.scf import LinearSolver, Minimum, quadratic_minimum


def on_site_energy(
    system: System,
    electronegativity: Float[Array, "atoms"],
    hardness: Float[Array, "atoms"],
    charges: Float[Array, "atoms 1"],
) -> Float[Array, ""]:
    """Energy of charges without their Coulomb energy, Σ χ q + ½ Σ η q² in eV.

    Args:
        electronegativity: χ in eV/e, zero for padding atoms.
        hardness: η in eV/e², zero for padding atoms.
        charges: q in e.
    """
    charge = charges[:, 0]
    return jnp.sum(electronegativity * charge + 0.5 * hardness * charge**2)


def equilibrate(
    system: System,
    electronegativity: Float[Array, "atoms"],
    hardness: Float[Array, "atoms"],
    total_charge: Float[Array, ""],
    *,
    solver: LinearSolver,
) -> tuple[Minimum, Float[Array, ""]]:
    """Charges of one system that minimise E_C(q) + Σ χ q + ½ Σ η q² at fixed total charge.

    Args:
        system: prepared geometry, of charges alone (`max_l` 0).
        electronegativity: χ in eV/e, zero for padding atoms.
        hardness: η in eV/e², zero for padding atoms.
        total_charge: Q in e.

    Returns:
        The minimum, whose multiplier is dE/dQ, and its energy in eV; see `minimise`.

    Source:
        Rappé and Goddard, J. Phys. Chem. 95, 3358 (1991); Ghasemi et al., Phys. Rev. B 92, 045131
        (2015), for Gaussian charges.
    """
    minimum, _, energy = minimise(
        system,
        on_site_energy,
        (electronegativity, hardness),
        total_charge,
        find=functools.partial(quadratic_minimum, solver=solver),
        dense=solver is LinearSolver.DENSE,
    )
    return minimum, energy


class MACEQEq(nn.Module):
    """Energy = isolated atoms + layer readouts + minimum of `equilibrate` over the charges.

    The external field is part of the electronegativities, χ + E·r.

    Attributes:
        settings: sizes, choices and constants; `electrostatics`, with `max_l` 0, is
            needed.
    """

    settings: ModelSettings[ChargeEquilibrationSettings]

    @nn.compact
    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Energies (eV), charges (e), dipoles (e Å; x, y, z) and what the charges follow from.

        ``chemical_potential`` is dE/dQ of each structure in eV/e, ``charge_residual`` the largest
        deviation of any atom's dE/dq from it: how well the charges are converged.
        """
        equilibration = self.settings.own
        backbone = self.settings.backbone.build(name="backbone")(graph)

        electronegativity = read_scalars(self.settings, backbone, "electronegativity_readout")[:, 0]
        electronegativity += graph.external_potential()
        if equilibration.read_enegs:
            electronegativity += graph.atom_data[ENEGS_INPUT]
        hardness = jnp.full_like(electronegativity, equilibration.default_hardness)
        if equilibration.read_hardness:
            hardness = jnp.asarray(graph.atom_data[HARDNESS_INPUT])
        if equilibration.train_hardness:
            hardness += read_scalars(self.settings, backbone, "hardness_readout")[:, 0]
        electronegativity = jnp.where(graph.atom_mask, electronegativity, 0.0)
        hardness = jnp.where(graph.atom_mask, hardness, 0.0)

        small = graph.slots.shape[1] <= equilibration.dense_max_atoms
        solver = LinearSolver.DENSE if small else LinearSolver.CONJUGATE_GRADIENTS
        minimum, charge_energies = jax.vmap(functools.partial(equilibrate, solver=solver))(
            prepare_batch(graph, settings=self.settings.density),
            graph.to_slots(electronegativity),
            graph.to_slots(hardness),
            jnp.asarray(graph.total_charge),
        )
        multipoles = graph.from_slots(minimum.unknowns)[:, None]

        outputs = energy_outputs(graph, layer_terms(self.settings, graph, backbone))
        charges = multipoles[:, 0]
        on_atoms = electronegativity * charges + 0.5 * hardness * charges**2
        return {
            **outputs,
            "energy": outputs["energy"] + charge_energies.astype(ENERGIES_IN),
            "electrostatic_energy": charge_energies - graph.sum_atoms(on_atoms),
            "equilibration_energy": charge_energies,
            "multipoles": multipoles,
            "dipole": batch_dipole(graph, multipoles).astype(graph.dtype),
            "total_charge": graph.sum_atoms(multipoles[:, 0]),
            "electronegativity": electronegativity,
            "hardness": hardness,
            "chemical_potential": minimum.multiplier,
            "charge_residual": minimum.residual,
        }
