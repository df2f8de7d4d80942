from __future__ import annotations

from mace_scf_jax.data import summary


def test_source_of_formal_charges() -> None:
    assert summary.formal_charges((1.0, -2.0)) == "Formal charges: [1.0, -2.0]"
    assert summary.formal_charges(None) == "Formal charges: of each atom, from the data"
