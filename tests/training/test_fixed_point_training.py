"""The block fixed_point_training_options: defaults, forms, and what is refused."""

import pytest
from train_options import STAGE, options, problems

from mace_scf_jax.models import InitialDensity, SelfConsistency
from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.scf import Anderson, Auto, Differentiation, LinearMixing
from mace_scf_jax.training.loop.fixed_point_training import (
    DEFAULT_TRAINING,
    FixedPointTraining,
    SCFOptions,
    read_fixed_point_training,
)
from mace_scf_jax.training.loop.modes import self_consistency

SCF = {"num_scf_steps": 10, "mixing_parameter": 0.3}


def parsed(key="fixed_point_training_options", loss=("forces",), **block) -> FixedPointTraining:
    return read_fixed_point_training({key: block}, loss=dict.fromkeys(loss, 1.0))


def test_defaults():
    training = parsed(mode="implicit", scf=SCF)
    assert training == FixedPointTraining(mode="implicit", scf=SCFOptions(**SCF))
    scf = training.scf
    assert (scf.scf_tolerance, scf.constant_charge, scf.solver) == (1e-6, True, "auto")
    assert (scf.initial_density, scf.initial_fermi_level) == ("local_guess", "from_data")
    assert parsed(mode="unroll_scf", scf=SCF).scf.solver == "linear_mixing"
    assert parsed(mode="direct") == FixedPointTraining(mode="direct")
    assert read_fixed_point_training({"name": "a"}, loss={}) is None


def test_the_stability_outputs_follow_the_loss_unless_they_are_asked_for():
    loss = ("fixedpoint_scf_stability",)
    assert parsed(mode="direct", loss=loss).fixedpoint_scf_stability
    assert not parsed(
        mode="direct", loss=loss, fixedpoint_scf_stability=False
    ).fixedpoint_scf_stability
    assert not parsed(mode="direct").fixedpoint_scf_stability


def test_numbers_may_be_text_as_yaml_reads_them():
    assert parsed(mode="implicit", scf={**SCF, "scf_tolerance": "1e-9"}).scf.scf_tolerance == 1e-9


def test_solvers_and_their_numbers():
    how = self_consistency(parsed(mode="implicit", scf={**SCF, "scf_tolerance": 1e-7}))
    assert how == SelfConsistency(
        solver=Auto(max_steps=9, tolerance=1e-7),
        differentiation=Differentiation.IMPLICIT,
        fallback=LinearMixing(max_steps=9, mixing=0.3, tolerance=1e-7),
    )
    how = self_consistency(
        parsed(
            mode="linearize_solve",
            scf={**SCF, "solver": "anderson", "constant_charge": False, "initial_density": "zero"},
        )
    )
    assert how.solver == Anderson(max_steps=9, tolerance=1e-6)
    assert how.fallback == LinearMixing(max_steps=14, mixing=0.3)
    assert (how.constant_charge, how.initial_density) == (False, InitialDensity.ZERO)
    how = self_consistency(parsed(mode="unroll_scf", scf={**SCF, "use_autograd_forces": False}))
    assert how.solver == LinearMixing(max_steps=9, mixing=0.3)
    assert how.fallback is None
    assert not how.differentiate_last_step_only  # constant charge keeps all steps
    fermi = {**SCF, "use_autograd_forces": False, "constant_charge": False}
    assert self_consistency(parsed(mode="unroll_scf", scf=fermi)).differentiate_last_step_only


def test_the_deprecated_block():
    with pytest.warns(DeprecationWarning, match="'scf_training_options' is deprecated"):
        flat = parsed("scf_training_options", mode="unroll_scf", **SCF)
    assert flat == parsed(mode="unroll_scf", scf=SCF)
    with pytest.warns(DeprecationWarning, match="is deprecated"):
        direct = parsed("scf_training_options", mode="direct", **SCF)
    assert direct == parsed(mode="direct")


@pytest.mark.filterwarnings("ignore:'scf_training_options'")
def test_the_deprecated_block_may_not_be_mixed():
    with pytest.raises(ConfigurationError, match="both nested and not nested: num_scf_steps"):
        parsed("scf_training_options", mode="unroll_scf", scf=SCF, num_scf_steps=3)
    both = {
        "scf_training_options": {"mode": "direct"},
        "fixed_point_training_options": {"mode": "direct"},
    }
    with pytest.raises(ConfigurationError, match=r"give either .* found both"):
        read_fixed_point_training(both, loss={})


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({}, "'mode' is required, one of direct, unroll_scf, implicit"),
        ({"mode": "fixed_point"}, "mode: expected 'direct', .*, found 'fixed_point'"),
        ({"mode": "direct", "scf": SCF}, "the mode direct has no self-consistency"),
        ({"mode": "implicit"}, "'scf' is required by the mode implicit"),
        ({"mode": "implicit", "scf": 3}, "scf: expected a mapping, found 3"),
        ({"mode": "implicit", **SCF}, "'num_scf_steps' must be nested under 'scf'"),
        ({"mode": "direct", "mod": 1}, "unknown key 'mod'; did you mean 'mode'"),
        ({"mode": "implicit", "scf": {**SCF, "tolerance": 1}}, "did you mean 'scf_tolerance'"),
        ({"mode": "implicit", "scf": {"num_scf_steps": 3}}, "scf: 'mixing_parameter' is required"),
        (
            {"mode": "implicit", "scf": {"mixing_parameter": 0.3}},
            "scf: 'num_scf_steps' is required",
        ),
        ({"mode": "direct", "fixedpoint_scf_stability": 1}, "expected true or false, found 1"),
        ({"mode": "implicit", "scf": SCF, "linear_solve": "cg"}, "expected inverse or normal_cg"),
        (
            {"mode": "linearize_solve", "scf": SCF, "linear_solve": "normal_cg"},
            "linear_solve: expected inverse in the mode linearize_solve, found 'normal_cg'",
        ),
        (
            {"mode": "unroll_scf", "scf": {**SCF, "solver": "dense"}},
            "the mode unroll_scf always mixes linearly",
        ),
    ],
)
def test_mistakes_in_the_block(block, expected):
    with pytest.raises(ConfigurationError, match=expected):
        parsed(**block)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"num_scf_steps": 0}, "num_scf_steps: expected a number of at least 1, found 0"),
        ({"num_scf_steps": True}, "num_scf_steps: expected a whole number, found True"),
        ({"num_scf_steps": 3.0}, "num_scf_steps: expected a whole number, found 3.0"),
        ({"mixing_parameter": 0.0}, "mixing_parameter: expected a number above 0, found 0.0"),
        ({"mixing_parameter": 1.1}, "mixing_parameter: expected a number of at most 1"),
        ({"scf_tolerance": 0.0}, "scf_tolerance: expected a number above 0"),
        ({"constant_charge": 1}, "constant_charge: expected true or false, found 1"),
        ({"use_autograd_forces": "yes"}, "use_autograd_forces: expected true or false"),
        ({"initial_density": "from_dat"}, "did you mean 'from_data'"),
        (
            {"initial_fermi_level": "local_guess"},
            "initial_fermi_level: expected .*, found 'local_guess'",
        ),
        ({"solver": "diis"}, "solver: expected 'auto', .*, found 'diis'"),
    ],
)
def test_values_of_a_wrong_kind(value, expected):
    with pytest.raises(ConfigurationError, match=rf"scf: .*{expected}"):
        parsed(mode="implicit", scf=SCF | value)


def test_the_block_belongs_to_the_family():
    (stage,) = options(model="FixedPoint").train_schedule
    assert stage.fixed_point == parsed(**DEFAULT_TRAINING)
    assert stage.fixed_point.mode == "implicit"
    stage = STAGE | {"fixed_point_training_options": {"mode": "direct"}}
    (problem,) = problems(train_schedule={0: stage})
    assert "must be absent, because it belongs to the model FixedPoint" in problem
    (problem,) = problems(
        model="FixedPoint",
        train_schedule={0: STAGE | {"fixed_point_training_options": {"mode": "diret"}}},
    )
    assert problem.startswith("train_schedule, stage 0: fixed_point_training_options: mode: ")
    assert "did you mean 'direct'?" in problem


def test_the_block_can_be_written_down_and_read_again():
    block = {"mode": "implicit", "scf": {**SCF, "initial_density": "zero"}}
    stage = STAGE | {"fixed_point_training_options": block}
    given = options(model="FixedPoint", train_schedule={0: stage})
    again = options(model="FixedPoint", train_schedule=given.model_dump()["train_schedule"])
    assert again.train_schedule == given.train_schedule


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"fixedpoint_update_config": {"nonlinearity_cls": "NoNonLinearity"}}, "must contain 'typ"),
        ({"fixedpoint_update_config": {"type": "ManyBody"}}, "did you mean 'ManyBodyUpdate'"),
        (
            {"fixedpoint_update_config": "{type: ManyBodyUpdate, correlation: 9}"},
            "correlation: expected 1, 2, 3 or 4, found 9",
        ),
        ({"field_readout_config": {"type": "NoReadout"}}, "unknown type 'NoReadout'"),
        ({"field_readout_config": "none"}, "expected a mapping with 'type', found 'none'"),
        ({"field_feature_norms": [1.0, 0.0]}, "expected numbers above 0"),
        ({"field_feature_norms": "mean"}, "expected auto, average, None or a list"),
        ({"atom_density_scaling": {"H": -1.0}}, "expected numbers above 0"),
        ({"atom_density_scaling": {"Xx9": 1.0}}, "expected {element: number}"),
        ({"quadrupole_feature_corrections": True}, "is not available in this version"),
        ({"field_feature_widths": []}, "option 'field_feature_widths'"),
        ({"field_feature_max_l": 4}, "option 'field_feature_max_l'"),
    ],
)
def test_mistakes_in_the_options_of_the_family(values, expected):
    (problem,) = problems(**values)
    assert expected in problem


def test_both_switches_of_the_summary():
    block = {"fixed_point_training_options": {"mode": "direct"}}
    given = {"model": "FixedPoint", "train_schedule": {0: STAGE | block}}
    assert options(**given).summarises_convergence
    assert not options(scf_convergence_summary=False, **given).summarises_convergence
    assert not options(skip_scf_convergence_summary=True, **given).summarises_convergence
    assert not options().summarises_convergence


def test_options_of_the_family_are_lenient_in_spelling():
    given = options(
        field_feature_norms="[30, 25, 4, 3]",
        field_feature_widths="[1.5, 3.0]",
        atom_density_scaling="{H: 0.5, 8: 2}",
        fixedpoint_update_config="{'type': 'ManyBodyUpdate', 'correlation': 2}",
        field_norm_factor=1.0,
        return_electrostatic_potentials=True,
    )
    assert given.field_feature_norms == (30.0, 25.0, 4.0, 3.0)
    assert given.field_feature_widths == (1.5, 3.0)
    assert given.atom_density_scaling == {1: 0.5, 8: 2.0}
    assert given.fixedpoint_update_config["correlation"] == 2
    assert given.fixedpoint_update_config["nonlinearity_cls"] == "NoNonLinearity"
    assert [remark.split("'")[1] for remark in given.remarks] == [
        "field_norm_factor",
        "return_electrostatic_potentials",
    ]
    without = options(field_feature_norms="None", atom_density_scaling="None")
    assert (without.field_feature_norms, without.atom_density_scaling) == (None, None)
