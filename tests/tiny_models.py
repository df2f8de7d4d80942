"""Small models and structures for the tests of several layers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import ase
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from mace_scf_jax.backbones import (
    BackboneSettings,
    ChebyshevSettings,
    Descriptor,
    FeatureStatistics,
    MACESettings,
)
from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.sizes import BatchSizes
from mace_scf_jax.data.structure import Structure, prepare
from mace_scf_jax.electrostatics import ElectrostaticsSettings, FieldFeatureSettings
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import (
    FAMILIES,
    ChargeEquilibrationSettings,
    EnergyFunctionalSettings,
    Family,
    FixedPointSettings,
    FormalChargeSettings,
    ModelSettings,
    PolarMACESettings,
    ScaleShiftSettings,
    SelfConsistency,
    SplitChargeSettings,
    build,
)
from mace_scf_jax.models.field_feature_options import FieldFeatureOptions
from mace_scf_jax.predict.model import Model

ELEMENTS = (1, 8)


SMALL_TRAINING = {
    "hidden_irreps": "2x0e + 2x1o",
    "num_interactions": 1,
    "max_ell": 1,
    "correlation": 1,
    "num_radial_basis": 3,
    "radial_MLP": [4],
    "MLP_irreps": "2x0e",
    "batch_size": 2,
    "valid_batch_size": 2,
}
"""Options of training that make a model small, and batches of a few structures."""


def tiny_backbone(**changes) -> MACESettings:
    sizes = {
        "elements": ELEMENTS,
        "hidden_irreps": "2x0e + 2x1o",
        "r_max": 3.0,
        "num_radial_basis": 3,
        "max_ell": 1,
        "correlation": 2,
        "num_interactions": 1,
        "radial_MLP": (4,),
        "MLP_irreps": "2x0e",
        "avg_num_neighbors": 4.0,
    }
    return MACESettings(**(sizes | changes))


def tiny_descriptor_backbone(**changes) -> ChebyshevSettings:
    """Two species, networks of different architecture, and statistics of each element."""
    descriptor = Descriptor(
        species=(8, 1), rad_order=2, rad_cutoff=3.0, ang_order=2, ang_cutoff=2.5, min_cutoff=0.4
    )
    rows = np.linspace(0.5, 1.5, 2 * descriptor.size).reshape(2, -1)
    sizes = {
        "elements": ELEMENTS,
        "descriptor": descriptor,
        "arch": (((3, "tanh"),), ((2, "twist"), (3, "sigmoid"))),
        "features": FeatureStatistics(
            tuple(map(tuple, rows)), tuple(map(tuple, rows[::-1])), minimum=None, maximum=None
        ),
        "E_scaling": (0.5, 0.5),
        "E_shift": (-2.0, -2.0),
    }
    return ChebyshevSettings(**(sizes | changes))


OWN_SETTINGS = {
    "ScaleShiftMACE": ScaleShiftSettings(scale=0.8, shift=0.1),
    "LocalSplitCharges": SplitChargeSettings(formal_charges=(0.9, -1.9), polarizability=True),
    "FixedChargeBaselinedMACE": FormalChargeSettings((0.9, -1.9)),
    "MACEQEq": ChargeEquilibrationSettings(train_hardness=True, default_hardness=30.0),
    "EnergyFunctional": EnergyFunctionalSettings(default_hardness=5.0),
    "FixedPoint": FixedPointSettings((30.0, 25.0, 4.0, 3.0), fermi_level_offset=-2.0),
    "PolarMACE": PolarMACESettings(scale=0.8, field_feature_norms=(30.0, 25.0, 4.0, 3.0)),
}

CHARGED_FAMILIES = tuple(name for name, family in FAMILIES.items() if family.is_charged)
SELF_CONSISTENT_FAMILIES = tuple(
    name for name, family in FAMILIES.items() if family.is_self_consistent
)
RESPONDING_FAMILIES = tuple(name for name, family in FAMILIES.items() if family.responds_to_field)
VARIATIONAL_FAMILIES = tuple(
    name for name, family in FAMILIES.items() if "charge_residual" in family.outputs
)


def tiny_settings(name: str = "LocalCharges", **backbone) -> ModelSettings:
    family = FAMILIES[name]
    charged, reads_potential = family.is_charged, FieldFeatureOptions in family.options
    electrostatics = ElectrostaticsSettings(
        max_l=min(1, family.max_l or 0),
        smearing_width=1.0,
        kspace_cutoff_factor=0.9,
        features=FieldFeatureSettings(1, (1.0, 2.0)) if reads_potential else None,
    )
    return ModelSettings(
        family=name,
        backbone=_backbone_of(family, backbone),
        atomic_energies=(-13.0, -430.0),
        electrostatics=electrostatics if charged else None,
        own=OWN_SETTINGS.get(name),
    )


def _backbone_of(family: Family, changes: dict[str, Any]) -> BackboneSettings:
    if family.backbone == "chebyshev":
        return tiny_descriptor_backbone(**changes)
    plain = {"scalar_last_layer": not family.is_charged, "pair_repulsion": not family.is_charged}
    return tiny_backbone(**(plain | changes))


def random_parameters(module: nn.Module, *inputs: Any, seed: int = 0) -> dict[str, Any]:
    """Normal random numbers for every parameter, biases included; nothing is compiled."""
    rng = np.random.default_rng(seed)
    arrays, tree = jax.tree.flatten(inputs)
    # A single layer may hold a mapping, which no cache takes.
    is_model = isinstance(getattr(module, "settings", None), ModelSettings)
    shapes_of = parameter_shapes if is_model else parameter_shapes.__wrapped__
    shapes = shapes_of(module, tree, *map(jax.typeof, arrays))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), shapes)


@functools.cache
def parameter_shapes(module: nn.Module, tree: Any, *arrays: Any) -> dict[str, Any]:
    """Shapes of the parameters, for which the whole model has to be traced."""
    inputs = jax.tree.unflatten(tree, arrays)
    return jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]


def molecule(seed: int = 0, *, box: float = 30.0) -> ase.Atoms:
    """An open cluster H2O·HO in an external field."""
    rng = np.random.default_rng(seed)
    positions = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [1.9, 1.5, 1.0], [2.3, 2.3, 0.8]]
    positions = np.array(positions) + rng.normal(scale=0.1, size=(5, 3))
    return ase.Atoms(
        "OHHOH",
        positions=positions,
        cell=[box, box, box],
        info={"external_field": rng.normal(scale=0.1, size=3), "total_charge": 1.0},
    )


def periodic(seed: int = 0, *, pbc: tuple[bool, bool, bool] = (True, True, True)) -> ase.Atoms:
    """Five atoms in a skewed cell, longer where it is open."""
    rng = np.random.default_rng(seed)
    cell = np.diag([3.7 if flag else 9.0 for flag in pbc])
    cell[1, 0] = 0.6
    if all(pbc):
        cell[2, :2] = 0.4, -0.5
    fractional = [[0, 0, 0], [0.5, 0.4, 0.1], [0.2, 0.5, 0.5], [0.6, 0.1, 0.6], [0.8, 0.7, 0.9]]
    positions = np.array(fractional) @ np.diag([3.7, 3.7, 3.7])
    positions += rng.normal(scale=0.1, size=(5, 3))
    return ase.Atoms("OHHOH", positions=positions, cell=cell, pbc=pbc, info={"total_charge": -0.5})


def slab(seed: int = 0) -> ase.Atoms:
    return periodic(seed, pbc=(True, True, False))


def structure(atoms: ase.Atoms, settings: ModelSettings) -> Structure:
    return prepare(
        from_atoms(atoms),
        elements=settings.elements,
        cutoff=settings.backbone.r_max,
        kspace_cutoff=settings.kspace_cutoff,
        tails=settings.tails,
    )


def batch_of(
    structures: Sequence[Structure], sizes: BatchSizes | None = None, **options: Any
) -> Graph:
    """A batch on the device, without labels, padded to the sizes."""
    graph = collate(structures, sizes, labels=False, **options)
    return jax.tree.map(jnp.asarray, graph)


@functools.cache
def tiny_model(
    family: str = "LocalCharges",
    *,
    seed: int = 0,
    scf: SelfConsistency | None = None,
    **backbone: Any,
) -> Model:
    """A small model with random parameters; the same object every time, to compile it once."""
    settings = tiny_settings(family, **backbone)
    graph = batch_of([structure(molecule(), settings)])
    return Model(settings, random_parameters(build(settings), graph, seed=seed), scf=scf)


def random_rotation(seed: int = 0, *, improper: bool = False) -> np.ndarray:
    rotation = Rotation.random(rng=np.random.default_rng(seed)).as_matrix()
    return -rotation if improper else rotation


def assert_close(actual: Any, expected: Any, tolerance: float, name: str = "") -> None:
    """The largest deviation is at most `tolerance` times the largest expected magnitude.

    What is not a number, because it means nothing, has to be so in both.
    """
    expected = np.asarray(expected)
    np.testing.assert_allclose(
        np.asarray(actual),
        expected,
        rtol=0.0,
        atol=tolerance * max(float(np.nanmax(np.abs(expected), initial=0.0)), 1e-30),
        err_msg=name,
    )


def assert_all_close(
    actual: dict[str, Any], expected: dict[str, Any], tolerance: float, names: Sequence[str] = ()
) -> None:
    """`assert_close` for each output by name."""
    assert actual.keys() == expected.keys()
    for name in names or expected:
        assert_close(actual[name], expected[name], tolerance, name)
