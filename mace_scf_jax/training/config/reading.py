"""Reading a configuration: a YAML file, with errors that name the line; names of options."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mace_scf_jax.data.properties import PROPERTIES
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.registry import unknown_name
from mace_scf_jax.training.config.options_of_mace import OPTIONS_OF_MACE


class _StrictLoader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice instead of dropping the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue
            line = key_node.start_mark.line + 1
            if key in lines:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} is given twice (first in line {lines[key]})",
                    problem_mark=key_node.start_mark,
                )
            lines[key] = line
        return super().construct_mapping(node, deep=deep)


def read_config_file(path: str | Path) -> dict[str, Any]:
    """The options in a YAML file.

    Args:
        path: file with a mapping of options.

    Returns:
        Values by option name, as YAML reads them.

    Raises:
        ConfigurationError: the file does not exist, cannot be read as YAML, gives a key twice, or
            does not hold a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigurationError(f"cannot read the configuration '{path}': {reason}") from None
    try:
        content = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigurationError(f"{path}{line}: {problem}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigurationError(f"{path}: expected a mapping of options, found {found}")
    return {str(name): value for name, value in content.items()}


OTHER_NAMES = {
    "split_seed": "valid_set_seed",
    "foundation_model": "start_from",
    "foundation_head": "start_head",
}
"""Second names of options."""

_KEY = "_key"
"""End of the options of MACE that name the key of a property in the data files."""


def canonical_name(spelled: str) -> str:
    """The name of an option that may be spelled with ``-`` or have a second name.

    Args:
        spelled: as the user wrote it; behind a dot stand names that are not spelled otherwise.
    """
    name, dot, path = spelled.partition(".")
    name = name.replace("-", "_")
    return OTHER_NAMES.get(name, name) + dot + path


def is_property_key(name: str) -> bool:
    """Whether an option of MACE names the key of a property: ``energy_key``.

    Args:
        name: with underscores.
    """
    return name.endswith(_KEY) and name not in OPTIONS_OF_MACE


def heads_from_keys(keys: Mapping[str, Any], *, has_heads: bool) -> dict[str, Any]:
    """The block ``heads`` that the options ``<property>_key`` of MACE describe.

    Args:
        keys: the key of the data files by the name of the option.
        has_heads: whether the block is given.

    Returns:
        The option ``heads``; nothing if there are no keys.

    Raises:
        ConfigurationError: the block is given too, or a property does not exist.
    """
    if not keys:
        return {}
    if has_heads:
        raise ConfigurationError(
            f"options {', '.join(map(repr, keys))}: the keys of properties are given in 'heads' "
            "(info_keys and arrays_keys); give them there alone"
        )
    head: dict[str, dict[str, Any]] = {"info_keys": {}, "arrays_keys": {}}
    for option, key in keys.items():
        name = option.removesuffix(_KEY)
        if name not in PROPERTIES:
            raise ConfigurationError(unknown_name("property", name, PROPERTIES))
        head[f"{PROPERTIES[name].places[0]}_keys"][name] = key
    return {"heads": {"Default": head}}
