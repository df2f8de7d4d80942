from __future__ import annotations

import numpy as np
import pytest

from mace_scf_jax.data import statistics
from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.sets import StructuresInMemory
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.stack import stack
from mace_scf_jax.data.statistics import (
    average_number_of_neighbours,
    scale_and_shift,
    surplus_charges,
)
from mace_scf_jax.data.structure import prepare

from .builders import configuration, labelled, labelled_atoms, structure

E0S = np.array([-13.0, -2038.0])
ELEMENTS = (1, 8)


TRAIN = [
    labelled(-2064.0 + 3.0, 1.0),
    labelled(-2064.0 + 9.0, 2.0),
    labelled(1e6, 1e6, config_energy_weight=0.0, config_forces_weight=0.0),
]


def test_average_number_of_neighbours_leaves_out_lonely_atoms() -> None:
    # Within 1.3 Å the oxygen of a water-like molecule has two neighbours, each hydrogen one.
    pair = structure(0, cutoff=1.3)
    assert sorted(pair.neighbour_counts().tolist()) == [1, 1, 2]
    lonely = structure(1, cutoff=0.1)
    assert average_number_of_neighbours(StructureSizes.of(stack([pair, lonely]))) == pytest.approx(
        4.0 / 3.0, rel=1e-14
    )
    with pytest.raises(DataError, match="no atom with a neighbour"):
        average_number_of_neighbours(StructureSizes.of(stack([lonely])))


@pytest.mark.parametrize("at_once", [1, 256])
def test_formal_charges_are_compared_with_labelled_total_charges(monkeypatch, at_once) -> None:
    monkeypatch.setattr(statistics, "STACKED_AT_ONCE", at_once)
    members = [labelled_atoms(0), labelled_atoms(1, num_molecules=2), labelled_atoms(2)]
    members[1].info["total_charge"] = 1.0
    members[2].info["config_total_charge_weight"] = 0.0
    structures = StructuresInMemory(
        prepare(configuration(atoms), elements=ELEMENTS, cutoff=3.0) for atoms in members
    )
    assert surplus_charges(structures, [1.0, -1.5]) == pytest.approx([0.5, 0.0], abs=1e-14)
    assert surplus_charges(structures, None) == pytest.approx([0.0, -1.0], abs=1e-14)


def test_scale_and_shift_use_labelled_configurations_only() -> None:
    # Interaction energies per atom are 1 and 3 eV.
    assert scale_and_shift(Catalogue.of(TRAIN), E0S, ELEMENTS, "std_scaling") == pytest.approx(
        (np.sqrt(2.0), 2.0), rel=1e-9
    )
    assert scale_and_shift(
        Catalogue.of(TRAIN), E0S, ELEMENTS, "rms_forces_scaling"
    ) == pytest.approx((np.sqrt(2.5), 2.0), rel=1e-9)
    assert scale_and_shift(Catalogue.of(TRAIN), E0S, ELEMENTS, "no_scaling") == (1.0, 0.0)


@pytest.mark.parametrize(
    ("train", "scaling", "message"),
    [
        (TRAIN[2:], "std_scaling", "no training configuration with an energy"),
        (TRAIN[:1], "std_scaling", "scale of zero"),
        (
            [labelled(-2060.0, 1.0, config_forces_weight=0.0)],
            "rms_forces_scaling",
            "no training configuration with forces",
        ),
        (TRAIN, "max_scaling", "found 'max_scaling', expected std_scaling"),
    ],
)
def test_impossible_scalings_are_refused(train: list, scaling: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        scale_and_shift(Catalogue.of(train), E0S, ELEMENTS, scaling)


def test_source_of_formal_charges() -> None:
    assert statistics.describe_formal_charges((1.0, -2.0)) == "Formal charges: [1.0, -2.0]"
    found = statistics.describe_formal_charges(None)
    assert found == "Formal charges: of each atom, from the data"
