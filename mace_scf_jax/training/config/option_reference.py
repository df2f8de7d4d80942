"""The options as a commented configuration and as a page of documentation.

Both are made from the typed options, so that names, defaults and meanings have one source.
"""

from __future__ import annotations

import json
import textwrap
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic.fields import FieldInfo

from mace_scf_jax.backbones import BACKBONES
from mace_scf_jax.models import FAMILIES
from mace_scf_jax.options import OneOf, OptionGroup
from mace_scf_jax.training.config.options import matters_to, owners, topics
from mace_scf_jax.training.loop.fixed_point_training import DEFAULT_TRAINING, OPTIONS_KEY

WIDTH = 98
EXAMPLES: dict[str, Any] = {
    "name": "my_model",
    "heads": {
        "Default": {
            "info_keys": {"energy": "REF_energy", "total_charge": "total_charge"},
            "arrays_keys": {"forces": "REF_forces"},
        }
    },
    "train_file": "train.xyz",
    "E0s": "average",
    "hidden_irreps": "64x0e + 64x1o",
    "train_schedule": {
        0: {
            "name": "only",
            "start": 0,
            "end": 99,
            "lr": 0.01,
            "loss": {"energy_per_atom": 1.0, "forces": 100.0},
        }
    },
}
"""Values that could be used, of options without a default that works."""
HEADS_WITH_MULTIPOLES = {
    "Default": {
        "info_keys": {
            "energy": "REF_energy",
            "dipole": "REF_dipole",
            "total_charge": "total_charge",
        },
        "arrays_keys": {"forces": "REF_forces", "atomic_multipoles": "REF_atomic_multipoles"},
    }
}
LOSS_WITH_MULTIPOLES = {"energy_per_atom": 1.0, "forces": 100.0, "atomic_multipoles": 100.0}
KINDS = {
    float: "number",
    int: "whole number",
    str: "text",
    bool: "true or false",
    Path: "path",
    tuple: "list",
    dict: "mapping",
}
KIND_OF_OPTION = {"train_schedule": "mapping"}
"""Options whose typed value has another form than what is written."""

HEADER = """\
# Options of mace-scf-jax train{which}, with their defaults.
# Delete what you do not change; 'example' marks what has no default. Any option can also be given
# on the command line, which wins: --batch_size 16
"""
PAGE_HEADER = """\
# Options

Every option of `mace-scf-jax train`, for the YAML file or the command line (`--name value`; `-` and
`_` are the same). This page is made by `mace-scf-jax config --reference`;
`mace-scf-jax config --defaults` writes the same as a commented configuration file. The names are
those of the PyTorch reference; what is different on purpose is in
[compatibility](compatibility.md). Losses and their options: [losses](losses.md). `--committee N`
stands on the command line only: [committees](../how_to/committees.md).
"""


def default_configuration(family: str | None = None) -> str:
    """A configuration with every option at its default, and what each means in a comment.

    It is valid as it stands; options without default hold an example.

    Args:
        family: only options that matter to this family; None for all options.
    """
    examples = EXAMPLES if family is None else EXAMPLES | _examples_of(family)
    blocks = [HEADER.format(which="" if family is None else f" for the model {family}")]
    for topic in topics():
        names = [
            name
            for name in topic.model_fields
            if matters_to(name, family=family, backbone=family and FAMILIES[family].backbone)
        ]
        if not names:
            continue
        blocks.append(f"# {_heading(topic)} ".ljust(WIDTH + 2, "-") + "\n")
        for name in names:
            field = topic.model_fields[name]
            note = " (example)" if name in examples else ""
            comment = textwrap.fill(
                _sentence(field) + note, WIDTH, initial_indent="# ", subsequent_indent="# "
            )
            value = examples.get(name, _plain(field.default))
            value = family if name == "model" and family is not None else value
            blocks.append(f"{comment}\n{_yaml(name, value)}")
    return "\n".join(blocks)


def reference_page() -> str:
    """The documentation of all options as Markdown."""
    parts = [PAGE_HEADER]
    for topic in topics():
        rows = ["| option | value | default | meaning |", "|---|---|---|---|"]
        for name in topic.model_fields:
            field = topic.model_fields[name]
            default = "required" if field.is_required() else f"`{_compact(field.default)}`"
            kind = KIND_OF_OPTION.get(name) or _kind(field)
            rows.append(f"| `{name}` | {kind} | {default} | {_cell(_meaning(name, field))} |")
        parts.append(f"## {_heading(topic)}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _examples_of(name: str) -> dict[str, Any]:
    """Values that a family needs, or that make sense for it."""
    family, stage = FAMILIES[name], {}
    examples = {
        option: field.examples[0]
        for group in (BACKBONES[family.backbone].options, *family.options)
        for option, field in group.model_fields.items()
        if field.examples
    }
    if family.max_l:
        examples["heads"] = HEADS_WITH_MULTIPOLES
        stage["loss"] = LOSS_WITH_MULTIPOLES
    if family.is_self_consistent:
        stage[OPTIONS_KEY] = DEFAULT_TRAINING
    stages = {index: values | stage for index, values in EXAMPLES["train_schedule"].items()}
    return examples | {"train_schedule": stages}


def _heading(topic: type) -> str:
    return (topic.__doc__ or "").splitlines()[0]


def _meaning(name: str, field: FieldInfo) -> str:
    """Description of an option, and the families it matters to unless it says so itself."""
    text = field.description or ""
    known = owners(name)
    if known is None or any(family in text for family in known):
        return text
    topic = next(topic for topic in topics() if name in topic.model_fields)
    if all(family in _heading(topic) for family in known):
        return text
    return f"{text} ({', '.join(known)})"


def _sentence(field: FieldInfo) -> str:
    """Description of an option with its possible values."""
    choices = _choices(field)
    return f"{field.description}" + (f"; one of {', '.join(choices)}" if choices else "")


def _choices(field: FieldInfo) -> tuple[str, ...]:
    """The values that an option is limited to, if it is."""
    named = [mark.names for mark in field.metadata if isinstance(mark, OneOf)]
    return tuple(named[0]) if named else _choices_of_kind(field.annotation)


def _choices_of_kind(kind: Any) -> tuple[str, ...]:
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return tuple(str(member) for member in members)
    if origin is Annotated:
        return _choices_of_kind(members[0])
    if origin in (typing.Union, types.UnionType):
        found = [_choices_of_kind(member) for member in members if member is not types.NoneType]
        if all(found):
            return (*(choice for part in found for choice in part), "None")
    return ()


def _kind(field: FieldInfo) -> str:
    """What an option takes, for the page."""
    choices = _choices(field)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    return _name_of(field.annotation)


def _name_of(kind: Any) -> str:
    origin, members = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return _name_of(members[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(
            dict.fromkeys(_name_of(member) for member in members if member is not types.NoneType)
        )
    if origin is Literal:
        return " or ".join(f"`{member}`" for member in members)
    kind = origin or kind
    return "mapping" if issubclass(kind, OptionGroup) else KINDS[kind]


def _plain(value: Any) -> Any:
    """A default as YAML can hold it."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def _compact(value: Any) -> str:
    """A default on one line."""
    value = _plain(value)
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def _yaml(name: str, value: Any) -> str:
    """An option as YAML: nested or long mappings as blocks, everything else on one line."""
    nested = isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values())
    style = {"sort_keys": False, "allow_unicode": True, "default_flow_style": None}
    if nested:
        return yaml.safe_dump({name: value}, **style, width=WIDTH)
    flow = yaml.safe_dump([value], **style | {"default_flow_style": True}, width=10 * WIDTH)
    line = f"{name}: {flow.strip()[1:-1]}\n"
    if len(line) <= WIDTH or not isinstance(value, Mapping):
        return line
    return yaml.safe_dump({name: value}, **style | {"default_flow_style": False})


def _cell(text: str) -> str:
    """Text within a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;")
