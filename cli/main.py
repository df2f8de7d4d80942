"""Entry point of ``mace-scf-jax``: choose the subcommand, turn errors into messages."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from mace_scf_jax_cli import work
from mace_scf_jax_cli.words_of_mace import instead_of_command, refuse_arguments

COMMANDS = {
    "train": "train a model on labelled structures, in stages",
    "preprocess": "prepare labelled structures once, for data larger than memory",
    "split": "divide structures at random into those to train, validate and test with",
    "reference-energies": "fit energies of elements to structures, for E0s",
    "config": "print the training options, as a configuration file or as documentation",
    "evaluate": "predict the structures of a file and compare with their labels",
    "descriptors": "write the raw features of the atoms of structures",
    "plot": "draw learning curves, loss balance and parity plots of a training run",
    "report": "write an HTML page about a training run",
    "potential": "write or draw the electrostatic potential of a structure in space",
    "scf": "compare solvers of a self-consistent model and judge its solutions",
    "md": "molecular dynamics with a model",
    "relax": "move atoms to where forces vanish",
    "verify": "recompute reference files and compare",
    "import": "make a model file from a PyTorch model of MACE or MACE_SCF, or of ænet",
    "export": "write a model for PyTorch, for ænet, or as StableHLO for other programs",
    "info": "show what a model file holds",
}
MODULES = {"import": "import_model", "reference-energies": "reference_energies"}
"""Modules of commands that are named otherwise."""
WITHOUT_CACHE = "--no_compilation_cache"
"""Word of any command after which nothing that is compiled is kept, nor what was kept is read."""
OPTIONS_OF_TRAINING = ("train", "preprocess")
"""Commands that have plugins among their own options."""
EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
PACKAGES = ("mace_scf_jax", "mace_scf_jax_cli")


class _ShowVersion(argparse.Action):
    """Print the version; the package is imported only when it is asked for."""

    def __call__(self, parser, namespace, values, option_string=None):
        from mace_scf_jax import __version__

        print(f"mace-scf-jax {__version__}")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    Args:
        arguments: the words after ``mace-scf-jax``; those of the process where None.

    Returns:
        Exit status: 0, 1 (a comparison failed), 2 (bad input), 130 (interrupted).
    """
    words = [_spelled(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    show_traceback = "--traceback" in words
    prepare_jax(keeps_compiled=WITHOUT_CACHE not in words)
    words = [word for word in words if word not in ("--traceback", WITHOUT_CACHE)]
    if not words or words[0] not in COMMANDS:
        return _without_command(words)
    command = importlib.import_module(f"mace_scf_jax_cli.{MODULES.get(words[0], words[0])}")
    warnings.formatwarning = _format_warning
    try:
        refuse_arguments(words[0], words[1:])
        without, named = _take_plugins(words)
        _load_plugins(named)
        return command.run((words if words[0] in OPTIONS_OF_TRAINING else without)[1:])
    except KeyboardInterrupt:
        print(f"\n{command.WHEN_INTERRUPTED}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ValueError, OSError, ImportError) as error:
        if show_traceback or not _is_addressed_to_user(error):
            traceback.print_exception(error)
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ERROR
    finally:
        work.end()


def prepare_jax(*, keeps_compiled: bool) -> None:
    """What JAX reads from the environment when it is imported, here and in other processes.

    Of every function that XLA reads from where it keeps them it prints, as an error, that it was
    compiled for a processor that prefers loads to gathers, which it knows of no processor. These
    are kept by kind of processor, so there is nothing to tell; a folder of the user's own may be of
    several, and then XLA has its say.
    """
    if not keeps_compiled:
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    elif "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _format_warning(message: Warning | str, *where: object, **further: object) -> str:
    """A warning as one line, without the place in the source where it was given."""
    return f"warning: {message}\n"


def _spelled(word: str) -> str:
    """A word with the name of its option spelled with ``_``: ``--batch-size=3`` too.

    Behind a dot (``--heads.my-head.info_keys.energy``) stand names that are kept as they are.
    """
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    name, dot, path = name.partition(".")
    return f"--{name.replace('-', '_')}{dot}{path}{equals}{value}"


def _take_plugins(words: list[str]) -> tuple[list[str], list[str]]:
    """Split ``--plugins first,second`` off the words of a command; training reads its own."""
    rest: list[str] = []
    named: list[str] = []
    waiting = iter(words)
    for word in waiting:
        option, has_value, value = word.partition("=")
        if option != "--plugins":
            rest.append(word)
            continue
        value = value if has_value else next(waiting, "")
        if not value or value.startswith("-"):
            raise ValueError("option --plugins needs a value: the names of modules")
        named += [name.strip() for name in value.strip("[]").split(",")]
    return rest, named


def _load_plugins(named: list[str]) -> None:
    """Load the plugins of installed packages, and those that are named."""
    from mace_scf_jax.plugins import load_installed_plugins, load_plugins  # slow to import

    load_installed_plugins()
    load_plugins(named)


def _without_command(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax",
        description="Charge-aware machine-learning interatomic potentials in JAX.",
        epilog="Help on a command: mace-scf-jax COMMAND --help. With every command: --plugins "
        "MODULE,… loads modules that add families, solvers, …; --no_compilation_cache compiles "
        "everything anew and keeps nothing of it; --traceback shows where an error arose.",
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="print the version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary)
    if words and not words[0].startswith("-"):
        nearest = difflib.get_close_matches(words[0], COMMANDS, n=1)
        instead = instead_of_command(words[0])
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"known are {', '.join(COMMANDS)}"
        told = f"a command of MACE: {instead}" if instead else hint
        print(f"error: unknown command '{words[0]}'; {told}", file=sys.stderr)
        return EXIT_ERROR
    try:
        parser.parse_args(words)
    except SystemExit as exit_request:
        return int(exit_request.code or 0)
    parser.print_help()
    return 0 if words else EXIT_ERROR


def _is_addressed_to_user(error: Exception) -> bool:
    """Whether our own code raised the error to say what is wrong with the input.

    Errors from within other packages keep their traceback: they are defects, not messages.
    """
    if isinstance(error, OSError):
        return True
    frames = list(traceback.walk_tb(error.__traceback__))
    raised_in = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    return any(module.split(".")[0] in PACKAGES for module in (raised_in, type(error).__module__))


if __name__ == "__main__":
    sys.exit(main())
