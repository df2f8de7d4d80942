"""Total charge and spin that the backbone embeds beside the elements."""

from __future__ import annotations

import dataclasses

import ase
import numpy as np
import pytest
from tiny_models import molecule, tiny_model

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.predict.suitability import MultiplicityWarning, unread_inputs

SPECS = (
    ("total_spin", (("type", "categorical"), ("num_classes", 5), ("emb_dim", 3))),
    ("total_charge", (("type", "categorical"), ("num_classes", 5), ("emb_dim", 3), ("offset", 2))),
)


def model():
    specs = tuple({"name": name, **dict(entries)} for name, entries in SPECS)
    return tiny_model("ScaleShiftMACE", embedding_specs=Hashable(specs), use_embedding_readout=True)


class Hashable(tuple):
    """Plain data as an argument of a cached function."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash(repr(self))


def with_info(**info: float) -> ase.Atoms:
    atoms = molecule()
    atoms.info = info
    return atoms


def test_charge_and_spin_change_the_energy():
    given = [{"total_charge": 1}, {"total_charge": 1, "total_spin": 1}, {"total_spin": 2}]
    given.append({"total_spin": 4})
    energies = [entry["energy"] for entry in model().predict([with_info(**it) for it in given])]
    assert energies[0] == energies[1]
    assert len(set(energies)) == 3
    assert unread_inputs(model().settings) == ("fermi_level", "external_field")


def test_electrons_that_cannot_have_their_multiplicity_are_told_once():
    odd = [with_info(total_charge=0), with_info(total_charge=1, total_spin=2)]
    fresh = dataclasses.replace(model())
    with pytest.warns(MultiplicityWarning, match="19 electrons .* the multiplicity 1") as warned:
        fresh.predict(odd, forces=False)
    assert len(warned) == 1


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ({"total_charge": 3.0}, "total_charge: .* whole numbers from -2 to 2, found 3"),
        ({"total_charge": 0.5}, "total_charge: .* whole numbers from -2 to 2, found 0.5"),
        ({"total_spin": 5}, "total_spin: .* whole numbers from 0 to 4, found 5"),
    ],
)
def test_values_without_an_embedding_are_refused(info, message):
    with pytest.raises(DataError, match=message):
        model().predict([with_info(**info)])


def test_energies_of_inputs_do_not_depend_on_the_geometry():
    far = with_info(total_charge=1)
    far.positions *= 50.0
    other = with_info(total_charge=1)
    other.positions[0] *= 0.0
    other.positions += 100.0 * np.arange(len(other))[:, None]
    one, two = model().predict([far, other])
    np.testing.assert_allclose(one["energy"], two["energy"], rtol=1e-12)
