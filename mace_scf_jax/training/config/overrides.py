"""Single members of mappings, given by their path: ``train_schedule.0.end``, ``E0s.H``."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.options.values import parse_literal

SCHEDULE = "train_schedule"


def with_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The options with members of their mappings replaced or added.

    A stage of ``train_schedule`` may be called by its number or its name. Where the ``end`` of a
    stage is replaced, the stages behind it move along and keep their lengths.

    Args:
        values: options by name; a mapping may be given as text.
        overrides: values, or the text of them, by path.

    Raises:
        ConfigurationError: a path leads nowhere.
    """
    changed = dict(values)
    for name in dict.fromkeys(path.partition(".")[0] for path in overrides):
        value = changed.get(name)
        value = parse_literal(value) if isinstance(value, str) else copy.deepcopy(value)
        if name == SCHEDULE and not isinstance(value, Mapping):
            raise ConfigurationError(f"{SCHEDULE}: found none of which a stage could be changed")
        changed[name] = {} if value is None else value
    ends = dict(_ends(changed.get(SCHEDULE, {})))
    for path, value in overrides.items():
        _set(changed, path, parse_literal(value) if isinstance(value, str) else value)
    if SCHEDULE in changed and any(path.startswith(f"{SCHEDULE}.") for path in overrides):
        _close_up(changed[SCHEDULE], ends, {_place(changed[SCHEDULE], path) for path in overrides})
    return changed


def _set(values: dict[str, Any], path: str, value: Any) -> None:
    """Replace or add the member at a path."""
    where: Any = values
    *parents, last = path.split(".")
    for depth, part in enumerate(parents):
        key = _key(where, part)
        if key not in where and depth > 0:
            if parents[0] == SCHEDULE and depth == 1:
                known = [f"{index} ({block.get('name')})" for index, block in where.items()]
                raise ConfigurationError(
                    f"{path}: found the stages {', '.join(known)}, not {part!r}"
                )
            where[key] = {}
        where = where[key]
        if not isinstance(where, dict):
            raise ConfigurationError(
                f"{path}: {'.'.join(parents[: depth + 1])!r} is no mapping, found {where!r}"
            )
    key = _key(where, last)
    if isinstance(where.get(key), Mapping) and not isinstance(value, Mapping):
        members = ", ".join(f"{path}.{name}" for name in where[key])
        raise ConfigurationError(f"{path}: is a mapping; name one of its members: {members}")
    where[key] = value


def _key(mapping: Mapping[Any, Any], part: str) -> Any:
    """The key that a part of a path means: as text, or by the name of the stage."""
    for key, block in mapping.items():
        if str(key) == part or (isinstance(block, Mapping) and block.get("name") == part):
            return key
    return part


def _ends(schedule: Any) -> list[tuple[Any, Any]]:
    """The last epoch of each stage by its number, as far as there are any."""
    if not isinstance(schedule, Mapping):
        return []
    return [
        (key, block.get("end")) for key, block in schedule.items() if isinstance(block, Mapping)
    ]


def _place(schedule: Mapping[Any, Any], path: str) -> tuple[Any, ...]:
    """The number of a stage and the name of its member that a path leads to."""
    _, *parts = path.split(".")
    return (_key(schedule, parts[0]), *parts[1:]) if parts else ()


def _close_up(schedule: dict[Any, Any], ends: Mapping[Any, Any], given: set[tuple]) -> None:
    """Move the stages behind one whose end was replaced."""
    shift = 0
    for number, stage in schedule.items():
        if not all(isinstance(stage.get(name), int) for name in ("start", "end")):
            return  # what is wrong with it is told when it is read
        if (number, "start") not in given:
            stage["start"] += shift
        if (number, "end") not in given:
            stage["end"] += shift
        elif isinstance(ends.get(number), int):
            shift = stage["end"] - ends[number]
