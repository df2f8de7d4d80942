"""Members of mappings by their path, and schedules with fewer epochs."""

import pytest
from train_options import VALID, options, problems

from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax.training.config.overrides import with_overrides
from mace_scf_jax.training.loop.schedule import Stage, shortened

SCHEDULE = {
    0: {"name": "forces", "start": 0, "end": 39, "lr": 0.01, "loss": {"forces": 1.0}},
    1: {"name": "energy", "start": 40, "end": 59, "loss": {"forces": 1.0, "energy_per_atom": 9.0}},
}


def stages(**changes) -> list[tuple]:
    given = options(train_schedule=SCHEDULE, **changes)
    return [(it.start, it.end, it.lr, dict(it.loss)) for it in given.train_schedule]


def test_a_stage_is_called_by_number_or_name():
    changes = {"train_schedule.forces.lr": "1e-3", "train_schedule.1.loss.forces": 10}
    assert stages(**changes) == [
        (0, 39, 0.001, {"forces": 1.0}),
        (40, 59, 0.01, {"forces": 10.0, "energy_per_atom": 9.0}),
    ]
    assert SCHEDULE[0]["lr"] == 0.01
    given = options(**{"train_schedule.0.end": "5"})
    assert given.train_schedule[0].end == 5
    assert given.remarks == ("Changed in the schedule: train_schedule.0.end",)


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({"forces.end": 5}, [(0, 5), (6, 25)]),
        ({"0.end": 49}, [(0, 49), (50, 69)]),
        ({"forces.end": 5, "energy.end": 7}, [(0, 5), (6, 7)]),
        ({"energy.end": 99}, [(0, 39), (40, 99)]),
    ],
)
def test_stages_move_along_with_the_end_of_those_before(changes, epochs):
    changes = {f"train_schedule.{path}": value for path, value in changes.items()}
    assert [(first, last) for first, last, *_ in stages(**changes)] == epochs


def test_members_of_other_mappings():
    given = options(
        E0s={"H": -13.0, "O": -2000.0},
        **{"E0s.H": -13.5, "heads.DFT.info_keys.energy": "my-E", "config_type_weights.bulk": 2},
    )
    assert given.E0s == {1: -13.5, 8: -2000.0}
    assert given.keys.key_of("energy") == "my-E"
    assert given.config_type_weights == {"bulk": 2.0}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("train_schedule.2.end", r"found the stages 0 \(forces\), 1 \(energy\), not '2'"),
        ("train_schedule.forces.loss", "is a mapping; name one of its members: .*loss.forces"),
        ("lr.high", "'lr' is no mapping, found 0.1"),
    ],
)
def test_paths_that_lead_nowhere_are_refused(path, message):
    with pytest.raises(ConfigurationError, match=message):
        with_overrides({"train_schedule": SCHEDULE, "lr": 0.1}, {path: 1})


def test_paths_of_what_is_unknown_are_refused():
    assert problems(**{"train_schedul.0.end": 3}) == (
        "unknown option 'train_schedul'; did you mean 'train_schedule'?",
    )
    assert (
        "found none of which a stage"
        in problems(train_schedule=..., **{"train_schedule.0.end": 3})[0]
    )
    assert "unknown key 'ende'" in problems(**{"train_schedule.0.ende": 3})[0]


@pytest.mark.parametrize(
    ("lengths", "epochs", "expected"),
    [
        ((40, 20), 6, (4, 2)),
        ((40, 20), 2, (1, 1)),
        ((100, 1, 1), 10, (8, 1, 1)),
        ((1, 1, 100), 10, (1, 1, 8)),
        ((3, 3, 3), 5, (2, 1, 2)),
        ((40, 20), 60, (40, 20)),
        ((40, 20), 100, (40, 20)),
    ],
)
def test_stages_are_shortened_in_proportion(lengths, epochs, expected):
    given, first = [], 0
    for number, length in enumerate(lengths):
        last = first + length - 1
        given.append(Stage(name=str(number), start=first, end=last, loss={"forces": 1.0}))
        first = last + 1
    found = shortened(tuple(given), epochs)
    assert tuple(len(it.epochs) for it in found) == expected
    assert [it.start for it in found[1:]] == [it.end + 1 for it in found[:-1]]


def test_fewer_epochs_are_said_and_stay_when_options_are_written_down():
    given = options(train_schedule=SCHEDULE, max_num_epochs=6)
    assert given.remarks == (
        "max_num_epochs 6: the stages are forces: epochs 0 to 3, energy: epochs 4 to 5",
    )
    assert type(given)(**given.model_dump()) == given
    (problem,) = problems(train_schedule=SCHEDULE, max_num_epochs=1)
    assert (
        problem == "option 'max_num_epochs': found 1, expected at least 2, one epoch for each stage"
    )
    assert options().train_schedule[0].end == VALID["train_schedule"][0]["end"]
