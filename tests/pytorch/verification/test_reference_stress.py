"""Stress is the derivative of the energy; that of the reference is not, with charges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from tiny_models import assert_close

from mace_scf_jax.electrostatics import batch_coulomb_energy
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import build, evaluate
from mace_scf_jax.pytorch.verification.models import (
    reference_graph,
    reference_settings,
    reference_stress_defect,
)
from mace_scf_jax.pytorch.verification.reference_file import read_reference_file
from mace_scf_jax.pytorch.weights import import_parameters

MODELS = Path(__file__).parents[2] / "data" / "reference" / "models"
STEP = 1e-3
FINITE_DIFFERENCE = 1e-8
"""Relative error allowed for differences of fourth order in STEP."""


def load(name: str) -> SimpleNamespace:
    """A reference model with functions compiled once for all tests."""
    file = read_reference_file(MODELS / f"{name}.npz")
    settings = reference_settings(file.meta)
    module, params = (
        build(settings),
        jax.tree.map(jnp.asarray, import_parameters(file.state, settings)),
    )
    graph = reference_graph(file, settings)
    outputs = jax.jit(lambda g: module.apply({"params": params}, g))
    return SimpleNamespace(
        file=file,
        settings=settings,
        graph=graph,
        num_graphs=len(file.outputs["energy"]),
        num_atoms=len(file.inputs["positions"]),
        outputs=outputs,
        derivatives=jax.jit(lambda g: evaluate(module, params, g, forces=True, stress=True))(graph),
    )


@pytest.fixture(
    scope="module",
    params=["local_charges", pytest.param("scale_shift_mace", marks=pytest.mark.slow)],
)
def model(request):
    """One molecule, one crystal and one slab, with and without charges."""
    return load(request.param)


def derivative(energies: Callable[[float], Array]) -> np.ndarray:
    """Derivative at zero by central differences of fourth order, per graph."""
    far, near = energies(2 * STEP) - energies(-2 * STEP), energies(STEP) - energies(-STEP)
    return np.asarray((8 * near - far) / (12 * STEP))


def strain_gradient(energies: Callable[[Array], Array], graph: Graph) -> np.ndarray:
    """Derivatives of per-graph energies in each element of the strain, [graphs, 3, 3]."""
    gradient = np.zeros((graph.num_graphs, 3, 3))
    for i in range(3):
        for j in range(3):
            unit = np.zeros((graph.num_graphs, 3, 3))
            unit[:, i, j] = 1.0
            gradient[:, i, j] = derivative(
                lambda step, unit=unit: energies(jnp.asarray(step * unit))
            )
    return gradient


def energy_without_isolated_atoms(outputs: dict[str, Array]) -> Array:
    """What changes with the positions; the rest, a thousand times larger, would only add noise."""
    return outputs["energy"] - outputs["contributions"][:, 0]


def test_virials_and_stress_are_derivatives_of_the_energy(model):
    def energies(strain):
        return energy_without_isolated_atoms(model.outputs(model.graph.strained(strain)))

    count = model.num_graphs
    expected = strain_gradient(energies, model.graph)[:count]
    kinds = {tuple(flags) for flags in np.asarray(model.graph.pbc[:count]).tolist()}
    assert kinds == {(False,) * 3, (True,) * 3, (True, True, False)}
    volume = np.abs(np.linalg.det(model.graph.cell[:count]))[:, None, None]
    for index in range(count):
        virials, stress = (model.derivatives[name][index] for name in ("virials", "stress"))
        assert_close(virials, -expected[index], FINITE_DIFFERENCE)
        assert_close(stress, (expected / volume)[index], FINITE_DIFFERENCE)
        assert_close(stress, np.transpose(stress), 1e-12)


def test_forces_are_derivatives_of_the_energy(model):
    forces = np.asarray(model.derivatives["forces"])
    rng = np.random.default_rng(0)
    for _ in range(3):
        direction = 0.2 * rng.normal(size=forces.shape)

        def energies(step, direction=direction):
            moved = model.graph.replace(positions=model.graph.positions + step * direction)
            return energy_without_isolated_atoms(model.outputs(moved))

        difference = derivative(energies)[: model.num_graphs]
        work = np.bincount(model.graph.atom_graph, weights=np.sum(forces * direction, axis=1))[
            : model.num_graphs
        ]
        # what is left after the forces on all atoms cancel is small for some directions
        assert_close(-work, difference, 10 * FINITE_DIFFERENCE)


@pytest.mark.parametrize("model", ["local_charges"], indirect=True)
def test_the_reference_strains_the_cell_of_its_electrostatics_element_by_element(model):
    """Its virials follow from an energy whose Coulomb part sees the cell A + sym(A ∘ ε).

    Under a strain ε the cell has to become A (1 + sym ε).
    """
    settings = model.settings.electrostatics
    coulomb = jax.jit(lambda g, multipoles: batch_coulomb_energy(g, multipoles, settings=settings))
    transposed = (0, 2, 1)

    def energies(strain):
        strained = model.graph.strained(strain)
        outputs = model.outputs(strained)
        product = model.graph.cell * strain
        cell = model.graph.cell + 0.5 * (product + jnp.transpose(product, transposed))
        seen = coulomb(strained.replace(cell=cell), outputs["multipoles"])
        return energy_without_isolated_atoms(outputs) - outputs["electrostatic_energy"] + seen

    count = model.num_graphs
    expected = model.file.outputs["virials"]
    assert_close(-strain_gradient(energies, model.graph)[:count], expected, FINITE_DIFFERENCE)

    defect_of = jax.jit(lambda g, multipoles: reference_stress_defect(g, multipoles, settings))
    defect = defect_of(model.graph, model.derivatives["multipoles"])[:count]
    assert_close(model.derivatives["virials"][:count] + defect, expected, 1e-9)
    # Far from round-off, and no derivative in a symmetric strain.
    assert np.max(np.abs(defect)) > 1e-3 * np.max(np.abs(expected))
    assert np.max(np.abs(expected - np.transpose(expected, transposed))) > 1e-6
