"""Options and data become the settings of a model."""

import dataclasses

import numpy as np
import pytest
import train_options

from mace_scf_jax.backbones.mace.embedded_inputs import EmbeddedInput
from mace_scf_jax.electrostatics import BoundaryMode
from mace_scf_jax.models import FormalChargeSettings, SplitChargeSettings, TrainingSet
from mace_scf_jax.models.electrostatics import electrostatics_settings
from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.new_model import model_settings


def options(**changes) -> TrainOptions:
    return train_options.options(**{"model": "LocalCharges"} | changes)


@pytest.mark.parametrize(
    ("method", "any_periodic", "boundary"),
    [
        ("exact", True, BoundaryMode.EXACT),
        ("exact", False, BoundaryMode.EXACT),
        ("slab", True, BoundaryMode.SLAB),
        ("auto", True, BoundaryMode.MIXED_PERIODIC),
        ("auto", False, BoundaryMode.REALSPACE),
        ("mixed_periodic", False, BoundaryMode.MIXED_PERIODIC),
    ],
)
def test_boundary_condition(method, any_periodic, boundary):
    given = options(electrostatic_pbc_method=method)
    assert electrostatics_of(given, any_periodic=any_periodic).boundary is boundary


def test_models_without_charges_have_no_electrostatics_and_scalars_at_the_end():
    given = options(model="MACE")
    assert electrostatics_of(given, any_periodic=True) is None
    assert settings_of(given).backbone.scalar_last_layer
    assert not settings_of(options()).backbone.scalar_last_layer


def settings_of(given: TrainOptions):
    training = TrainingSet(
        elements=(1, 8),
        atomic_energies=(-13.0, -2041.0),
        electrostatics=electrostatics_of(given),
        catalogue=None,
        batches=list,
    )
    return model_settings(given, training, avg_num_neighbors=7.5)


def electrostatics_of(given: TrainOptions, *, any_periodic: bool = False):
    pbc = np.full((2, 3), any_periodic)
    return electrostatics_settings(given.family, given, pbc=pbc)


def test_every_setting_of_the_backbone_comes_from_its_option():
    changed = {
        "r_max": 4.0,
        "num_radial_basis": 5,
        "num_cutoff_basis": 6,
        "max_ell": 2,
        "correlation": 2,
        "num_interactions": 3,
        "interaction": "RealAgnosticDensityResidualInteractionBlock",
        "interaction_first": "RealAgnosticDensityInteractionBlock",
        "radial_MLP": (16, 8),
        "radial_type": "chebyshev",
        "distance_transform": "Agnesi",
        "MLP_irreps": "8x0e",
        "gate": "tanh",
        "pair_repulsion": True,
        "use_linear_final_readout": True,
        "apply_cutoff": False,
        "edge_irreps": "2x0e + 2x1o",
        "use_edge_irreps_first": True,
        "use_agnostic_product": True,
        "use_embedding_readout": True,
        "use_last_readout_only": True,
        "readout_cls": "NonLinearBiasReadoutBlock",
    }
    spin = {"type": "categorical", "num_classes": 4, "emb_dim": 2}
    specs = {"embedding_specs": {"total_spin": spin}}
    backbone = settings_of(options(num_channels=6, max_L=1, **changed, **specs)).backbone
    embedded = EmbeddedInput("total_spin", "categorical", 2, num_classes=4)
    expected = changed | {
        "embedding_specs": (dataclasses.asdict(embedded),),
        "elements": (1, 8),
        "hidden_irreps": "6x0e + 6x1o",
        "avg_num_neighbors": 7.5,
        "scalar_last_layer": False,
        "heads": (),
        "pair_repulsion_scale": 1.0,
    }
    assert dataclasses.asdict(backbone) == expected


def test_no_gate():
    assert settings_of(options(gate="None")).backbone.gate == "None"


def test_every_setting_of_the_electrostatics_comes_from_its_option():
    given = options(
        atomic_multipoles_max_l=0,
        atomic_multipoles_smearing_width=1.2,
        kspace_cutoff_factor=1.1,
        include_electrostatic_self_interaction=False,
    )
    settings = settings_of(given).electrostatics
    assert (settings.max_l, settings.smearing_width) == (0, 1.2)
    assert (settings.kspace_cutoff_factor, settings.include_self_interaction) == (1.1, False)


def test_formal_charges_by_element():
    given = options(model="FixedChargeBaselinedMACE", atomic_formal_charges="{H: 1, 8: -2}")
    settings = settings_of(given)
    assert settings.own == FormalChargeSettings((1.0, -2.0))
    assert settings.electrostatics.max_l == 0  # whatever atomic_multipoles_max_l is


@pytest.mark.parametrize(
    ("charges", "message"),
    [
        ({"H": 1}, "'atomic_formal_charges': found no charge for O"),
        (
            {"H": 1, "O": -2, "Na": 1, "Cl": -1},
            "found charges for elements that the training set does not have: Na, Cl",
        ),
    ],
)
def test_formal_charges_cover_the_elements_of_the_data(charges, message):
    given = options(model="LocalSplitCharges", atomic_formal_charges=charges)
    with pytest.raises(ConfigurationError, match=message):
        settings_of(given)


@pytest.mark.parametrize(
    "changes", [{}, {"atomic_formal_charges": {1: 1.0}, "formal_charges_from_data": True}]
)
def test_formal_charges_have_one_source(changes):
    with pytest.raises(ConfigurationError, match="give either 'atomic_formal_charges'"):
        options(model="LocalSplitCharges", **changes)


def test_every_setting_of_split_charges_comes_from_its_option():
    given = options(
        model="LocalSplitCharges",
        formal_charges_from_data=True,
        static_bond_transfer_block="NoFieldSymmetricPredictionSourceBlock",
        oxidation_state_mixer="ProductOxidationStateMixer",
        oxidation_state_range="(-3, 5)",
        compute_polarizability=False,
    )
    settings = settings_of(given)
    assert settings.own == SplitChargeSettings(
        transfer_block="NoFieldSymmetricPredictionSourceBlock",
        transfer_range=(-3.0, 5.0),
        oxidation_state_mixer="ProductOxidationStateMixer",
        oxidation_state_range=(-3.0, 5.0),
        polarizability=False,
    )
    default = options(model="LocalSplitCharges", formal_charges_from_data=True)
    assert settings_of(default).own == SplitChargeSettings(polarizability=True)
