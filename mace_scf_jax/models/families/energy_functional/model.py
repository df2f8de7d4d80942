"""EnergyFunctional: multipoles that minimise a learned, convex energy at fixed total charge."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mace_scf_jax.electrostatics import (
    System,
    atomic_dipole_contributions,
    batch_dipole,
    prepare_batch,
    system_energy,
)
from mace_scf_jax.electrostatics.harmonics import degrees
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.energies import ENERGIES_IN, energy_outputs, layer_terms
from mace_scf_jax.models.families.energy_functional.atomic_functional import (
    AtomicFunctional,
    AtomicFunctionalReadout,
)
from mace_scf_jax.models.families.energy_functional.settings import EnergyFunctionalSettings
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.models.variational import minimise
from mace_scf_jax.scf import ConvexMinimum, LinearSolver, convex_minimum


def local_energy(
    system: System,
    functional: AtomicFunctional,
    field: Float[Array, "3"],
    multipoles: Float[Array, "atoms components"],
) -> Float[Array, ""]:
    """Energy of multipoles without their Coulomb energy, Σ f_i(p_i) + D·E.

    Args:
        functional: of every atom.
        field: external field E in V/Å, gradient of the potential.
        multipoles: p in e Å^l.

    Returns:
        Energy in eV.
    """
    settings = system.settings
    lengths = jnp.asarray(
        settings.smearing_width ** np.array(degrees(settings.max_l)), multipoles.dtype
    )
    dipole = jnp.sum(atomic_dipole_contributions(system.positions, multipoles), axis=0)
    return jnp.sum(functional.energy(multipoles / lengths)) + jnp.sum(dipole * field)


class EnergyFunctional(nn.Module):
    """Energy = isolated atoms + layer readouts + min E_C(p) + Σ f_i(p_i) + D·E (experimental).

    Attributes:
        settings: sizes, choices and constants; `electrostatics`, with self-interaction, and
            own settings are needed.
    """

    settings: ModelSettings[EnergyFunctionalSettings]

    @nn.compact
    def __call__(self, graph: Graph) -> dict[str, Array]:
        """Energies (eV), multipoles (e, e Å; order Q, d_y, d_z, d_x) and dipoles (e Å; x, y, z).

        ``chemical_potential`` is dE/dQ of each structure in eV/e. How well the minimum is
        converged: ``solver_status`` (0: converged; see `mace_scf_jax.scf.SolverStatus`),
        ``solver_steps`` and ``charge_residual``, the largest component of the gradient by the
        multipoles in eV/(e Å^l).
        """
        backbone = self.settings.backbone.build(name="backbone")(graph)
        functional = AtomicFunctionalReadout(self.settings, name="functional")(backbone)
        prepared = prepare_batch(graph, settings=self.settings.density)
        choices = self.settings.own
        size = graph.slots.shape[1] * self.settings.density.num_multipoles
        small = size <= choices.dense_max_unknowns
        solver = LinearSolver.DENSE if small else LinearSolver.CONJUGATE_GRADIENTS
        find = functools.partial(convex_minimum, solver=solver, max_steps=choices.max_steps)

        def minimise_one(
            system: System, functional: AtomicFunctional, field: Array, total_charge: Array
        ) -> tuple[ConvexMinimum, Array, Array]:
            inputs = (functional, field)
            return minimise(system, local_energy, inputs, total_charge, find=find, dense=small)

        minimum, dense, energies = jax.vmap(minimise_one)(
            prepared,
            jax.tree.map(graph.to_slots, functional),
            jnp.asarray(graph.external_field),
            jnp.asarray(graph.total_charge),
        )
        multipoles = graph.from_slots(dense)
        outputs = energy_outputs(graph, layer_terms(self.settings, graph, backbone))
        return {
            **outputs,
            "energy": outputs["energy"] + energies.astype(ENERGIES_IN),
            "electrostatic_energy": jax.vmap(system_energy)(prepared, dense),
            "functional_energy": energies,
            "multipoles": multipoles,
            "dipole": batch_dipole(graph, multipoles).astype(graph.dtype),
            "total_charge": graph.sum_atoms(multipoles[:, 0]),
            "chemical_potential": minimum.multiplier,
            "charge_residual": minimum.residual,
            "solver_steps": minimum.steps,
            "solver_status": minimum.status,
        }
