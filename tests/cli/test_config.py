"""``mace-scf-jax config``: what it prints can be trained with."""

import pytest
import yaml
from labelled_water import parse_options

from mace_scf_jax.training.config.option_reference import reference_page
from mace_scf_jax_cli.main import main


def test_the_printed_file_is_read_by_train(tmp_path, capsys):
    assert main(["config", "--defaults", "--model", "LocalCharges"]) == 0
    path = tmp_path / "config.yaml"
    path.write_text(capsys.readouterr().out)
    options = parse_options([str(path), "--batch_size", "3"])
    assert (options.model, options.batch_size) == ("LocalCharges", 3)
    assert "oxidation_state_mixer" not in yaml.safe_load(path.read_text())


def test_the_reference_is_printed(capsys):
    assert main(["config", "--reference"]) == 0
    assert capsys.readouterr().out == reference_page()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "one of the arguments --defaults --reference is required"),
        (["--reference", "--model", "MACE"], "--model goes with --defaults only"),
        (["--defaults", "--model", "MACEE"], "invalid choice: 'MACEE'"),
    ],
)
def test_bad_input_is_refused(words, expected, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["config", *words])
    assert leaving.value.code == 2
    assert expected in capsys.readouterr().err
