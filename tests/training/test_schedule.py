"""The schedule: stages as written, and every mistake refused with its place and a hint."""

import pytest

from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.training.loop.schedule import Stage, read_schedule
from mace_scf_jax.training.losses.solution import FourierDensityOptions


def stage(**changes):
    block = {"name": "one", "start": 0, "end": 4, "loss": {"energy_per_atom": 1.0, "forces": 10.0}}
    return {key: value for key, value in (block | changes).items() if value is not ...}


def problems(schedule) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        read_schedule(schedule)
    return caught.value.problems


def test_two_stages_are_read_as_written():
    schedule = {
        0: stage(lr=0.02, readouts_lr=0.001),
        1: stage(name="two", start=5, end=5, loss={"forces": {"weight": 3}}),
    }
    assert read_schedule(schedule, default_lr=0.005) == (
        Stage(
            name="one",
            start=0,
            end=4,
            loss={"energy_per_atom": 1.0, "forces": 10.0},
            lr=0.02,
            group_lrs={"readouts": 0.001},
        ),
        Stage(name="two", start=5, end=5, loss={"forces": 3.0}, lr=0.005),
    )


def test_terms_may_have_options():
    loss = {"forces": 1, "fourier_density": {"weight": 2, "form": "gaussian", "alpha": "5e-1"}}
    (parsed,) = read_schedule({0: stage(loss=loss | {"fixedpoint_scf_stability": 0.5})})
    assert parsed.loss == {"forces": 1.0, "fourier_density": 2.0, "fixedpoint_scf_stability": 0.5}
    assert parsed.loss_options == {
        "fourier_density": FourierDensityOptions(form="gaussian", alpha=0.5),
    }, "those at their defaults are not kept"
    assert parsed.to_mapping()["loss"]["fixedpoint_scf_stability"] == 0.5
    assert read_schedule({0: parsed.to_mapping()}) == (parsed,)


@pytest.mark.parametrize(
    ("share", "weights"),
    [
        (0.25, {"energy_per_atom": 0.75, "forces": 0.25}),
        ("0", {"energy_per_atom": 1.0}),
        (1, {"forces": 1.0}),
    ],
)
def test_force_weight_is_a_loss_of_two_roots(share, weights):
    (parsed,) = read_schedule({0: stage(loss=..., force_weight=share)})
    written = {name: {"weight": weight, "form": "rmse"} for name, weight in weights.items()}
    assert (parsed,) == read_schedule({0: stage(loss=written)})
    assert parsed.loss == weights
    assert read_schedule({0: parsed.to_mapping()}) == (parsed,)


def test_epochs_include_both_ends_and_a_single_epoch_is_trained():
    (only,) = read_schedule({0: stage(start=0, end=0)})
    assert list(only.epochs) == [0]
    assert list(Stage(name="b", start=3, end=5, loss={"forces": 1.0}).epochs) == [3, 4, 5]


@pytest.mark.parametrize(("written", "meant"), [("1e-3", 1e-3), (1, 1.0), ("1.0e-2", 1e-2)])
def test_numbers_that_yaml_reads_as_text_or_integer_become_floats(written, meant):
    block = stage(lr=written, readouts_lr=written, loss={"forces": written, "dipole": 1})
    (parsed,) = read_schedule({0: block})
    assert (parsed.lr, parsed.group_lrs["readouts"], parsed.loss["forces"]) == (meant,) * 3
    assert all(isinstance(weight, float) for weight in parsed.loss.values())


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (stage(loss={"force": 1.0}), "unknown loss term 'force'; did you mean 'forces'?"),
        (stage(loss={"energy": 1.0}), "loss term 'energy'; did you mean 'energy_per_atom'?"),
        (stage(loss={"charge": 1.0}), "loss term 'charge'; did you mean 'total_charge'?"),
        (stage(loss={"forces": "much"}), "loss term 'forces': expected a number, found 'much'"),
        (
            stage(loss={"forces": True}),
            "loss term 'forces': expected a number, found a truth value",
        ),
        (
            stage(loss={"dipole": {"weight": 1, "form": 1}}),
            "loss term 'dipole': takes no option, found 'form'",
        ),
        (
            stage(loss={"forces": {"weight": 1, "form": "rms"}}),
            "loss term 'forces': form: expected 'squared' or 'rmse', found 'rms'",
        ),
        (stage(force_weight=0.1), "found both 'loss' and 'force_weight', expected one of them"),
        (
            stage(loss=..., force_weight=1.5),
            "force_weight: expected a number of at most 1, found 1.5",
        ),
        (
            stage(loss={"fourier_density": {"weight": 1, "form": "cubic"}}),
            "loss term 'fourier_density': form: expected 'poly', 'exponential' or 'gaussian'",
        ),
        (stage(loss={"forces": {}}), "loss term 'forces': 'weight' is required"),
        (
            stage(loss={"forces": -1.0}),
            "loss term 'forces': expected a number of at least 0, found -1.0",
        ),
        (stage(loss={"forces": 0.0}), "no term has a weight above zero"),
        (stage(loss={}), "loss: expected a mapping from loss terms to weights, found {}"),
        (stage(loss=...), "'loss' is required"),
        (stage(name=...), "'name' is required"),
        (stage(end=...), "'end' is required"),
        (stage(start=0.5), "start: expected a whole number, found 0.5"),
        (stage(end=-1), "end: expected a number of at least 0, found -1"),
        (stage(start=3, end=2), "epochs 3 to 2 (both included): expected start <= end"),
        (stage(lr=float("nan")), "lr: expected a finite number, found nan"),
        (stage(readouts_lr=-1), "readouts_lr: expected a number of at least 0, found -1"),
        (stage(readout_lr=0.1), "unknown key 'readout_lr'; did you mean 'readouts_lr'?"),
        (stage(los={}), "unknown key 'los'; did you mean 'loss'?"),
        (
            stage(name="a/b"),
            "name: expected letters, digits and . _ + - because it becomes part of file names",
        ),
        ("all", "expected a mapping, found 'all'"),
    ],
)
def test_mistakes_in_a_stage_name_the_stage(block, expected):
    (problem,) = problems({0: block})
    assert problem.startswith("train_schedule, stage 0: ")
    assert expected in problem


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"start": 4, "end": 9}, "stages 0 and 1 overlap: stage 1 must start at epoch 5"),
        ({"start": 6, "end": 9}, "stages 0 and 1 leave a gap: stage 1 must start at epoch 5"),
        ({"start": 5, "end": 9, "name": "one"}, "the name 'one' is used 2 times"),
    ],
)
def test_stages_follow_each_other(second, expected):
    (problem,) = problems({0: stage(), 1: stage(**({"name": "two"} | second))})
    assert expected in problem


def test_first_stage_starts_at_zero():
    (problem,) = problems({0: stage(start=1)})
    assert "start must be 0, found 1" in problem


@pytest.mark.parametrize("indices", [(1, 0), (0, 2), (1,), (0, True), (0.0,)])
def test_stages_are_numbered_from_zero_in_order(indices):
    (problem,) = problems({index: stage() for index in indices})
    assert "numbered 0, 1, 2, … in this order" in problem


@pytest.mark.parametrize("schedule", [{}, None, [stage()]])
def test_schedule_is_a_mapping(schedule):
    assert "expected a mapping of stages" in problems(schedule)[0]


def test_all_mistakes_are_reported_together():
    found = problems({0: stage(loss={"force": 1, "dipol": 1}, lr="fast"), 1: stage(end=...)})
    assert len(found) == 4
    assert [text.split(":")[0] for text in found] == ["train_schedule, stage 0"] * 3 + [
        "train_schedule, stage 1"
    ]
