"""The training commands of the reference's documentation, word for word but for the program.

Words that make the model small come after them; one epoch of the first stage is trained.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import write
from labelled_water import parse_options

from mace_scf_jax_cli.main import main

LOCAL_CHARGES = """
python scripts/run_train.py \
    --name nonpol_example \
    --config config.yaml \
    --train_file train.xyz \
    --valid_fraction 0.2 \
    --test_file train.xyz \
    --E0s average \
    --model LocalCharges \
    --hidden_irreps '64x0e + 64x1o' \
    --r_max 6.0 \
    --batch_size 8 \
    --valid_batch_size 8 \
    --eval_interval 2 \
    --error_table PerAtomRMSE \
    --device cuda \
    --default_dtype float64 \
    --atomic_multipoles_max_l 1 \
    --atomic_multipoles_smearing_width 1.5 \
    --electrostatic_pbc_method mixed_periodic \
    --restart_latest \
    --save_cpu
"""
SPLIT_CHARGES = """
python scripts/run_train.py \
    --name="split_charge_example" \
    --config=config.yaml \
    --train_file=$train \
    --valid_fraction=0.2 \
    --test_file=$train \
    --E0s=average \
    --model="LocalSplitCharges" \
    --hidden_irreps='64x0e + 64x1o' \
    --r_max=6.0 \
    --eval_interval=2 \
    --batch_size=8 \
    --valid_batch_size=2 \
    --error_table="PerAtomRMSE" \
    --amsgrad \
    --device=cuda \
    --atomic_multipoles_max_l=1 \
    --atomic_multipoles_smearing_width=1.5 \
    --atomic_formal_charges="{13: 0.0}" \
    --default_dtype="float64" \
    --restart_latest \
    --save_cpu
"""
CONFIGURATIONS = {
    LOCAL_CHARGES: """
heads:
  default:
    info_keys:
      energy: REF_energy
      dipole: REF_dipole
      external_field: external_field
      total_charge: total_charge
    arrays_keys:
      forces: REF_forces
      atomic_multipoles: REF_atomic_multipoles
train_schedule:
  0:
    name: stage1
    start: 0
    end: 99
    loss:
      atomic_multipoles: 100.0
      dipole: 1.0
      energy_per_atom: 1.0
      forces: 100.0
    lr: 0.01
  1:
    name: stage2
    start: 100
    end: 199
    loss:
      dipole: 10.0
      energy_per_atom: 1000.0
      forces: 100.0
    lr: 0.001
""",
    SPLIT_CHARGES: """
heads:
  revPBEd3:
    info_keys:
      energy: AIMS_energy
      dipole: AIMS_dipole
      polarizability: AIMS_polarizability
      fermi_level: VBM
      external_field: homogeneous_field
      total_charge: total_charge
    arrays_keys:
      forces: AIMS_forces
      atomic_multipoles: AIMS_atom_multipoles
train_schedule:
  0:
    name: stage1
    start: 0
    end: 99
    loss:
      atomic_multipoles: 100.0
      dipole_per_atom: 1.0
      energy_per_atom: 1.0
      forces: 100.0
    lr: 0.01
  1:
    name: stage2
    start: 100
    end: 199
    loss:
      atomic_multipoles: 100.0
      dipole_per_atom: 1.0
      energy_per_atom: 1000.0
      forces: 100.0
    lr: 0.001
""",
}
SMALLER = """
    --device cpu --hidden_irreps '2x0e + 2x1o' --num_interactions 1 --max_ell 1 --correlation 1
    --radial_MLP '[4]' --num_radial_basis 3 --MLP_irreps 2x0e --kspace_cutoff_factor 0.5
"""


def words_of(command: str) -> list[str]:
    """The words after the program, as a shell splits them."""
    python, program, *words = shlex.split(command.replace("$train", "train.xyz"))
    assert (python, program) == ("python", "scripts/run_train.py")
    return words


def labelled(symbols: str, index: int) -> Atoms:
    """A molecule with all labels under the names of both pages."""
    rng = np.random.default_rng(index)
    positions = np.array([[0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]])
    atoms = Atoms(symbols, positions + rng.normal(scale=0.05, size=(3, 3)), cell=[30.0] * 3)
    for prefix in ("REF", "AIMS"):
        atoms.info[f"{prefix}_energy"] = -100.0 - index
        atoms.info[f"{prefix}_dipole"] = rng.normal(size=3)
        atoms.arrays[f"{prefix}_forces"] = rng.normal(size=(3, 3))
    atoms.arrays["REF_atomic_multipoles"] = rng.normal(size=(3, 4))
    atoms.arrays["AIMS_atom_multipoles"] = rng.normal(size=(3, 4))
    atoms.info.update(
        config_dipole_weight=np.ones(3),
        AIMS_polarizability=np.eye(3).ravel(),
        total_charge=0.0,
        VBM=-5.0,
        external_field=np.zeros(3),
        homogeneous_field=np.zeros(3),
    )
    return atoms


LOCAL = pytest.param(LOCAL_CHARGES, "OH2", id="local")
SPLIT = pytest.param(SPLIT_CHARGES, "Al3", id="split")


@pytest.fixture
def words(command, symbols, tmp_path, monkeypatch) -> list[str]:
    """The words of a command, in a folder with its files."""
    monkeypatch.chdir(tmp_path)
    # as many as fill all batches of training and validation, so that little is compiled
    write("train.xyz", [labelled(symbols, index) for index in range(40)], format="extxyz")
    Path("config.yaml").write_text(CONFIGURATIONS[command])
    return words_of(command)


def schedule_of(command: str) -> dict[int, dict]:
    return yaml.safe_load(CONFIGURATIONS[command])["train_schedule"]


@pytest.mark.parametrize(("command", "symbols"), [LOCAL, SPLIT])
def test_a_command_is_understood(command, words):
    options = parse_options(words)
    assert [stage.to_mapping()["loss"] for stage in options.train_schedule] == [
        stage["loss"] for stage in schedule_of(command).values()
    ]
    assert (options.irreps, options.device, options.eval_interval) == ("64x0e + 64x1o", "cuda", 2)
    assert [remark.split("'")[1] for remark in options.remarks] == ["save_cpu"]


@pytest.mark.parametrize(
    ("command", "symbols"), [LOCAL, pytest.param(*SPLIT.values, id="split", marks=pytest.mark.slow)]
)
def test_a_command_trains(command, words, capsys):
    short = ["--train_schedule", str({0: schedule_of(command)[0] | {"end": 0}})]
    assert main(["train", *words, *shlex.split(SMALLER), *short]) == 0
    assert "Final error table for stage stage1" in capsys.readouterr().err
    assert Path(f"{parse_options(words).name}_stage1.model.safetensors").is_file()
