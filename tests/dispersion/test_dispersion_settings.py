"""Which dispersions there are; what is said of those that there are not."""

from __future__ import annotations

import importlib

import pytest

from mace_scf_jax.dispersion import DispersionError, DispersionSettings, library
from mace_scf_jax.dispersion.library import (
    MissingPackageError,
    UnknownElementError,
    UnknownFunctionalError,
    element_data,
    known_functionals,
)

WATER = (1, 8)


@pytest.fixture
def unread():
    """Nothing has been read of the package."""
    library._parameters.cache_clear()
    element_data.cache_clear()


def test_numbers_of_a_functional():
    """Those of Grimme et al. 2011, table 2."""
    settings = DispersionSettings.of("d3bj", "PBE", WATER)
    found = settings.s6, settings.s8, settings.a1, settings.a2
    assert found == (1.0, 0.7875, 0.4289, 4.4407)
    assert {"pbe", "r2scan", "b3lyp", "wb97m"} <= set(known_functionals())


def test_cutoffs_are_those_of_the_package_or_shorter():
    settings = DispersionSettings.of("d3bj", "pbe", WATER)
    lengths = settings.cutoff, settings.coordination_cutoff, settings.three_body_cutoff
    assert lengths == pytest.approx((31.7506, 21.1671, 21.1671), abs=5e-5)  # as rounded here
    short = DispersionSettings.of("d3bj", "pbe", WATER, cutoff=15.0)
    assert (short.cutoff, short.coordination_cutoff, short.three_body_cutoff) == (15.0,) * 3


@pytest.mark.parametrize(
    ("method", "functional", "elements", "cutoff", "error", "words"),
    [
        ("d3bj", "pbbe", WATER, None, UnknownFunctionalError, "such as pbe, rpbe, pbe0"),
        ("d3bj", "qqq", WATER, None, UnknownFunctionalError, "others, such as pbe, pbesol"),
        ("d3bj", None, WATER, None, DispersionError, "dispersion_functional, such as 'pbe'"),
        ("d3bj", "pbe", (1, 104), None, UnknownElementError, "found Rf; D3 has the .* up to Lr"),
        ("d3bj", "pbe", WATER, -1.0, DispersionError, "a positive length in Å as cutoff"),
        ("d3bi", "pbe", WATER, None, DispersionError, "did you mean 'd3bj'"),
        ("d4", "pbe", WATER, None, DispersionError, "D4 is not part of a model"),
    ],
)
def test_what_is_refused(method, functional, elements, cutoff, error, words):
    with pytest.raises(error, match=words):
        DispersionSettings.of(method, functional, elements, cutoff=cutoff)


def test_a_missing_package_is_named(monkeypatch, unread):
    def import_module(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(MissingPackageError, match=r"pip install 'mace-scf-jax\[dispersion\]'"):
        DispersionSettings.of("d3bj", "pbe", WATER)


def test_values_that_do_not_give_the_energies_of_the_package_are_refused(monkeypatch, unread):
    """As if the layout of its library had changed."""
    read = library._read

    def wrong(elements):
        data = read(elements)
        data.reference_c6[0, 1] *= 1.001
        return data

    monkeypatch.setattr(library, "_read", wrong)
    with pytest.raises(MissingPackageError, match="energies of pairs of atoms differ"):
        element_data(WATER)
