"""Commands of MACE and their arguments that are none here, and what to write instead."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

_EVALUATE = "mace-scf-jax evaluate MODEL FILE.xyz --output OUT.xyz"
_BY_PLACE = f"model and structures are given by their place: {_EVALUATE}"
_SIMULATE = "simulate with ASE, JAX-MD or `mace-scf-jax md`"
COMMANDS = {
    "run_train": "mace-scf-jax train config.yaml",
    "eval_configs": _EVALUATE,
    "prepare_data": "mace-scf-jax preprocess config.yaml --output FOLDER",
    "plot_train": "mace-scf-jax plot FOLDER_OF_THE_RUN",
    "active_learning_md": "mace-scf-jax md COMMITTEE START.xyz",
    "create_lammps_model": f"there is no model for LAMMPS here; {_SIMULATE}",
    "mliap_lammps_model": f"there is no model for LAMMPS here; {_SIMULATE}",
    "convert_device": "model files belong to no device: give --device where you use one",
    "select_head": "models have one head; select it with MACE, then mace-scf-jax import",
    "finetuning": "there is no fine-tuning here; mace-scf-jax train trains from scratch",
    "cueq_to_e3nn": "convert with MACE, then mace-scf-jax import",
    "e3nn_cueq": "there are no kernels of cuEquivariance here, and none are needed",
}
"""What does the same, by the name without ``mace_``."""
ARGUMENTS = {
    ("evaluate", "--configs"): _BY_PLACE,
    ("evaluate", "--model"): _BY_PLACE,
    ("evaluate", "--return_descriptors"): "descriptors of MACE layers are not written",
    (
        "evaluate",
        "--return_node_energies",
    ): "energies of atoms are `node_energy` of Model.predict, in Python",
    ("evaluate", "--compute_bec"): "Born effective charges are those of predict_response in Python",
    ("evaluate", "--enable_cueq"): "there are no such kernels here; leave it out",
    ("export", "--format=lammps"): COMMANDS["create_lammps_model"],
    ("plot", "--data"): "the run is given by its place: mace-scf-jax plot FOLDER_OF_THE_RUN",
    ("preprocess", "--h5_prefix"): "this is --output FOLDER",
    ("preprocess", "--num_process"): "this is --workers N",
    ("preprocess", "--compute_statistics"): "training measures them; leave it out",
}
"""What to write instead of an argument of a command."""


def instead_of_command(name: str) -> str | None:
    """What does the same as a command of MACE; None if it has none of that name."""
    return COMMANDS.get(name.replace("-", "_").removeprefix("mace_"))


def refuse_arguments(command: str, words: Sequence[str]) -> None:
    """Refuse arguments that only MACE has.

    Raises:
        ValueError: says what to write instead.
    """
    for word, following in itertools.pairwise([*words, ""]):
        name = word.partition("=")[0]
        for spelled in (name, word, f"{word}={following}"):
            if (command, spelled) in ARGUMENTS:
                raise ValueError(f"unknown argument {spelled}: {ARGUMENTS[command, spelled]}")
