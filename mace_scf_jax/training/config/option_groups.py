"""The training options by topic: name, type, default, limits and meaning, each in one place.

The names are those of the PyTorch reference. The first line of each class is the heading and each
description the entry of the option in ``mace-scf-jax train --help``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from mace_scf_jax.options.group import OptionGroup
from mace_scf_jax.options.values import (
    ChargesOfElements,
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

InteractionBlock = Literal[
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
]
_OTHER_BLOCKS = not_yet(
    "RealAgnosticAttResidualInteractionBlock", "RealAgnosticResidualNonLinearInteractionBlock"
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


class BackboneOptions(OptionGroup):
    """Backbone (MACE)"""

    model: Literal[
        "MACE",
        "ScaleShiftMACE",
        "LocalCharges",
        "LocalSplitCharges",
        "FixedChargeBaselinedMACE",
        "MACEQEq",
        "EnergyFunctional",
        "FixedPoint",
    ] = Field(default="MACE", description="model family")
    r_max: PositiveNumber = Field(default=5.0, description="cutoff radius of the edges, in Å")
    radial_type: Literal["bessel", "gaussian", "chebyshev"] = Field(
        default="bessel", description="radial basis"
    )
    num_radial_basis: PositiveWholeNumber = Field(
        default=8, description="number of radial basis functions"
    )
    num_cutoff_basis: PositiveWholeNumber = Field(
        default=5, description="exponent p of the polynomial cutoff"
    )
    distance_transform: Literal["None", "Agnesi", "Soft"] = Field(
        default="None", description="transform of distances before the radial basis"
    )
    pair_repulsion: bool = Field(
        default=False, description="add the ZBL repulsion of nuclei to the energy"
    )
    max_ell: WholeNumberFromZero = Field(
        default=3, description="highest order of the spherical harmonics of edges"
    )
    hidden_irreps: Annotated[str | None, NoneInText] = Field(
        default=None, description="node features, such as 64x0e + 64x1o (equal multiplicities)"
    )
    num_channels: Annotated[PositiveWholeNumber | None, NoneInText] = Field(
        default=None, description="with max_L: channels of hidden_irreps, which these two replace"
    )
    max_L: Annotated[WholeNumberFromZero | None, NoneInText] = Field(  # noqa: N815
        default=None, description="with num_channels: highest order in hidden_irreps"
    )
    correlation: PositiveWholeNumber = Field(
        default=3, description="correlation order of the product basis"
    )
    num_interactions: PositiveWholeNumber = Field(default=2, description="number of layers")
    interaction: Annotated[InteractionBlock, _OTHER_BLOCKS] = Field(
        default="RealAgnosticResidualInteractionBlock", description="block of layers 2, 3, …"
    )
    interaction_first: Annotated[InteractionBlock, _OTHER_BLOCKS] = Field(
        default="RealAgnosticResidualInteractionBlock", description="block of the first layer"
    )
    MLP_irreps: str = Field(default="16x0e", description="hidden features of the last readout")
    radial_MLP: Annotated[tuple[PositiveWholeNumber, ...], Literally] = Field(  # noqa: N815
        default=(64, 64, 64), description="widths of the hidden layers of the radial network"
    )
    gate: Annotated[Literal["silu", "tanh", "abs"] | None, NoneInText] = Field(
        default="silu", description="activation of the last readout"
    )
    use_linear_final_readout: bool = Field(
        default=False, description="make the last energy readout linear too"
    )
    scaling: Literal["rms_forces_scaling", "std_scaling", "no_scaling"] = Field(
        default="rms_forces_scaling",
        description="scale of the interaction energy (ScaleShiftMACE only)",
    )
    avg_num_neighbors: PositiveNumber = Field(
        default=1.0, description="divisor of the sums over neighbours, unless it is measured"
    )
    compute_avg_num_neighbors: bool = Field(
        default=True, description="measure avg_num_neighbors on the training set"
    )
    compute_forces: bool = Field(default=True, description="must stay true")
    compute_stress: bool = Field(default=False, description="train, report and predict stress")


class ElectrostaticsOptions(OptionGroup):
    """Charge density and electrostatics"""

    atomic_multipoles_max_l: Annotated[WholeNumberFromZero, Field(le=1)] = Field(
        default=1, description="highest atomic multipole: 0 charges, 1 charges and dipoles"
    )
    atomic_multipoles_smearing_width: PositiveNumber = Field(
        default=1.5, description="width σ of the Gaussian multipoles, in Å"
    )
    kspace_cutoff_factor: PositiveNumber = Field(
        default=1.25, description="multiplies the reciprocal cutoff 2.25 (l + 1)^0.3 / σ"
    )
    electrostatic_pbc_method: Literal[
        "realspace", "pbc", "slab", "molecule_in_box", "mixed_periodic", "auto"
    ] = Field(
        default="mixed_periodic",
        description="boundary conditions of the Coulomb energy; auto: mixed_periodic if any "
        "structure is periodic, else realspace",
    )
    include_electrostatic_self_interaction: bool = Field(
        default=True, description="include the energy of each atom's density with itself"
    )


class FormalChargeOptions(OptionGroup):
    """Formal charges and charge transfer (LocalSplitCharges, FixedChargeBaselinedMACE)"""

    atomic_formal_charges: ChargesOfElements = Field(
        default={}, description="formal charge of each element in e: {H: 1, O: -2}"
    )
    formal_charges_from_data: bool = Field(
        default=False, description="take the formal charge of each atom from the property charges"
    )
    static_bond_transfer_block: Literal[
        "OxidationDependentSymmetricPredictionSourceBlock", "NoFieldSymmetricPredictionSourceBlock"
    ] = Field(
        default="OxidationDependentSymmetricPredictionSourceBlock",
        description="charge transfer between neighbours, with or without knowledge of the formal "
        "charges (LocalSplitCharges)",
    )
    oxidation_state_mixer: Literal[
        "SumOxidationStateMixer", "ProductOxidationStateMixer", "NoOxidationStateMixer"
    ] = Field(
        default="SumOxidationStateMixer",
        description="how formal charges enter the initial features (LocalSplitCharges)",
    )
    oxidation_state_range: Annotated[tuple[Number, Number], Literally] = Field(
        default=(-6.0, 6.0),
        description="lowest and highest formal charge in e that mixer and transfer block can tell "
        "apart",
    )
    compute_polarizability: bool = Field(
        default=True, description="predict polarizabilities (LocalSplitCharges)"
    )


class ChargeEquilibrationOptions(OptionGroup):
    """Charge equilibration (MACEQEq, EnergyFunctional)"""

    qeq_charges: Literal["autograd"] = Field(
        default="autograd", description="how charges are solved for; there is no other choice"
    )
    read_enegs: bool = Field(
        default=False,
        description="add the property enegs of each atom to its learned electronegativity",
    )
    read_hardness: bool = Field(
        default=False,
        description="start from the property hardness of each atom instead of default_hardness",
    )
    train_hardness: bool = Field(default=False, description="add a learned hardness")
    default_hardness: PositiveNumber = Field(
        default=2.0,
        description="hardness of every atom in eV/e², unless it is read; EnergyFunctional: before "
        "learning",
    )


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
