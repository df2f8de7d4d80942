"""The command line of ``train``: file and options together, both spellings, help."""

import pytest
import yaml
from labelled_water import parse_options

from mace_scf_jax.options.error import ConfigurationError

CONFIG = {
    "name": "water",
    "train_file": "train.xyz",
    "error_table": "PerAtomRMSE",
    "hidden_irreps": "4x0e + 4x1o",
    "lr": 0.02,
    "heads": {"DFT": {"info_keys": {"total_charge": "total_charge"}, "arrays_keys": {}}},
    "train_schedule": {0: {"name": "a", "start": 0, "end": 1, "loss": {"forces": 1.0}}},
}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    return str(path)


def message(*words: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse_options(words)
    return str(caught.value)


def test_the_command_line_wins_over_the_file(config):
    assert parse_options([config]).lr == 0.02
    assert parse_options([config, "--lr", "1e-3"]).lr == 1e-3


def test_the_form_of_the_reference_is_the_same(config):
    expected = parse_options([config, "--model", "LocalCharges", "--r_max", "4.5"])
    assert parse_options(["--config", config, "--model=LocalCharges", "--r-max=4.5"]) == expected
    assert parse_options(["--r_max", "4.5", config, "--model", "LocalCharges"]) == expected


def test_everything_on_the_command_line():
    words = [word for name, value in CONFIG.items() for word in (f"--{name}", str(value))]
    assert parse_options(words).train_schedule[0].loss == {"forces": 1.0}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--amsgrad"], True),
        (["--amsgrad", "False"], False),
        (["--amsgrad=no"], False),
        (["--no-amsgrad"], False),
        (["--no_amsgrad"], False),
        (["--amsgrad", "False", "--amsgrad"], True),
    ],
)
def test_switches_work_with_and_without_value(config, words, expected):
    assert parse_options([config, *words]).amsgrad is expected
    assert parse_options([*words, config]).amsgrad is expected


def test_restarting_is_switched_off_as_in_the_reference(config):
    assert parse_options([config, "--no-restart_latest"]).restart_latest is False


def test_mappings_on_the_command_line(config):
    given = parse_options([config, "--E0s", "{H: -13.5, 8: -2041}", "--radial_MLP", "[32, 32]"])
    assert given.E0s == {1: -13.5, 8: -2041.0}
    assert given.radial_MLP == (32, 32)


def test_values_may_begin_with_a_dash(config):
    assert "expected a number of at least 0, found '-1e-3'" in message(config, "--lr", "-1e-3")


def test_dashes_and_underscores_name_the_same_option(config, tmp_path):
    path = tmp_path / "dashes.yaml"
    path.write_text("batch-size: 3\n" + (tmp_path / "config.yaml").read_text())
    assert parse_options([str(path)]).batch_size == 3
    assert parse_options([str(path), "--batch-size", "7"]).batch_size == 7
    assert parse_options([str(path), "--batch_size", "7"]).batch_size == 7


def test_options_of_mace_take_their_value(config):
    words = ["--save_cpu", "--num_workers", "8", config, "--enable_cueq=True"]
    assert [remark.split("'")[1] for remark in parse_options(words).remarks] == [
        "save_cpu",
        "num_workers",
        "enable_cueq",
    ]
    assert "options of MACE 'swa', 'start_swa': the loss" in message(
        "--swa", config, "--start_swa=3"
    )


def test_members_of_mappings_by_their_path(config):
    words = ["--train_schedule.a.end", "7", "--train_schedule.0.loss.forces=3", config]
    (stage,) = parse_options([*words, "--heads.DFT.info_keys.energy", "E"]).train_schedule
    assert (stage.end, stage.loss) == (7, {"forces": 3.0})
    assert "option --train_schedule.a.end needs a value" in message("--train_schedule.a.end")


def test_unknown_options_of_file_and_command_line_are_reported_together(config, tmp_path):
    path = tmp_path / "typo.yaml"
    path.write_text("batchsize: 3\n" + (tmp_path / "config.yaml").read_text())
    text = message(str(path), "--device", "mps", "--rmax", "3", "--energy_key", "E")
    assert "did you mean 'batch_size'?" in text
    assert "did you mean 'r_max'?" in text
    assert "options 'energy_key': the keys of properties are given in 'heads'" in text
    assert "'mps' is not available in this version" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--lr"], "option --lr needs a value"),
        (["--lr", "--ema"], "option --lr needs a value"),
        (["{config}", "more"], "unexpected argument 'more'"),
        (["{config}", "--config", "{config}"], "two configuration files are given"),
        (["nowhere.yaml"], "cannot read the configuration 'nowhere.yaml': No such file"),
        (["{config}", "--train_schedule", "{0: {name: a"], "expected a mapping of stages"),
    ],
)
def test_mistakes_in_the_command_line(config, words, expected):
    assert expected in message(*(word.replace("{config}", config) for word in words))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nname: b\n", "line 2: the key 'name' is given twice (first in line 1)"),
        ("loss:\n  forces: 1\n  forces: 2\n", "line 3: the key 'forces' is given twice"),
        ("name: a\nlr: [1, 2\nseed: 1\n", "line 3: while parsing a flow sequence"),
        ("name: a\n\tlr: 1\n", "line 2: "),
        ("", "expected a mapping of options, found nothing"),
        ("- a\n- b\n", "expected a mapping of options, found a list"),
    ],
)
def test_mistakes_in_the_file_name_file_and_line(tmp_path, text, expected):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    found = message(str(path))
    assert found.startswith(str(path))
    assert expected in found


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert "not a text file" in message(str(path))


def test_help_shows_every_topic_with_defaults(capsys):
    with pytest.raises(SystemExit) as left:
        parse_options(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for heading in ("Data:", "Backbone MACE:", "Optimizer:", "Schedule and report:"):
        assert heading in text
    assert "(default: 1.25)" in text
    assert "--restart_latest [true|false]" in text
