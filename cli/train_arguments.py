"""Options of training from a file and from ``--name value``: for ``train`` and ``preprocess``."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic.fields import FieldInfo

from mace_scf_jax.options import ConfigurationError, OneOf, OptionGroup
from mace_scf_jax.training.config.options import TrainOptions, options_from, topics, train_options
from mace_scf_jax.training.config.options_of_mace import SWITCHES
from mace_scf_jax.training.config.reading import canonical_name

TRUE_VALUES = frozenset({"true", "yes", "on", "1", "t", "y"})
TRUTH_VALUES = TRUE_VALUES | {"false", "no", "off", "0", "f", "n"}
PLACEHOLDERS = {float: "X", int: "N", str: "TEXT", Path: "PATH", tuple: "LIST", dict: "MAPPING"}
PLACEHOLDER_OF_OPTION = {"train_schedule": "MAPPING"}
DESCRIPTION = """\
Train a model. All options may stand in the YAML file, on the command line, or both; the command
line wins. Names may be spelled with _ or -; mappings and lists are written as YAML or Python
literals, such as --E0s '{H: -13.6, O: -2041.8}'. A member of a mapping is changed by its path:
--train_schedule.0.end 5, or --train_schedule.forces.lr 0.001 by the name of a stage."""


@dataclasses.dataclass(frozen=True)
class OwnArgument:
    """An argument of one command alone, with the settings that argparse takes."""

    name: str
    flags: tuple[str, ...]
    settings: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Command:
    """A subcommand that takes the options of training."""

    name: str
    description: str
    options: type[TrainOptions] = TrainOptions
    topics: Callable[[], tuple[type[OptionGroup], ...]] = topics
    """Options listed in the help; the others are understood too."""
    own_arguments: tuple[OwnArgument, ...] = ()


COMMITTEE_ARGUMENTS = (
    OwnArgument(
        "committee",
        ("--committee",),
        {
            "metavar": "N",
            "type": int,
            "default": None,
            "help": "train N models on one split, with the seeds seed, seed + 1, …, into the "
            "folders member-1, … of work_dir",
        },
    ),
    OwnArgument(
        "committee_parallel",
        ("--committee_parallel",),
        {
            "metavar": "P",
            "type": int,
            "default": 1,
            "help": "members trained at the same time, in processes of their own (default: 1)",
        },
    ),
)
TRAIN = Command("train", DESCRIPTION, own_arguments=COMMITTEE_ARGUMENTS)


class _Parser(argparse.ArgumentParser):
    """Reports mistakes as a ConfigurationError instead of leaving the process."""

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(message)


def parse_command(
    words: Sequence[str], command: Command
) -> tuple[TrainOptions, argparse.Namespace]:
    """The options of a command, and the values of its own arguments.

    Args:
        command: what is parsed.

    Raises:
        ConfigurationError: the file cannot be read, or any option is unknown, missing or wrong.
        PluginError: a plugin that is named cannot be loaded.
    """
    parser = _build_parser(command)
    known, rest = parser.parse_known_args(_one_word_per_option(words, command))
    values = vars(known)
    own = {argument.name: values.pop(argument.name) for argument in command.own_arguments}
    for word in rest:
        if not word.startswith("--"):
            parser.error(f"unexpected argument {word!r}")
        name, _, value = word[2:].partition("=")
        values[name] = value
    files = [values.pop(key, None) for key in ("file", "config")]
    if all(files):
        parser.error(f"two configuration files are given: '{files[0]}' and '{files[1]}'")
    options = options_from(files[0] or files[1], values, base=command.options)
    return options, argparse.Namespace(**own)


def _build_parser(command: Command) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=f"mace-scf-jax {command.name}",
        description=command.description,
        usage=f"mace-scf-jax {command.name} [FILE.yaml] [--config FILE.yaml] [--option VALUE ...]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("file", nargs="?", metavar="FILE.yaml", help="configuration")
    parser.add_argument("--config", metavar="FILE.yaml", help="the same, as an option")
    parser.add_argument("--traceback", action="store_true", help="show where an error arose")
    for argument in command.own_arguments:
        parser.add_argument(*argument.flags, dest=argument.name, **argument.settings)
    for topic in command.topics():
        group = parser.add_argument_group((topic.__doc__ or "").splitlines()[0])
        for name, field in topic.model_fields.items():
            group.add_argument(f"--{name}", metavar=_placeholder(name, field), help=_help(field))
    return parser


def truth_value(word: str) -> bool:
    """The type of arguments that are switches: they may stand without value.

    Raises:
        ValueError: the word is no truth value.
    """
    if word.lower() not in TRUTH_VALUES:
        raise ValueError(f"expected true or false, found {word!r}")
    return word.lower() in TRUE_VALUES


def _one_word_per_option(words: Sequence[str], command: Command = TRAIN) -> list[str]:
    """Rewrite ``--some-name value`` as ``--some_name=value``.

    So a value may begin with ``-``, switches may stand without value (``--ema``) or be negated
    (``--no-ema``), and the two spellings of a name are the same.
    """
    fields = train_options().model_fields
    switches = {name for name, field in fields.items() if field.annotation is bool}
    own = command.own_arguments
    switches |= {each.name for each in own if each.settings.get("type") is truth_value}
    rewritten: list[str] = []
    waiting = list(reversed(words))
    while waiting:
        word = waiting.pop()
        if not word.startswith("--") or word in ("--", "--help"):
            rewritten.append(word)
            continue
        spelled, has_value, value = word[2:].partition("=")
        name = canonical_name(spelled)
        following = waiting[-1] if waiting else None
        if not has_value:
            if name.removeprefix("no_") in switches and name not in switches:
                name, value = name.removeprefix("no_"), "False"
            elif name in switches or name in SWITCHES:
                is_value = following is not None and following.lower() in TRUTH_VALUES
                value = waiting.pop() if is_value else "True"
            elif following is None or following.startswith("--"):
                if name.partition(".")[0] in (*fields, "config"):
                    raise ConfigurationError(f"option --{spelled} needs a value")
            else:
                value = waiting.pop()
        rewritten.append(f"--{name}={value}")
    return rewritten


def _help(field: FieldInfo) -> str:
    text = (field.description or "").replace("%", "%%")
    if field.is_required():
        return f"{text} (required)"
    if field.default is None:
        return text
    default = str(field.default).lower() if isinstance(field.default, bool) else field.default
    return f"{text} (default: {default})"


def _placeholder(name: str, field: FieldInfo) -> str:
    """What stands for the value in the help."""
    if name in PLACEHOLDER_OF_OPTION:
        return PLACEHOLDER_OF_OPTION[name]
    named = [mark.names for mark in field.metadata if isinstance(mark, OneOf)]
    if named:
        return "{" + ",".join(named[0]) + "}"
    kind: Any = field.annotation
    while True:
        origin = typing.get_origin(kind)
        members = [member for member in typing.get_args(kind) if member is not types.NoneType]
        if origin is Annotated or origin in (typing.Union, types.UnionType):
            kind = members[0]
        elif origin is Literal:
            return "{" + ",".join(members) + "}"
        else:
            break
    if kind is bool:
        return "[true|false]"
    if isinstance(kind, type) and issubclass(kind, OptionGroup):
        return PLACEHOLDERS[dict]
    return PLACEHOLDERS[origin or kind]
