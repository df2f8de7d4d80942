"""Bad input to ``train``: one clear error, exit status 2, and not a single file written."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.io import write
from labelled_water import config, water

from mace_scf_jax_cli.main import main


@dataclasses.dataclass
class Case:
    """Valid data and options, to be spoilt by a test."""

    structures: list[Atoms]
    options: dict
    folder: Path

    def keys(self, place: str) -> dict:
        return self.options["heads"]["DFT"][place]


def set_array(name: str, values) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        case.structures[2].arrays[name] = np.asarray(values)

    return spoil


def set_info(name: str, value) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        case.structures[2].info[name] = value

    return spoil


def set_option(name: str, value) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        case.options[name] = value

    return spoil


def map_key(place: str, name: str, key: str) -> Callable[[Case], None]:
    def spoil(case: Case) -> None:
        case.keys(place)[name] = key

    return spoil


def two_dipole_weights(case: Case) -> None:
    case.keys("info_keys")["dipole"] = "REF_dipole"
    for atoms in case.structures:
        atoms.info.update(REF_dipole=np.zeros(3), config_dipole_weight=np.ones(2))


def validation_without_labels(case: Case) -> None:
    """Structure 4 is the one that the random split sets aside."""
    for index in (0, 1, 2, 3, 4, 5):
        if index not in (1, 2):
            del case.structures[index].arrays["REF_forces"]
    case.options["valid_set_seed"] = 123


def steps_from_multipoles_that_are_not_there(case: Case) -> None:
    case.options.update(model="FixedPoint")
    del case.keys("arrays_keys")["atomic_multipoles"]
    for stage in case.options["train_schedule"].values():
        stage["fixed_point_training_options"] = {"mode": "direct"}


def quasi_newton_steps_on_batches(case: Case) -> None:
    case.options.update(optimizer="lbfgs", batch_size=2)


def damped_steps_of_a_large_model(case: Case) -> None:
    case.options.update(optimizer="levenberg_marquardt", num_channels=64, max_L=0)


def unknown_loss(case: Case) -> None:
    case.options["train_schedule"][1]["loss"] = {"force": 1.0}


def overlapping_stages(case: Case) -> None:
    case.options["train_schedule"][1]["start"] = 1


def loss_without_label(case: Case) -> None:
    case.options["train_schedule"][0]["loss"] = {"dipole": 1.0}


def loss_without_output(case: Case) -> None:
    case.options.update(model="MACE")
    case.options["train_schedule"][1]["loss"] = {"atomic_multipoles": 1.0}


def formal_charges_that_are_not_there(case: Case) -> None:
    case.options.update(model="LocalSplitCharges", formal_charges_from_data=True)


def element_without_formal_charge(case: Case) -> None:
    case.options.update(model="FixedChargeBaselinedMACE", atomic_formal_charges={"O": -2})


def polarizability_without_readout(case: Case) -> None:
    case.options.update(
        model="LocalSplitCharges",
        atomic_formal_charges={"H": 1, "O": -2},
        compute_polarizability=False,
    )
    case.keys("info_keys")["polarizability"] = "REF_polarizability"
    for atoms in case.structures:
        atoms.info["REF_polarizability"] = np.eye(3).ravel()
    case.options["train_schedule"][1]["loss"] = {"polarizability": 1.0}


def periodic_without_cell(case: Case) -> None:
    case.structures[2].set_cell(np.zeros((3, 3)))
    case.structures[2].pbc = True


def unknown_element(case: Case) -> None:
    test = water(0)
    test.numbers[0] = 16
    write(case.folder / "test.xyz", [test], format="extxyz")
    case.options["test_file"] = "test.xyz"


def broken_file(case: Case) -> None:
    (case.folder / "broken.xyz").write_text("3\nLattice=\nO 0 0\n")
    case.options["train_file"] = "broken.xyz"


CASES = {
    "missing file": (set_option("train_file", "no.xyz"), ["no.xyz: no such file"]),
    "unreadable file": (broken_file, ["broken.xyz, configuration 0: not readable"]),
    "key that no configuration has": (
        map_key("info_keys", "energy", "REF_enrgy"),
        ["train.xyz: found no configuration with the key 'REF_enrgy'", "'REF_energy'"],
    ),
    "property in the wrong place": (
        map_key("info_keys", "forces", "REF_forces"),
        ["'forces', which belongs in arrays_keys"],
    ),
    "wrong shape": (
        set_array("REF_forces", np.zeros((3, 2))),
        ["train.xyz, configuration 2, key 'REF_forces' (forces)", "(3, 2)"],
    ),
    "NaN label": (
        set_info("REF_energy", float("nan")),
        ["train.xyz, configuration 2, key 'REF_energy' (energy)"],
    ),
    "dipole with a wrong weight": (two_dipole_weights, ["config_dipole_weight must be a 3-vec"]),
    "validation set without labels": (
        validation_without_labels,
        ["stage 0 (a): no validation configuration has forces with a weight above zero"],
    ),
    "steps from reference multipoles without any": (
        steps_from_multipoles_that_are_not_there,
        ["stage 0 (a): the mode direct takes one step from the reference multipoles"],
    ),
    "option of fine-tuning": (
        set_option("foundation_model", "small"),
        ["option 'start_from': ", "small"],
    ),
    "periodic directions without cell": (periodic_without_cell, ["train.xyz, configuration 2"]),
    "periodicity that the method does not treat": (
        set_option("electrostatic_pbc_method", "slab"),
        ["found pbc FFF, incompatible with the boundary condition 'slab'"],
    ),
    "element that the model does not know": (
        unknown_element,
        ["test.xyz, configuration 0: found element S, unknown to the model, which knows H, O"],
    ),
    "quasi-Newton steps on a part of the structures": (
        quasi_newton_steps_on_batches,
        ["optimizer 'lbfgs'", "expected a batch_size of at least 5, found 2"],
    ),
    "matrix of a large model": (
        damped_steps_of_a_large_model,
        ["optimizer 'levenberg_marquardt'", "expected a model of at most 5000 parameters, found"],
    ),
    "no atomic energies": (set_option("E0s", None), ["E0s: found neither this option"]),
    "incomplete atomic energies": (set_option("E0s", {"O": -1.0}), ["found none for H"]),
    "unknown option": (set_option("batchsize", 3), ["'batchsize'; did you mean 'batch_size'?"]),
    "unknown loss": (unknown_loss, ["stage 1", "loss term 'force'; did you mean 'forces'?"]),
    "overlapping stages": (overlapping_stages, ["stages 0 and 1 overlap", "start at epoch 2"]),
    "loss without label": (loss_without_label, ["stage 0 (a)", "needs the label 'dipole'"]),
    "loss that the model cannot have": (
        loss_without_output,
        ["stage 1 (b)", "needs the model output 'multipoles'"],
    ),
    "formal charges from data that have none": (
        formal_charges_that_are_not_there,
        ["train.xyz, configuration", "LocalSplitCharges reads 'charges' of every atom"],
    ),
    "element without a formal charge": (
        element_without_formal_charge,
        ["'atomic_formal_charges': found no charge for H"],
    ),
    "polarizability loss without the readout": (
        polarizability_without_readout,
        ["stage 1 (b)", "needs the model output 'polarizability'"],
    ),
    "unequal multiplicities": (set_option("hidden_irreps", "4x0e + 2x1o"), ["hidden_irreps"]),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_and_leaves_nothing_behind(name, tmp_path, monkeypatch, capsys):
    spoil, expected = CASES[name]
    monkeypatch.chdir(tmp_path)
    case = Case([water(index) for index in range(6)], config(), tmp_path)
    spoil(case)
    write("train.xyz", case.structures, format="extxyz")
    Path("config.yaml").write_text(yaml.safe_dump(case.options, sort_keys=False))
    before = sorted(tmp_path.rglob("*"))

    assert main(["train", "config.yaml"]) == 2

    *_, last = capsys.readouterr().err.strip().splitlines()
    assert last.startswith("error: ")
    for text in expected:
        assert text in last
    assert sorted(tmp_path.rglob("*")) == before
