"""What is known of elements and functionals, read from the installed package ``dftd3``.

Damping parameters are in its data base. Reference values of the elements are only in its compiled
library, of which we call the functions that give them; what comes out is compared with energies
that the package computes, before it is used.
"""

from __future__ import annotations

import ctypes
import dataclasses
import difflib
import functools
import importlib
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float

_MOST_REFERENCES = 7
_MOST_ELEMENTS = 103
_GAUSSIANS = 4.0
_LIKE_IT = 5
"""Functionals that a message lists."""


class MissingPackageError(ImportError):
    """The package that has the data is not installed, or is of a version that cannot be read."""


class UnknownFunctionalError(ValueError):
    """There are no parameters for a density functional."""


class UnknownElementError(ValueError):
    """There are no reference values for an element."""


@dataclasses.dataclass(frozen=True, eq=False)
class ElementData:
    """Reference values of some elements, in atomic units."""

    reference_coordination: Float[np.ndarray, "elements references"]
    """Coordination number of each reference system; NaN where an element has fewer."""
    reference_c6: Float[np.ndarray, "elements elements references references"]
    """C6 of two reference systems; 0 where there is none."""
    r4_over_r2: Float[np.ndarray, "elements"]
    """√(½ √Z ⟨r⁴⟩/⟨r²⟩), of which products give C8/C6."""
    covalent_radii: Float[np.ndarray, "elements"]
    """Bohr, times 4/3."""
    pair_radii: Float[np.ndarray, "elements elements"]
    """Bohr: cutoff radii R0 of pairs, of the damping of the three-body term."""


def damping_parameters(functional: str) -> dict[str, float]:
    """Parameters s6, s8, a1, a2 (bohr) of the Becke–Johnson damping for a density functional.

    Args:
        functional: name in lower case.

    Raises:
        MissingPackageError: the package is not installed.
        UnknownFunctionalError: there are none for it; names those like it.
    """
    base, known = _parameters()
    if functional not in known:
        alike = difflib.get_close_matches(functional, known, n=_LIKE_IT, cutoff=0.5)
        listed = ", ".join(alike or ("pbe", "pbesol", "revpbe", "rpbe", "scan", "r2scan", "b3lyp"))
        raise UnknownFunctionalError(
            f"dispersion_functional: found {functional!r}, for which the package dftd3 has no "
            f"parameters of the Becke–Johnson damping; it has those of {len(known)} others, such "
            f"as {listed}"
        )
    values = base | known[functional]
    return {name: float(values[name]) for name in ("s6", "s8", "a1", "a2")}


def known_functionals() -> tuple[str, ...]:
    """Names of all density functionals with parameters of the Becke–Johnson damping."""
    return tuple(sorted(_parameters()[1]))


@functools.lru_cache(maxsize=1)
def _parameters() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    from_package = _package("parameters.toml")
    content = tomllib.loads(from_package.read_text(encoding="utf-8"))
    with_damping = {
        name.lower(): entry["d3"]["bj"]
        for name, entry in content["parameter"].items()
        if "bj" in entry.get("d3", {})
    }
    return content["default"]["parameter"]["d3"]["bj"], with_damping


def _package(file: str) -> Path:
    """A data file of the package, beside it or in the ``share`` of its environment."""
    folder = Path(_imported("dftd3").__file__).parent
    places = (folder / file, *(parent / "share" / "s-dftd3" / file for parent in folder.parents))
    for place in places:
        if place.is_file():
            return place
    raise MissingPackageError(f"dispersion: found no {file} in the package dftd3 in {folder}")


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            "dispersion: the package dftd3, which has the parameters, cannot be imported "
            f"({error}): pip install 'mace-scf-jax[dispersion]'"
        ) from None


@functools.lru_cache(maxsize=8)
def element_data(elements: Sequence[int]) -> ElementData:
    """Reference values of elements.

    Args:
        elements: atomic numbers.

    Raises:
        MissingPackageError: the package is not installed, or this version of it does not give the
            values that its energies are made of.
        UnknownElementError: names those without any.
    """
    beyond = [chemical_symbols[z] for z in elements if not 1 <= z <= _MOST_ELEMENTS]
    if beyond:
        raise UnknownElementError(
            f"dispersion: found {', '.join(beyond)}; D3 has the elements up to "
            f"{chemical_symbols[_MOST_ELEMENTS]}"
        )
    try:
        data = _read(elements)
    except (AttributeError, ValueError) as error:
        raise MissingPackageError(_wrong_version(str(error))) from None
    _compare(data, elements)
    return data


def _read(elements: Sequence[int]) -> ElementData:
    """The values as the compiled library has them, in modules of its Fortran."""
    library = ctypes.CDLL(_imported("dftd3._libdftd3").__file__)

    def of(module: str, name: str) -> str:
        return f"__{module}_MOD_{name}"

    def number(modules: Sequence[str], name: str) -> Callable[..., float]:
        places = [of(module, name) for module in modules]
        function = getattr(library, next((each for each in places if hasattr(library, each)), name))
        function.restype = ctypes.c_double
        return lambda *given: function(*(ctypes.byref(ctypes.c_int(value)) for value in given))

    getattr(library, of("dftd3_reference", "init_reference_c6"))()
    counts = (ctypes.c_int * _MOST_ELEMENTS).in_dll(
        library, of("dftd3_reference", "number_of_references")
    )
    coordination = (ctypes.c_double * (_MOST_REFERENCES * _MOST_ELEMENTS)).in_dll(
        library, of("dftd3_reference", "reference_cn")
    )
    c6_of = number(["dftd3_reference"], "get_c6")
    r4_over_r2 = number(["dftd3_data_r4r2"], "get_r4r2_val_num")
    covalent = number(["mctc_data_covrad", "dftd3_data_covrad"], "get_covalent_rad_num")
    van_der_waals = number(["dftd3_data_vdwrad"], "get_vdw_rad_pair_num")

    size, most = len(elements), max(counts[z - 1] for z in elements)
    reference_coordination = np.full((size, most), np.nan)
    reference_c6 = np.zeros((size, size, most, most))
    pair_radii = np.zeros((size, size))
    for i, z in enumerate(elements):
        first = (z - 1) * _MOST_REFERENCES
        reference_coordination[i, : counts[z - 1]] = coordination[first : first + counts[z - 1]]
        for j, other in enumerate(elements[: i + 1]):
            pair_radii[i, j] = pair_radii[j, i] = van_der_waals(z, other)
            for a in range(counts[z - 1]):
                for b in range(counts[other - 1]):
                    value = c6_of(a + 1, b + 1, z, other)
                    reference_c6[i, j, a, b] = reference_c6[j, i, b, a] = value
    return ElementData(
        reference_coordination=reference_coordination,
        reference_c6=reference_c6,
        r4_over_r2=np.array([r4_over_r2(z) for z in elements]),
        covalent_radii=np.array([covalent(z) for z in elements]),
        pair_radii=pair_radii,
    )


def _compare(data: ElementData, elements: Sequence[int]) -> None:
    """Compare with energies of the package, of pairs of all the elements that count no neighbours.

    Raises:
        MissingPackageError: they differ.
    """
    interface = _imported("dftd3.interface")
    size = len(elements)
    positions = np.zeros((size, 3))
    positions[:, 0] = 7.0 * np.arange(size)  # bohr
    model = interface.DispersionModel(np.array(elements), positions)
    model.set_realspace_cutoff(1e6, 1e-3, 1e-3)
    damping = {"s6": 1.0, "s8": 0.8, "a1": 0.4, "a2": 4.5, "s9": 0.0}
    found = model.get_pairwise_dispersion(interface.RationalDampingParam(**damping))

    weights = np.exp(-_GAUSSIANS * np.nan_to_num(data.reference_coordination, nan=1e3) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    c6 = np.einsum("ia,ijab,jb->ij", weights, data.reference_c6, weights)
    ratio = 3.0 * np.outer(data.r4_over_r2, data.r4_over_r2)
    radius = damping["a1"] * np.sqrt(ratio) + damping["a2"]
    distance = np.abs(positions[:, None, 0] - positions[None, :, 0])
    terms = damping["s6"] / (distance**6 + radius**6)
    terms += damping["s8"] * ratio / (distance**8 + radius**8)
    expected = -0.5 * c6 * terms * (1.0 - np.eye(size))  # half of a pair for each of its atoms
    pairs = np.asarray(found["additive pairwise energy"])
    if not np.allclose(pairs, expected, rtol=1e-9, atol=1e-16):
        raise MissingPackageError(_wrong_version("energies of pairs of atoms differ"))


def _wrong_version(reason: str) -> str:
    version = getattr(_imported("dftd3.library"), "get_api_version", lambda: "of unknown version")()
    return (
        f"dispersion: cannot read the reference values of dftd3 {version} ({reason}); versions 1.2 "
        "to 1.7 of the wheels on PyPI can be read: pip install 'mace-scf-jax[dispersion]'"
    )
