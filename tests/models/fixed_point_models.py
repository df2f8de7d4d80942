"""A small fixed-point model, a batch for it, and what it does in one step."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from tiny_models import batch_of, molecule, periodic, random_parameters, structure, tiny_backbone

from mace_scf_jax.electrostatics import ElectrostaticsSettings, FieldFeatureSettings
from mace_scf_jax.models import FixedPointSettings, ModelSettings, build

NORMS = (30.0, 25.0, 4.0, 3.0)


def settings(**changes) -> ModelSettings:
    choices = {"field_feature_norms": NORMS, "fermi_level_offset": -2.0} | changes
    many_body = any("ManyBody" in str(choice) for choice in changes.values())
    return ModelSettings(
        family="FixedPoint",
        backbone=tiny_backbone(max_ell=2 if many_body else 1, correlation=1),
        atomic_energies=(-13.0, -430.0),
        electrostatics=ElectrostaticsSettings(
            max_l=1,
            smearing_width=1.0,
            kspace_cutoff_factor=0.8,
            features=FieldFeatureSettings(1, (1.0, 2.0)),
        ),
        own=FixedPointSettings(**choices),
    )


def batch(*atoms):
    chosen = settings()
    return batch_of([structure(one, chosen) for one in atoms])


BATCH = batch(molecule(), periodic())
NUM_ATOMS = 10
LEVELS = jnp.where(BATCH.graph_mask, -1.0, 0.0)


@functools.cache
def model(**changes):
    module = build(settings(**changes))
    return module, random_parameters(module, BATCH)


def one_step(module, params, graph, multipoles):
    """Multipoles and observables of one step."""
    variables, levels = {"params": params}, LEVELS[graph.atom_graph]
    local = module.apply(variables, graph, method="local")
    features = module.apply(variables, local, multipoles, levels, method="field_features")
    answer = module.apply(variables, local, features, method="answer")
    return answer, module.apply(variables, local, answer, features, method="observables")


def random_multipoles(graph, seed=0):
    values = np.random.default_rng(seed).normal(size=(graph.num_atoms, 4))
    return jnp.where(graph.atom_mask[:, None], jnp.asarray(values), 0.0)
