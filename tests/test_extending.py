"""Everything that a user may add, added by a module beside this test through public names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import yaml

from mace_scf_jax_cli.main import main

HERE = Path(__file__).parent
COMMAND = "import sys; from mace_scf_jax_cli.main import main; sys.exit(main())"


def run(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run the command line in a process of its own, which knows nothing of this one."""
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        cwd=folder,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )


def water(index: int, atoms: int = 3) -> ase.Atoms:
    rng = np.random.default_rng(index)
    positions = np.array([[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]])
    molecule = ase.Atoms("OH2", positions=positions + rng.normal(scale=0.05, size=(3, 3)))
    molecule.info.update(REF_energy=-2000.0 - 0.1 * index, total_charge=0.0, fermi_level=-2.0)
    molecule.arrays["REF_forces"] = rng.normal(scale=0.2, size=(3, 3))
    charges = np.array([-0.6, 0.3, 0.3])
    molecule.arrays["REF_multipoles"] = np.column_stack([charges, rng.normal(size=(3, 3)) * 0.02])
    return molecule


OPTIONS = {
    "name": "extended",
    "plugins": ["extension_example"],
    "train_file": "train.xyz",
    "valid_file": "train.xyz",
    "E0s": "average",
    "error_table": "PerAtomRMSE",
    "electrostatic_pbc_method": "realspace",
    "r_max": 3.0,
    "MLP_irreps": "2x0e",
    "batch_size": 2,
    "heads": {
        "DFT": {
            "info_keys": {
                "energy": "REF_energy",
                "total_charge": "total_charge",
                "fermi_level": "fermi_level",
            },
            "arrays_keys": {"forces": "REF_forces", "atomic_multipoles": "REF_multipoles"},
        }
    },
}
MACE = {
    "hidden_irreps": "2x0e + 2x1o",
    "num_interactions": 1,
    "max_ell": 1,
    "correlation": 1,
    "num_radial_basis": 3,
    "radial_MLP": [4],
}
STAGE = {"name": "only", "start": 0, "end": 1, "loss": {"energy_per_atom": 1.0}}
RUNS = {
    "a family on a backbone, with a loss term and an output": {
        "model": "NeutralCharges",
        "backbone": "PairSums",
        "num_widths": 2,
        "largest_charge": 0.5,
        "train_schedule": {
            0: STAGE
            | {"loss": {"quartic_forces": {"weight": 1.0, "softness": 0.5}}, "pair_sums_lr": 0.1}
        },
    },
    "a radial basis": MACE
    | {"model": "LocalCharges", "radial_type": "cosines", "train_schedule": {0: STAGE}},
    "a solver and a field readout": MACE
    | {
        "model": "FixedPoint",
        "field_readout_config": {"type": "LinearInCharges"},
        "train_schedule": {
            0: STAGE
            | {
                "fixed_point_training_options": {
                    "mode": "implicit",
                    "scf": {"num_scf_steps": 60, "mixing_parameter": 0.3, "solver": "half_steps"},
                }
            }
        },
    },
}


@pytest.fixture
def folder(tmp_path):
    shutil.copy(HERE / "extension_example.py", tmp_path)
    ase.io.write(tmp_path / "train.xyz", [water(index) for index in range(4)], format="extxyz")
    return tmp_path


LONG = ("a radial basis", "a solver and a field readout")
"""The run with most additions is the quick one; `tests/scf/test_solvers.py` has a solver."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in RUNS],
)
def test_additions_from_outside_train_and_predict(folder, name, capsys):
    (folder / "config.yaml").write_text(yaml.safe_dump(OPTIONS | RUNS[name]))
    trained = run(folder, "train", "config.yaml")
    assert trained.returncode == 0, trained.stderr
    model = "extended_only.model.safetensors"
    assert main(["evaluate", str(folder / model), str(folder / "train.xyz")]) == 2
    said = capsys.readouterr().err
    assert "made with the plugins extension_example, which are not loaded" in said
    words = ["--plugins", "extension_example", "--output", "out.xyz"]
    predicted = run(folder, "evaluate", model, "train.xyz", *words)
    assert predicted.returncode == 0, predicted.stderr
    structures = ase.io.read(folder / "out.xyz", ":")
    assert all(np.isfinite(atoms.info["MACE_energy"]) for atoms in structures)
    if "NeutralCharges" in RUNS[name].values():
        charges = [atoms.arrays["MACE_density_coefficients"].sum() for atoms in structures]
        np.testing.assert_allclose(charges, 0.0, atol=1e-7)  # files have eight decimals
        assert all(atoms.info["MACE_charge_spread"] > 0.0 for atoms in structures)
