"""Recompute electrostatic energies and their derivatives from reference files."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mace_scf_jax.electrostatics import BoundaryMode, ElectrostaticsSettings, batch_coulomb_energy
from mace_scf_jax.verification.graphs import graph_from_arrays
from mace_scf_jax.verification.models import REALSPACE_TOLERANCE, REFERENCE_MOLECULE_EXPONENT
from mace_scf_jax.verification.reference_file import ReferenceFile
from mace_scf_jax.verification.report import Deviation, deviation

TOLERANCE = 1e-9


def reference_electrostatics(meta: dict[str, Any]) -> ElectrostaticsSettings:
    """Settings that a reference file describes."""
    return ElectrostaticsSettings(
        max_l=meta["max_l"],
        smearing_width=meta["sigma"],
        boundary=meta["mode"],
        include_self_interaction=meta["include_self_interaction"],
        molecule_exponent=REFERENCE_MOLECULE_EXPONENT,
    )


def verify_electrostatics(file: ReferenceFile) -> list[Deviation]:
    """Recompute the energy and its derivatives in positions, multipoles and strain.

    Args:
        file: a reference file on electrostatics.
    """
    settings = reference_electrostatics(file.meta)
    inputs = file.inputs
    graph = graph_from_arrays(
        inputs["positions"],
        inputs["graph_index"],
        cell=inputs.get("cell"),
        pbc=inputs.get("pbc"),
        kspace_cutoff=file.meta.get("kspace_cutoff"),
    )
    num_atoms = len(inputs["positions"])
    padding = ((0, graph.num_atoms - num_atoms), (0, 0))
    multipoles = jnp.asarray(np.pad(inputs["multipoles"], padding))

    @jax.jit
    def energy_and_gradients(graph, multipoles):
        def energy(positions, multipoles, strain):
            strained = graph.replace(positions=positions).strained(strain)
            energies = batch_coulomb_energy(strained, multipoles, settings=settings)
            return jnp.sum(energies), energies

        gradients, energies = jax.grad(energy, argnums=(0, 1, 2), has_aux=True)(
            graph.positions, multipoles, jnp.zeros_like(graph.cell)
        )
        return energies, *gradients

    energies, in_positions, in_multipoles, in_strain = energy_and_gradients(graph, multipoles)
    num_graphs = len(file.outputs["energy"])
    computed = {
        "energy": energies[:num_graphs],
        "denergy_dpositions": in_positions[:num_atoms],
        "denergy_dmultipoles": in_multipoles[:num_atoms],
        "denergy_dstrain": in_strain[:num_graphs],
    }
    open_boundary = settings.boundary is BoundaryMode.REALSPACE
    return [
        deviation(
            name,
            values,
            file.outputs[name],
            tolerance=REALSPACE_TOLERANCE if open_boundary else TOLERANCE,
        )
        for name, values in computed.items()
        if name in file.outputs
    ]
