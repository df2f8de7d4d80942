"""The training options by topic: name, type, default, limits and meaning, each in one place.

The names are those of the PyTorch reference. The first line of each class is the heading and each
description the entry of the option in ``mace-scf-jax train --help``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mace_scf_jax.backbones import BACKBONES, DEFAULT_BACKBONE
from mace_scf_jax.models import FAMILIES
from mace_scf_jax.options import OneOf, OptionGroup
from mace_scf_jax.options.values import (
    EnergiesOfIsolatedAtoms,
    FilePath,
    Literally,
    NoneInText,
    Number,
    NumberFromZero,
    NumberOfDevices,
    PositiveNumber,
    PositiveWholeNumber,
    WholeNumberFromZero,
    not_yet,
)


class RunOptions(OptionGroup):
    """Run control and files"""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")] = Field(
        description="name of the run; files are named <name>_run-<seed>"
    )
    seed: WholeNumberFromZero = Field(
        default=123, description="seed of initial weights and order of batches"
    )
    work_dir: FilePath = Field(
        default="./", validate_default=True, description="folder that receives all output"
    )
    log_dir: Annotated[FilePath | None, NoneInText] = Field(
        default=None, description="folder of the log files (default: <work_dir>/logs)"
    )
    checkpoints_dir: Annotated[FilePath | None, NoneInText] = Field(
        default=None, description="folder of the checkpoints (default: <work_dir>/checkpoints)"
    )
    results_dir: Annotated[FilePath | None, NoneInText] = Field(
        default=None, description="folder of the JSON lines (default: <work_dir>/results)"
    )
    model_dir: Annotated[FilePath | None, NoneInText] = Field(
        default=None, description="folder of the final model files (default: <work_dir>)"
    )
    device: Annotated[Literal["auto", "cpu", "cuda", "gpu", "tpu"], not_yet("mps", "xpu")] = Field(
        default="auto", description="where to compute; auto: the best device that JAX finds"
    )
    devices: NumberOfDevices = Field(
        default=1,
        description="devices that share the work on each batch, of every process; all: every one "
        "that JAX finds",
    )
    distributed: bool = Field(
        default=False,
        description="share the work with the other processes of the run, on one or several hosts",
    )
    default_dtype: Literal["float32", "float64"] = Field(
        default="float64", description="precision of weights and of everything computed"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO",
        description="least severe messages on the terminal and in the main log; the debug log "
        "holds all",
    )
    log_all_ranks: bool = Field(
        default=False,
        description="with distributed: a log and a debug log of every other process too, named "
        "<name>_run-<seed>_rank<number>",
    )
    restart_latest: bool = Field(
        default=True, description="continue from the newest checkpoint of this run, if any"
    )
    keep_checkpoints: bool = Field(
        default=False, description="keep the checkpoint of every improvement, not only the last"
    )
    save_all_checkpoints: bool = Field(
        default=False, description="keep a checkpoint of every evaluation, improved or not"
    )
    eval_interval: PositiveWholeNumber = Field(
        default=1, description="validate at epochs divisible by this number"
    )
    patience: PositiveWholeNumber = Field(
        default=2048, description="evaluations without improvement that end a stage"
    )
    log_on_test_sets: bool = Field(
        default=False, description="evaluate the test sets too whenever validation is"
    )


class DataOptions(OptionGroup):
    """Data"""

    heads: Annotated[dict[str, Any], Literally] = Field(
        description="one head: {name: {info_keys: {property: key in the file, …}, "
        "arrays_keys: {…}}}"
    )
    train_file: FilePath = Field(
        description="training structures: .xyz, or the folder or .h5 file that "
        "`mace-scf-jax preprocess` wrote"
    )
    valid_file: Annotated[FilePath | None, NoneInText] = Field(
        default=None, description="validation structures, likewise"
    )
    valid_fraction: Annotated[Number, Field(gt=0.0, lt=1.0)] = Field(
        default=0.1, description="share of the training file used for validation (no valid_file)"
    )
    valid_set_seed: Annotated[WholeNumberFromZero | None, NoneInText] = Field(
        default=None, description="seed of the random split, also named split_seed (default: seed)"
    )
    test_file: Annotated[FilePath | None, NoneInText] = Field(
        default=None, description="test structures, likewise; reported per config_type"
    )
    E0s: EnergiesOfIsolatedAtoms = Field(
        default=None,
        description="energies of isolated atoms in eV: average, a .json file, or {element: "
        "energy}; not used if the training file holds isolated atoms",
    )
    max_energy: Annotated[Number | None, NoneInText] = Field(
        default=None,
        description="leave training and validation structures out whose interaction energy per "
        "atom, (E - Σ E0) / N, is above this, in eV/atom",
    )
    max_forces: Annotated[PositiveNumber | None, NoneInText] = Field(
        default=None,
        description="leave those out that have an atom with a force of larger norm, in eV/Å",
    )
    config_type_weights: Annotated[dict[str, NumberFromZero], Literally] = Field(
        default={"Default": 1.0}, description="weight of the structures of each config_type"
    )
    batch_size: PositiveWholeNumber = Field(default=10, description="structures per training step")
    valid_batch_size: PositiveWholeNumber = Field(
        default=10, description="structures per evaluation batch"
    )
    allow_low_density_pbc: bool = Field(
        default=False, description="accept periodic structures that are mostly vacuum"
    )
    low_density_pbc_max_volume_per_atom: PositiveNumber = Field(
        default=100.0, description="largest volume per atom of fully periodic structures, in Å³"
    )
    override_pbc_checks: bool = Field(
        default=False,
        description="accept structures whose pbc does not fit electrostatic_pbc_method",
    )


class ModelOptions(OptionGroup):
    """Model"""

    model: Annotated[str, OneOf(FAMILIES)] = Field(default="MACE", description="model family")
    backbone: Annotated[str, OneOf(BACKBONES)] = Field(
        default=DEFAULT_BACKBONE, description="network that reads the neighbourhood of each atom"
    )
    r_max: PositiveNumber = Field(default=5.0, description="cutoff radius of the edges, in Å")
    MLP_irreps: str = Field(default="16x0e", description="hidden features of the last readout")
    gate: Annotated[Literal["silu", "tanh", "abs"] | None, NoneInText] = Field(
        default="silu", description="activation of the last readout"
    )
    avg_num_neighbors: PositiveNumber = Field(
        default=1.0, description="divisor of the sums over neighbours, unless it is measured"
    )
    compute_avg_num_neighbors: bool = Field(
        default=True, description="measure avg_num_neighbors on the training set"
    )
    compute_forces: bool = Field(default=True, description="must stay true")
    compute_stress: bool = Field(default=False, description="train, report and predict stress")


class OptimizerOptions(OptionGroup):
    """Optimizer"""

    optimizer: Literal["adam", "adamw", "schedulefree"] = Field(
        default="schedulefree",
        description="adam: weight decay in the gradient; adamw: decoupled; schedulefree: "
        "AdamW-ScheduleFree, which uses neither amsgrad nor a scheduler",
    )
    lr: NumberFromZero = Field(default=0.01, description="learning rate of stages that set none")
    beta: Annotated[Number, Field(ge=0.0, lt=1.0)] = Field(
        default=0.9, description="decay of the mean gradient"
    )
    beta_two: Annotated[Number, Field(ge=0.0, lt=1.0)] = Field(
        default=0.999, description="decay of the mean squared gradient"
    )
    weight_decay: NumberFromZero = Field(
        default=5e-7, description="decay of the weights of interactions and products"
    )
    amsgrad: bool = Field(default=True, description="AMSGrad variant of adam and adamw")
    ema: bool = Field(
        default=False, description="evaluate and save an exponential moving average of the weights"
    )
    ema_decay: Annotated[Number, Field(gt=0.0, lt=1.0)] = Field(
        default=0.99, description="decay of that average per step"
    )
    clip_grad: Annotated[PositiveNumber | None, NoneInText] = Field(
        default=10.0, description="largest norm of the whole gradient; None: no clipping"
    )
    scheduler: Literal["ReduceLROnPlateau", "ExponentialLR"] = Field(
        default="ReduceLROnPlateau", description="change of the learning rate from epoch to epoch"
    )
    lr_factor: Annotated[Number, Field(gt=0.0, le=1.0)] = Field(
        default=0.8, description="ReduceLROnPlateau: factor of a reduction"
    )
    scheduler_patience: WholeNumberFromZero = Field(
        default=50, description="ReduceLROnPlateau: epochs without improvement before a reduction"
    )
    lr_scheduler_gamma: Annotated[Number, Field(gt=0.0, le=1.0)] = Field(
        default=0.9993, description="ExponentialLR: factor per epoch"
    )
