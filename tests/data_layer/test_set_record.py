from __future__ import annotations

import json

import numpy as np
import pytest

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.stack import stack
from mace_scf_jax.data.statistics import set_record

from .builders import labelled, structure

E0S = {"elements": (1, 8), "atomic_energies": np.array([-13.0, -2038.0])}


def test_statistics_by_hand() -> None:
    members = [
        labelled(-2064.0 + 3.0, 1.0, config_type="bulk"),
        labelled(-2064.0 + 9.0, 2.0, config_type="bulk"),
        labelled(1e6, 1e6, config_energy_weight=0.0, config_forces_weight=0.0, config_type="ice"),
    ]
    sizes = StructureSizes.of(stack([structure(seed, cutoff=1.3) for seed in range(3)]))
    found = set_record(Catalogue.of(members), sizes, **E0S)
    assert found["structures"] == 3
    assert found["atoms"] == 9
    assert found["largest_structure"] == 3
    assert found["config_types"] == {"bulk": 2, "ice": 1}
    assert found["elements"] == {"H": 6, "O": 3}
    assert found["labels"]["energy"] == found["labels"]["forces"] == 2
    assert found["labels"]["dipole"] == found["labels"]["atomic_multipoles"] == 3
    assert "stress" not in found["labels"]
    assert found["average_number_of_neighbours"] == pytest.approx(4.0 / 3.0)
    spread = {"mean": 2.0, "standard_deviation": 1.0, "least": 1.0, "largest": 3.0}
    assert found["interaction_energy_per_atom"] == pytest.approx(spread, rel=1e-12)
    assert found["energy_per_atom"]["least"] == pytest.approx(-687.0)
    assert found["forces_rms"] == pytest.approx(np.sqrt(2.5))
    assert found["digest"] == Catalogue.of(members).content_digest()
    assert json.loads(json.dumps(found)) == found


def test_what_no_structure_has_is_left_out() -> None:
    nothing = {"config_energy_weight": 0.0, "config_forces_weight": 0.0}
    members = [labelled(0.0, 0.0, **nothing)]
    found = set_record(
        Catalogue.of(members), StructureSizes.of(stack([structure(cutoff=0.1)])), **E0S
    )
    assert not found.keys() & {
        "average_number_of_neighbours",
        "energy_per_atom",
        "interaction_energy_per_atom",
        "forces_rms",
    }
