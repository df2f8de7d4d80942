"""The options: sane types, defaults of the reference, all mistakes reported together."""

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from train_options import STAGE, VALID, options, problems

from mace_scf_jax.data.reference_energies import Compounds, Regression
from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.training.config.options import TrainOptions, ineffective, options_from, topics


def test_defaults_are_those_of_the_reference():
    given = options()
    assert (given.r_max, given.num_radial_basis, given.num_cutoff_basis) == (5.0, 8, 5)
    assert (given.max_ell, given.correlation, given.num_interactions) == (3, 3, 2)
    assert (given.MLP_irreps, given.radial_MLP, given.gate) == ("16x0e", (64, 64, 64), "silu")
    assert (given.optimizer, given.beta, given.beta_two) == ("schedulefree", 0.9, 0.999)
    assert (given.weight_decay, given.amsgrad, given.clip_grad) == (5e-7, True, 10.0)
    assert (given.ema, given.ema_decay, given.scheduler) == (False, 0.99, "ReduceLROnPlateau")
    assert (given.lr_factor, given.scheduler_patience, given.lr_scheduler_gamma) == (
        0.8,
        50,
        0.9993,
    )
    assert (given.batch_size, given.valid_batch_size, given.valid_fraction) == (10, 10, 0.1)
    assert (given.seed, given.valid_set_seed, given.patience) == (123, None, 2048)
    assert (given.atomic_multipoles_max_l, given.atomic_multipoles_smearing_width) == (1, 1.5)
    assert (given.kspace_cutoff_factor, given.electrostatic_pbc_method) == (1.25, "exact")
    assert given.default_dtype == "float64"
    assert given.restart_latest is True


def test_every_option_is_described_and_belongs_to_one_topic():
    names = [name for topic in topics() for name in topic.model_fields]
    assert sorted(names) == sorted(TrainOptions.model_fields)
    assert all(field.description for field in TrainOptions.model_fields.values())


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("lr", "1e-3", 1e-3),
        ("lr", 1, 1.0),
        ("r_max", "4.5", 4.5),
        ("batch_size", "8", 8),
        ("batch_size", 8.0, 8),
        ("amsgrad", "False", False),
        ("amsgrad", False, False),
        ("amsgrad", "no", False),
        ("ema", "yes", True),
        ("clip_grad", "None", None),
        ("clip_grad", "100", 100.0),
        ("gate", "None", None),
        ("valid_file", "None", None),
        ("radial_MLP", "[32, 16]", (32, 16)),
        ("radial_MLP", [32, 16], (32, 16)),
        ("config_type_weights", "{'Default': 1, 'bulk': 0.5}", {"Default": 1.0, "bulk": 0.5}),
        ("E0s", "average", "average"),
        ("E0s", "E0s.json", "E0s.json"),
        ("E0s", "{1: -13.5, 8: '-2e3'}", {1: -13.5, 8: -2000.0}),
        ("E0s", {"H": -13, "8": -2041.5}, {1: -13.0, 8: -2041.5}),
        ("E0s", "{H: -13, O: -2041.5}", {1: -13.0, 8: -2041.5}),
        (
            "E0s",
            "{method: regression, fixed: {O: -2041.5}, subset_size: 9}",
            Regression(fixed={8: -2041.5}, subset_size=9),
        ),
        (
            "E0s",
            {"method": "compounds", "compounds": ["TiO2", "O2"], "fixed": {}},
            Compounds(compounds=["TiO2", "O2"]),
        ),
        ("train_file", "a/train.xyz", Path("a/train.xyz")),
    ],
)
def test_values_become_the_type_that_is_meant(name, written, meant):
    found = getattr(options(**{name: written}), name)
    assert found == meant
    assert type(found) is type(meant)


def test_mappings_are_read_from_python_and_yaml_text():
    python = options(heads=repr(VALID["heads"]), train_schedule=repr(VALID["train_schedule"]))
    yaml = options(train_schedule="{0: {name: a, start: 0, end: 1, loss: {forces: 1e0}}}")
    assert python == yaml == options()


def test_options_can_be_written_down_and_read_again():
    given = options(lr=0.003, E0s={"H": -13.0}, train_schedule={0: STAGE | {"readouts_lr": 0.1}})
    assert TrainOptions(**given.model_dump()) == given
    assert TrainOptions(**yaml.safe_load(given.model_dump_json())).E0s == {1: -13.0}
    given = options(E0s={"method": "compounds", "compounds": ["H2O"], "fixed": {"O": -2041.5}})
    assert TrainOptions(**yaml.safe_load(given.model_dump_json())) == given


def test_stages_without_learning_rate_take_the_option():
    assert options(lr=0.003).train_schedule[0].lr == 0.003


def test_irreps_from_channels_and_order_win():
    assert options().irreps == "4x0e + 4x1o"
    assert options(num_channels=8, max_L=2).irreps == "8x0e + 8x1o + 8x2e"


def test_options_cannot_be_changed():
    with pytest.raises(ValidationError):
        options().lr = 1.0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"batchsize": 3}, "unknown option 'batchsize'; did you mean 'batch_size'?"),
        ({"Model": "MACE"}, "unknown option 'Model'; did you mean 'model'?"),
        ({"energy_key": "E"}, "given in 'heads'"),
        ({"wandb_watch": "weights"}, "'parameters' or 'all', found 'weights'"),
        (
            {"wandb_watch_log_freq": 0},
            "option 'wandb_watch_log_freq': expected a number of at least 1",
        ),
        ({"model": "MAEC"}, "or 'PolarMACE', found 'MAEC'"),
        ({"device": "mps"}, "'mps' is not available in this version"),
        ({"name": ...}, "option 'name' is required"),
        ({"name": "a/b"}, "becomes part of file names"),
        ({"error_table": "PerAtomRMES"}, "did you mean 'PerAtomRMSE'?"),
        ({"r_max": "abc"}, "option 'r_max': expected a number, found 'abc'"),
        ({"r_max": -1.0}, "option 'r_max': expected a number above 0, found -1.0"),
        ({"lr": float("nan")}, "option 'lr': expected a finite number"),
        ({"batch_size": 2.5}, "option 'batch_size': expected a whole number"),
        ({"batch_size": True}, "option 'batch_size': expected a number, found a truth value"),
        ({"ema": "perhaps"}, "option 'ema': expected true or false"),
        ({"valid_fraction": 1.0}, "option 'valid_fraction': expected a number below 1"),
        ({"radial_MLP": "[64, wide]"}, "option 'radial_MLP'"),
        ({"E0s": {"Xq": 1.0}}, "option 'E0s'"),
        ({"E0s": {"method": "mean"}}, "E0s: unknown method 'mean'"),
        ({"E0s": {"method": "regression", "subset": 3}}, "E0s: unknown key 'subset'"),
        ({"compute_forces": False}, "option 'compute_forces': must be true"),
        ({"hidden_irreps": ...}, "option 'hidden_irreps'"),
        ({"max_L": 1}, "options 'num_channels' and 'max_L': give both or none"),
        ({"log_on_test_sets": True}, "option 'log_on_test_sets': needs a 'test_file'"),
        ({"heads": {}}, "heads: found 0 heads"),
        ({"heads": "[unclosed"}, "option 'heads'"),
        ({"config_type_weights": "bulk"}, "option 'config_type_weights': expected a mapping"),
        (
            {"config_type_weights": {"bulk": -1}},
            "option 'config_type_weights': bulk: expected a number of at least 0",
        ),
        ({"momentum": 1.0}, "option 'momentum': expected a number below 1"),
        (
            {"optimizer": "lbfgs", "sampling_policy": "energy_weighted"},
            "option 'sampling_policy': cannot be used with the optimizer lbfgs",
        ),
        (
            {"optimizer": "lbfgs", "force_fraction": 0.5, "force_resample_epochs": 2},
            "option 'force_resample_epochs': cannot be used with the optimizer lbfgs",
        ),
        (
            {"optimizer": "levenberg_marquardt", "model": "FixedPoint"},
            "cannot be used with FixedPoint, whose charges are searched for",
        ),
        ({"optimizer": "lbfgs", "devices": 2}, "option 'devices': cannot be used with"),
        (
            {"optimizer": "lbfgs", "train_schedule": {0: STAGE | {"readouts_lr": 0.1}}},
            "stage 0 (a): 'readouts_lr' must be absent with the optimizer lbfgs",
        ),
        ({"scheduler": "StepLR"}, "'ReduceLROnPlateau' or 'ExponentialLR', found 'StepLR'"),
    ],
)
def test_one_mistake_gives_one_problem(changes, expected):
    (problem,) = problems(**changes)
    assert expected in problem


@pytest.mark.parametrize("name", ["energy_key", "charges_key", "REF-dipole-key"])
def test_keys_of_properties_stand_in_the_head_that_is_given(name):
    (problem,) = problems(**{name: "E"})
    assert "given in 'heads' (info_keys and arrays_keys)" in problem


def test_stress_loss_needs_the_stress():
    schedule = {0: {"name": "a", "start": 0, "end": 1, "loss": {"stress": 1.0}}}
    (problem,) = problems(train_schedule=schedule)
    assert "'stress' needs compute_stress: true" in problem
    (problem,) = problems(train_schedule={0: STAGE | {"loss": {"virials": 1.0}}})
    assert "'virials' needs compute_stress: true" in problem
    assert options(train_schedule=schedule, compute_stress=True).compute_stress


def test_all_mistakes_are_reported_together():
    found = problems(batchsize=1, lr="fast", name=..., train_schedule={1: {}})
    assert len(found) == 4
    with pytest.raises(ConfigurationError, match="2 problems in the configuration:\n  - "):
        options(batchsize=1, lr="fast")


def test_options_of_sampling_that_would_change_nothing_are_refused():
    assert problems(force_resample_epochs=3, force_min_structures=2) == (
        "option 'force_resample_epochs': needs a 'force_fraction' below 1",
        "option 'force_min_structures': needs a 'force_fraction' below 1",
    )
    given = options(force_fraction="0.5", force_resample_epochs=3, force_scale_unbiased=False)
    assert (given.force_fraction, given.force_resample_epochs) == (0.5, 3)
    for value in (0, 1.5):
        (problem,) = problems(force_fraction=value)
        assert "force_fraction" in problem


def test_policies_of_sampling():
    assert options().sampling_policy == "uniform"
    assert options(sampling_policy="error_weighted").sampling_policy == "error_weighted"
    (problem,) = problems(sampling_policy="random")
    assert "sampling_policy" in problem


def test_the_seed_of_the_split_has_a_plain_name():
    assert options(seed=3).split_seed == 3
    assert options(split_seed=5).valid_set_seed == options(valid_set_seed=5).split_seed == 5
    (problem,) = problems(split_seed=5, valid_set_seed=5)
    assert "'valid_set_seed' is given twice" in problem


def test_names_may_be_spelled_with_dashes_but_not_twice():
    assert options(**{"batch-size": 4}).batch_size == 4
    (problem,) = problems(**{"batch-size": 4, "batch_size": 5})
    assert "given twice" in problem


@pytest.mark.parametrize("spelled", [True, 1, "true", "True", "yes"])
def test_what_is_not_available_is_refused_in_every_spelling(spelled):
    (problem,) = problems(quadrupole_feature_corrections=spelled)
    assert "is not available in this version" in problem
    (problem,) = problems(device="mps")
    assert "option 'device': 'mps' is not available in this version" in problem
    assert options(quadrupole_feature_corrections="false").quadrupole_feature_corrections is False


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"model": "LocalCharges", "field_feature_max_l": 0},
            "'field_feature_max_l' has no effect: it is of FixedPoint, PolarMACE, not of Local",
        ),
        ({"train_hardness": True}, "'train_hardness' has no effect: it is of MACEQEq, not of MACE"),
        (
            {"valid_file": "valid.xyz", "valid_fraction": 0.3},
            "'valid_fraction' has no effect: a valid_file is given",
        ),
        ({"wandb_watch": "all"}, "'wandb_watch' has no effect: it needs wandb: true"),
        ({"avg_num_neighbors": 12}, "'avg_num_neighbors' has no effect: it is measured"),
        (
            {"lr": 0.1, "train_schedule": {0: STAGE | {"lr": 0.01}}},
            "'lr' has no effect: every stage has its own lr",
        ),
        ({"momentum": 0.9}, "'momentum' has no effect: schedulefree does not use it"),
        (
            {"optimizer": "lbfgs", "clip_grad": 1.0},
            "'clip_grad' has no effect: lbfgs does not use it",
        ),
        (
            {"optimizer": "lbfgs", "lr_factor": 0.5},
            "'lr_factor' has no effect: lbfgs finds the length of its steps",
        ),
        (
            {"scheduler": "ExponentialLR", "scheduler_min_lr": 1e-5},
            "'scheduler_min_lr' has no effect: it is of the scheduler ReduceLROnPlateau",
        ),
        ({"ema_decay": 0.999}, "'ema_decay' has no effect: it needs ema: true"),
        (
            {"num_channels": 8, "max_L": 1},
            "'hidden_irreps' has no effect: num_channels and max_L are given",
        ),
        (
            {"scf_convergence_summary": True, "skip_scf_convergence_summary": True},
            "'scf_convergence_summary' has no effect: ",
        ),
    ],
)
def test_options_that_another_one_leaves_without_effect_are_named(changes, expected):
    found = ineffective(options(**changes))
    assert any(expected in sentence for sentence in found)
    assert ineffective(options()) == []


def test_options_come_from_files_and_mappings_too(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(VALID | {"batch_size": 3}))
    expected = options(batch_size=3)
    for config in (expected, VALID | {"batch_size": 3}, path, str(path)):
        assert options_from(config) == expected
        assert options_from(config, {"batch-size": 5}) == options(batch_size=5)
    (longer,) = options_from(path, {"train_schedule.a.end": 3}).train_schedule
    assert longer.end == 3
    with pytest.raises(ConfigurationError, match="'epochs'"):
        options_from(expected, {"epochs": 3})
    with pytest.raises(ConfigurationError, match=r"cannot read the configuration '.*none\.yaml'"):
        options_from(tmp_path / "none.yaml")


def test_unknown_head_property_names_the_nearest():
    heads = {"DFT": {"info_keys": {"total_charge": "q", "dipol": "mu"}, "arrays_keys": {}}}
    (problem,) = problems(heads=heads)
    assert "did you mean 'dipole'?" in problem
