"""The training options of the family FixedPoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from ase.data import atomic_numbers
from pydantic import BeforeValidator, Field

from mace_scf_jax.models.families.fixed_point.choices import (
    FIELD_READOUTS,
    NONLINEARITIES,
    POTENTIAL_EMBEDDINGS,
    UPDATES,
)
from mace_scf_jax.models.field_feature_options import AVERAGE, positive_numbers
from mace_scf_jax.options.group import OptionGroup
from mace_scf_jax.options.values import Literally, NoneInText, Number
from mace_scf_jax.registry import unknown_name

UPDATE_CHOICES: dict[str, tuple[str, ...]] = {
    "type": UPDATES,
    "potential_embedding_cls": POTENTIAL_EMBEDDINGS,
    "nonlinearity_cls": NONLINEARITIES,
}
UPDATE_DEFAULTS: dict[str, Any] = {
    "type": "OneBodyVariableUpdate",
    "potential_embedding_cls": "BiasedLinearPotentialEmbedding",
    "nonlinearity_cls": "NoNonLinearity",
    "correlation": 1,
    "use_sc": True,
}


def _checked_choices(
    block: Any, choices: Mapping[str, Collection[str]], known: Collection[str]
) -> dict[str, Any]:
    """A mapping with ``type`` whose keys and names of classes are known."""
    if not isinstance(block, Mapping):
        raise ValueError(f"expected a mapping with 'type', found {block!r}")
    problems = [unknown_name("key", key, known) for key in block if key not in known]
    if "type" not in block:
        problems.append(f"must contain 'type', one of {', '.join(choices['type'])}")
    problems += [
        unknown_name(key, str(block[key]), names)
        for key, names in choices.items()
        if key in block and block[key] not in names
    ]
    if problems:
        raise ValueError("; ".join(problems))
    return dict(block)


def _update_config(block: Any) -> dict[str, Any]:
    given = UPDATE_DEFAULTS | _checked_choices(block, UPDATE_CHOICES, tuple(UPDATE_DEFAULTS))
    if isinstance(given["correlation"], bool) or given["correlation"] not in (1, 2, 3, 4):
        raise ValueError(f"correlation: expected 1, 2, 3 or 4, found {given['correlation']!r}")
    if not isinstance(given["use_sc"], bool):
        raise ValueError(f"use_sc: expected true or false, found {given['use_sc']!r}")
    return given


def _readout_config(block: Any) -> dict[str, Any]:
    return _checked_choices(block, {"type": FIELD_READOUTS}, ("type",))


def _scaling(value: Any) -> Any:
    """``average``, None, or numbers by atomic number; symbols are numbers too."""
    if value in (None, AVERAGE):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"expected average, None or {{element: number}}, found {value!r}")
    numbers = positive_numbers(value, value)
    try:
        return {int(atomic_numbers.get(key, key)): number for key, number in numbers.items()}
    except (TypeError, ValueError):
        raise ValueError(f"expected {{element: number}}, found {value!r}") from None


class FixedPointOptions(OptionGroup):
    """Self-consistent multipoles (FixedPoint)"""

    decide_weights = False

    fermi_level_offset: Annotated[Number | None, NoneInText] = Field(
        default=None,
        description="Fermi level that causes no field features, in eV (default: mean of the "
        "training set)",
    )
    fixedpoint_update_config: Annotated[
        dict[str, Any], BeforeValidator(_update_config), Literally
    ] = Field(
        default=UPDATE_DEFAULTS,
        description="how multipoles answer a potential: {type, potential_embedding_cls, "
        "nonlinearity_cls; ManyBodyUpdate also: correlation, use_sc}",
    )
    field_readout_config: Annotated[dict[str, Any], BeforeValidator(_readout_config), Literally] = (
        Field(
            default={"type": "StrictQuadraticFieldEnergyReadout"},
            description="energy of the multipoles in their potential: {type}",
        )
    )
    use_linear_local_charges: bool = Field(
        default=False, description="read the local multipoles linearly, scaled by element"
    )
    atom_density_scaling: Annotated[
        dict[int, float] | Literal["average"] | None,
        BeforeValidator(_scaling),
        Literally,
        NoneInText,
    ] = Field(
        default=None,
        description="scale of linear local multipoles and of scaled updates: {element: number}; "
        "average: root mean square of the reference multipoles; None: 1",
    )
    scf_convergence_summary: bool = Field(
        default=True, description="report at the end how well linear mixing converges"
    )
    skip_scf_convergence_summary: bool = Field(
        default=False, description="the opposite of scf_convergence_summary"
    )
