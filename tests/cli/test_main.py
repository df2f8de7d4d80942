"""Choosing the subcommand, and turning errors into one line and an exit status."""

import subprocess
import sys

import pytest

from mace_scf_jax import __version__
from mace_scf_jax_cli import main as entry


def test_help_lists_the_commands_without_importing_jax():
    code = (
        "import sys; from mace_scf_jax_cli.main import main; status = main(['--help']); "
        "print('jax' in sys.modules); sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("train", "evaluate", "verify"))
    assert done.stdout.splitlines()[-1] == "False"


def test_version(capsys):
    assert entry.main(["--version"]) == 0
    assert capsys.readouterr().out == f"mace-scf-jax {__version__}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "error: unknown command 'trian'; did you mean 'train'?"),
        (["xyz"], f"error: unknown command 'xyz'; known are {', '.join(entry.COMMANDS)}"),
    ],
)
def test_unknown_command(capsys, words, expected):
    assert entry.main(words) == 2
    assert capsys.readouterr().err.strip() == expected


def test_no_command_shows_the_help(capsys):
    assert entry.main([]) == 2
    assert "COMMAND" in capsys.readouterr().out


def test_mistakes_of_the_user_are_one_line_unless_a_traceback_is_asked_for(capsys):
    assert entry.main(["train", "nowhere.yaml"]) == 2
    expected = "error: cannot read the configuration 'nowhere.yaml': No such file or directory\n"
    assert capsys.readouterr().err == expected
    assert entry.main(["train", "nowhere.yaml", "--traceback"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback")
    assert shown.endswith(expected)


class _Command:
    WHEN_INTERRUPTED = "interrupted; run it again"

    def __init__(self, raises):
        self.raises = raises

    def run(self, words):
        raise self.raises


def test_errors_of_other_packages_keep_their_traceback(monkeypatch, capsys):
    broken = _Command(ValueError("operands could not be broadcast"))
    monkeypatch.setattr(entry.importlib, "import_module", lambda name: broken)
    assert entry.main(["train"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_interruption_has_its_own_status_and_no_traceback(monkeypatch, capsys):
    interrupted = _Command(KeyboardInterrupt())
    monkeypatch.setattr(entry.importlib, "import_module", lambda name: interrupted)
    assert entry.main(["train"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted; run it again"


@pytest.mark.parametrize(
    ("word", "spelled"),
    [
        ("--batch-size=3", "--batch_size=3"),
        ("--no-parity", "--no_parity"),
        ("--work_dir=a-b", "--work_dir=a-b"),
        ("-o", "-o"),
        ("a--b", "a--b"),
    ],
)
def test_names_of_options_may_be_spelled_with_dashes(word, spelled):
    assert entry._spelled(word) == spelled
