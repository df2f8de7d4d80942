"""Keywords of calculators for ASE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import ase

from mace_scf_jax.predict.use import Options


class ASEOptions(TypedDict, total=False):
    """What all calculators of ASE can be made with."""

    atoms: ase.Atoms | None
    """A structure that gets the calculator."""
    label: str | None
    directory: str


class CalculatorOptions(Options, ASEOptions, total=False):
    """Options of every use of a model, those of ASE's calculators, and keywords of MACE's."""

    model_paths: str | Path | Sequence[str | Path]
    """The model."""
    default_dtype: str
    """Another name of ``dtype``; empty for that of the model."""
    info_keys: Mapping[str, str] | None
    """Part of ``keys``."""
    arrays_keys: Mapping[str, str] | None
    dispersion_xc: str
    """Another name of ``dispersion_functional``; with ``dispersion=True``, by default ``pbe``."""
    damping: str
    """Of the dispersion with ``dispersion=True``: ``bj``."""
    charges_key: str
    """Part of ``keys``: where the charges that some models read of each atom are found."""


OF_MACE = {
    "models": "the model is `model`, the members of a committee are `committee.members`",
    "r_max": "the cutoff is `model.settings.backbone.r_max`",
    "z_table": "the elements are `model.settings.elements`",
    "num_models": "a committee has `committee.members`",
    "model_type": "the family is `model.settings.family`",
}
"""Attributes of MACE's calculator, and what there is in their place."""


def refuse_unnamed(calculator: str, unnamed: Sequence[Any]) -> None:
    """Refuse positional arguments beyond the model.

    Raises:
        TypeError: there are some; says how to give them.
    """
    if unnamed:
        found = ", ".join(map(repr, unnamed))
        raise TypeError(
            f"{calculator}: found {found} after the model; all else is given by its name, such as "
            "device='cpu'"
        )


def in_our_words(
    calculator: str, model: Any, options: Mapping[str, Any]
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Sort keywords of a calculator of models, those of MACE's calculators among them.

    Args:
        calculator: its name, for messages.

    Returns:
        Model, options of its use, and options of ASE's calculators.

    Raises:
        TypeError: something is given twice, or there is no model.
    """
    given = dict(options)
    of_ase = {option: given.pop(option) for option in ASEOptions.__annotations__ if option in given}
    keys = {**(given.pop("info_keys", None) or {}), **(given.pop("arrays_keys", None) or {})}
    if "charges_key" in given:
        keys["charges"] = given.pop("charges_key")
    _dispersion_in_our_words(calculator, given)
    twice = (
        ("keys", "info_keys, arrays_keys or charges_key", keys),
        ("dtype", "default_dtype", given.pop("default_dtype", None) or None),
    )
    for ours, other, value in twice:
        if value and given.get(ours) is not None:
            raise TypeError(f"{calculator}: found both {ours} and {other}, expected one of them")
        if value:
            given[ours] = value
    paths = given.pop("model_paths", None)
    if isinstance(paths, list | tuple) and len(paths) == 1:
        (paths,) = paths
    if (model is None) == (paths is None):
        raise TypeError(
            f"{calculator}: expected one model, found {'none' if paths is None else 'two'}"
        )
    return (paths if model is None else model), given, of_ase


def _dispersion_in_our_words(calculator: str, given: dict[str, Any]) -> None:
    """Replace what MACE's calculators are told of dispersion.

    Raises:
        TypeError: a functional is given twice.
        ValueError: the damping is none of ours.
    """
    damping, functional = given.pop("damping", None), given.pop("dispersion_xc", None)
    if damping not in (None, "bj"):
        raise ValueError(f"damping: found {damping!r}, expected 'bj' (Becke and Johnson)")
    if functional is not None and given.get("dispersion_functional") is not None:
        raise TypeError(
            f"{calculator}: found both dispersion_functional and dispersion_xc, expected one of "
            "them"
        )
    if given.get("dispersion") is True:
        given["dispersion"] = "d3bj"
        if given.get("dispersion_functional") is None:
            given["dispersion_functional"] = functional or "pbe"
    elif given.get("dispersion") is False:
        given["dispersion"] = None
    elif functional is not None:
        given["dispersion_functional"] = functional
