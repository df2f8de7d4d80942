"""How a model is used: one table of options for all functions, calculators and commands."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, get_args, get_type_hints

import numpy as np

from mace_scf_jax.boundary import BoundaryMode
from mace_scf_jax.data.keys import Keys
from mace_scf_jax.dispersion.settings import METHODS, NO_DISPERSION, DispersionSettings
from mace_scf_jax.electrostatics.choices import SummationMethod
from mace_scf_jax.registry import nearest

if TYPE_CHECKING:
    import jax

    from mace_scf_jax.models import DirectStep, ModelSettings, SelfConsistency

SCFHistory = Literal["none", "absolute_change", "full_history"]
"""What is written of the way to self-consistent multipoles."""
PLATFORMS = ("cpu", "cuda")
"""Kinds of devices that a file is made for unless told otherwise."""
Aggregation = Literal["mean", "reference"]
"""What a committee predicts: the means over its members, or what one of them does."""
PRECISIONS = ("float32", "float64")
SURPLUS = ("origin", "centre", "uniform")
"""Places of charge beyond the total charge, see `Model.with_surplus`."""


@dataclasses.dataclass(frozen=True)
class Option:
    """What is to be said about an option, for its users and for the command line."""

    meaning: str
    choices: tuple[str, ...] = ()
    metavar: str | None = None
    is_flag: bool = False
    """Whether it is a truth value, ``--name`` or ``--no-name``."""


class Options(TypedDict, total=False):
    """Options of every use of a model, each None, or left out, for what the model says."""

    scf: SelfConsistency | DirectStep | None
    """How the multipoles of a self-consistent model are solved for."""
    sums: Annotated[
        SummationMethod | str | None,
        Option(
            "how periodic Coulomb sums are done: direct, over wavevectors; on a mesh; auto: by the "
            "number of atoms",
            tuple(method.value for method in SummationMethod),
        ),
    ]
    mesh_accuracy: Annotated[
        float | None,
        Option("relative accuracy of energies, forces and features with a mesh", metavar="X"),
    ]
    pbc_handling: Annotated[
        BoundaryMode | str | None,
        Option(
            "boundary condition of the electrostatics, in place of that of the training",
            tuple(mode.value for mode in BoundaryMode if mode is not BoundaryMode.AUTO),
        ),
    ]
    surplus: Annotated[
        str | None,
        Option(
            "what becomes of predicted charge beyond the total charge: it is referred to the "
            "origin, or to the centre of the atoms, or taken from all atoms alike",
            SURPLUS,
        ),
    ]
    eps_infty: Annotated[
        float | None,
        Option(
            "dielectric constant ε∞: dipoles, Born charges and the action of a field are those of "
            "√ε∞ times the multipoles",
            metavar="X",
        ),
    ]
    keep_neutral: Annotated[
        bool | None,
        Option("let forces in a field add up to those on the total charge", is_flag=True),
    ]
    dispersion: Annotated[
        str | None,
        Option(
            "dispersion energy that is added to what the model has learned, or in place of that in "
            "the model file: D3 with Becke–Johnson damping, also with the three-body term; none: "
            "without",
            (*METHODS, NO_DISPERSION),
        ),
    ]
    dispersion_functional: Annotated[
        str | None,
        Option("density functional whose parameters the dispersion has, such as pbe", metavar="XC"),
    ]
    dispersion_cutoff: Annotated[
        float | None,
        Option(
            "distance in Å up to which pairs of atoms are summed (31.75; neighbours are counted to "
            "21.17 at most)",
            metavar="Å",
        ),
    ]
    dtype: Annotated[
        Any, Option("precision of weights and of what is computed with them", PRECISIONS)
    ]
    device: Annotated[
        str | None,
        Option("where to compute, such as cpu, cuda or cuda:1", metavar="NAME"),
    ]
    keys: Annotated[
        Keys | None,
        Option(
            "where total_charge, external_field, … are found, such as '{total_charge: charge}'; "
            "in place of the keys of the training, name by name",
            metavar="MAPPING",
        ),
    ]
    head: Annotated[
        str | None,
        Option("name of the head: of a model of several levels of theory, one", metavar="NAME"),
    ]


OPTIONS: Mapping[str, Option | None] = {
    name: next((entry for entry in get_args(hint) if isinstance(entry, Option)), None)
    for name, hint in get_type_hints(
        Options, localns={"SelfConsistency": Any, "DirectStep": Any}, include_extras=True
    ).items()
}
"""All options by name; None where the command line says it in its own words."""

DISPERSION_OPTIONS = ("dispersion", "dispersion_functional", "dispersion_cutoff")
"""Options of `with_dispersion`."""

_OF_A_STRUCTURE = "belongs to the structure: atoms.info[{key!r}] = …"
_INSTEAD = {
    "total_charge": _OF_A_STRUCTURE.format(key="total_charge"),
    "charge": _OF_A_STRUCTURE.format(key="total_charge"),
    "external_field": _OF_A_STRUCTURE.format(key="external_field"),
    "electric_field": _OF_A_STRUCTURE.format(key="external_field"),
    "total_spin": _OF_A_STRUCTURE.format(key="total_spin"),
    "spin": _OF_A_STRUCTURE.format(key="total_spin"),
    "fermi_level": _OF_A_STRUCTURE.format(key="fermi_level"),
    "model_type": "is what the model file says",
    "compile_mode": "is not needed: everything is compiled",
    "fullgraph": "is not needed: everything is compiled",
    "use_compile": "is not needed: everything is compiled",
    "dispersion_xc": "is called dispersion_functional",
    "functional": "is called dispersion_functional",
    "damping": "is part of dispersion: 'd3bj'",
    "enable_cueq": "has no kernels here: leave it out",
    "enable_oeq": "has no kernels here: leave it out",
    "energy_units_to_eV": "is not there: energies are in eV",
    "length_units_to_A": "is not there: lengths are in Å",
    "boundary": "is called pbc_handling",
    "electrostatic_pbc_method": "is called pbc_handling",
    "precision": "is called dtype",
    "solver": "is part of scf=SelfConsistency(solver=…)",
    "fmax": "belongs to the optimiser",
}
"""What to do instead of giving a keyword that does not exist."""

_ELSEWHERE = "models stay as they are; model.using({}) is one that is used in another way"
_NO_MODE = "models have no mode of training; leave it out"
OF_MODULES = {
    "to": _ELSEWHERE.format("device='cuda', dtype='float32'"),
    "cuda": _ELSEWHERE.format("device='cuda'"),
    "cpu": _ELSEWHERE.format("device='cpu'"),
    "float": _ELSEWHERE.format("dtype='float32'"),
    "double": _ELSEWHERE.format("dtype='float64'"),
    "eval": _NO_MODE,
    "train": f"{_NO_MODE}. mace_scf_jax.train(…) trains",
    "forward": "model.predict(atoms) computes",
    "state_dict": "weights are `model.parameters`",
    "r_max": "the cutoff is `model.settings.backbone.r_max`",
    "atomic_numbers": "the elements are `model.settings.elements`",
}
"""Attributes of PyTorch's modules, and what to do instead."""


def refuse_unknown(owner: str, given: Iterable[str], known: Iterable[str] = OPTIONS) -> None:
    """Refuse keywords that would have no effect.

    Args:
        owner: what was called.
        given: keywords.
        known: those that it has.

    Raises:
        TypeError: names the first one that is unknown, and what to do instead.
    """
    for name in given:
        if name not in known:
            guess = nearest(name, known)
            hint = _INSTEAD.get(name) or (f"did you mean {guess!r}?" if guess else "")
            end = f"it {hint}" if name in _INSTEAD else hint or f"known are {', '.join(known)}"
            raise TypeError(f"{owner}: unknown keyword {name!r}; {end}")


def no_attribute(owner: object, name: str, instead: Mapping[str, str]) -> AttributeError:
    """The error of an attribute that there is not.

    Args:
        owner: what was asked for it.
        name: the attribute.
        instead: what to do instead, by name.
    """
    text = f"{type(owner).__name__!r} object has no attribute {name!r}"
    return AttributeError(f"{text}: {instead[name]}" if name in instead else text)


def with_electrostatics(
    settings: ModelSettings,
    *,
    sums: SummationMethod | str | None = None,
    mesh_accuracy: float | None = None,
    pbc_handling: BoundaryMode | str | None = None,
    eps_infty: float | None = None,
    keep_neutral: bool | None = None,
) -> ModelSettings:
    """Settings with the electrostatics done in another way; see `Options`.

    Raises:
        ValueError: there is no such way, or the model has no electrostatics.
    """
    given = {
        "sums": sums,
        "mesh_accuracy": mesh_accuracy,
        "boundary": pbc_handling,
        "eps_infty": eps_infty,
        "keep_neutral": keep_neutral,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    if not changes:
        return settings
    if settings.electrostatics is None:
        name = next(iter(changes)).replace("boundary", "pbc_handling")
        raise ValueError(
            f"{name}: expected a model with electrostatics, found one of the family "
            f"{settings.family}"
        )
    if changes.get("boundary") == BoundaryMode.AUTO:
        raise ValueError(
            "pbc_handling: expected a boundary condition, found 'auto', which training resolves"
        )
    electrostatics = dataclasses.replace(settings.electrostatics, **changes)
    return dataclasses.replace(settings, electrostatics=electrostatics)


def with_dispersion(
    settings: ModelSettings,
    *,
    dispersion: str | None = None,
    dispersion_functional: str | None = None,
    dispersion_cutoff: float | None = None,
) -> ModelSettings:
    """Settings with another dispersion; see `Options`.

    Raises:
        ValueError: there is no such method or functional, or no dispersion to say more about.
        MissingPackageError: the package that has the parameters is not installed.
    """
    own = settings.dispersion
    if dispersion is None and own is not None:
        dispersion = own.method
    if dispersion is None or dispersion == NO_DISPERSION:
        said = {
            "dispersion_functional": dispersion_functional,
            "dispersion_cutoff": dispersion_cutoff,
        }
        for name, value in said.items():
            if value is not None:
                raise ValueError(
                    f"{name}: found {value!r} without dispersion, expected {' or '.join(METHODS)} "
                    "as dispersion"
                )
        return dataclasses.replace(settings, dispersion=None)
    if own is not None:
        dispersion_functional = dispersion_functional or own.functional
        dispersion_cutoff = own.cutoff if dispersion_cutoff is None else dispersion_cutoff
    chosen = DispersionSettings.of(
        dispersion, dispersion_functional, settings.elements, cutoff=dispersion_cutoff
    )
    return dataclasses.replace(settings, dispersion=chosen)


def cast(parameters: Any, dtype: Any) -> Any:
    """Parameters in another precision.

    Raises:
        ValueError: it is neither float32 nor float64.
    """
    try:
        name = np.dtype(dtype).name
    except TypeError:
        name = str(dtype)
    if name not in PRECISIONS:
        raise ValueError(f"dtype: expected {' or '.join(PRECISIONS)}, found {name!r}")
    import jax  # of those who have parameters

    return jax.tree.map(lambda leaf: leaf.astype(name), parameters)


def device_named(name: str) -> jax.Device:
    """The device of a name such as ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        ValueError: this machine has none of that name.
    """
    import jax

    kind, _, number = name.partition(":")
    try:
        return jax.local_devices(backend=kind)[int(number or 0)]
    except (RuntimeError, ValueError, IndexError):
        found = {f"{each.platform}:{each.id}" for each in (*jax.devices("cpu"), *jax.devices())}
        raise ValueError(
            f"device: found {name!r}, expected one of {', '.join(sorted(found))}"
            + advice_on_device(kind)
        ) from None


def advice_on_device(kind: str) -> str:
    """What to do where JAX does not find a kind of devices, as the end of a sentence."""
    if kind not in ("cuda", "gpu"):
        return ""
    return "; JAX finds NVIDIA GPUs when it is installed for them: pip install 'jax[cuda13]'"


def check_further(settings: ModelSettings, further: Iterable[str]) -> None:
    """Refuse outputs on request that a model does not have.

    Args:
        further: their names.

    Raises:
        ValueError: names the first one.
    """
    for name in further:
        if name not in settings.backbone.on_request:
            known = ", ".join(settings.backbone.on_request) or "none"
            raise ValueError(
                f"further outputs: expected some of those that the backbone "
                f"{settings.backbone.name} of this model gives on request ({known}), found {name!r}"
            )


def check_head(head: str, heads: Mapping[str, Any] | None) -> None:
    """Refuse the name of a head that a model does not have.

    Args:
        heads: of its training, by name; None where it does not tell.

    Raises:
        ValueError: the model has another one.
    """
    (name,) = heads or ("Default",)
    if head.lower() not in (name.lower(), "default"):
        raise ValueError(f"head: found {head!r}, expected {name!r}, the only head of this model")
