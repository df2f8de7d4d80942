"""The training options of data and model: name, type, default, limits and meaning, in one place.

The names are those of the PyTorch reference. The first line of each class is the heading and each
description the entry of the option in ``mace-scf-jax train --help``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from mace_scf_jax.backbones.backbone import BACKBONES, DEFAULT_BACKBONE
from mace_scf_jax.data.atomic_energies import AtomicEnergiesOption
from mace_scf_jax.models.family import FAMILIES
from mace_scf_jax.options import DecidesWeights, OneOf, OptionGroup
from mace_scf_jax.options.values import (
    FilePath,
    Literally,
    NoneInText,
    Number,
    NumberFromZero,
    PositiveNumber,
    PositiveWholeNumber,
    WholeNumberFromZero,
)


class DataOptions(OptionGroup):
    """Data"""

    decide_weights = False

    heads: Annotated[dict[str, Any], Literally] = Field(
        description="{name: {info_keys: {property: key in the file, …}, arrays_keys: {…}}}; of "
        "several levels of theory one entry each, with further members files, E0s, loss_weights"
    )
    train_file: FilePath = Field(
        description="training structures: .xyz or .xsf, a pattern (xsf/*.xsf), a folder of .xsf "
        "files, or the folder or .h5 file that `mace-scf-jax preprocess` wrote"
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
    E0s: AtomicEnergiesOption = Field(
        default=None,
        description="energies of isolated atoms in eV: average, a .json file, {element: energy}, "
        "{method: regression, …} or {method: compounds, compounds: [TiO2, O2], …}; with start_from "
        "also start, those of the start model, or estimated (the default), those with which the "
        "start model is closest to the data; not used if the training file holds isolated atoms",
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
    batch_size: Annotated[PositiveWholeNumber, DecidesWeights(True)] = Field(
        default=10, description="structures per training step"
    )
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

    decide_weights = False

    model: Annotated[str, OneOf(FAMILIES)] = Field(default="MACE", description="model family")
    backbone: Annotated[str, OneOf(BACKBONES)] = Field(
        default=None,
        validate_default=True,
        description="network that reads the neighbourhood of each atom (default: that of the "
        "model; MACE, but for ChebyshevANN)",
    )

    @field_validator("backbone", mode="before")
    @classmethod
    def _of_family(cls, name: Any, info: Any) -> Any:
        if name not in (None, "None", "none"):
            return name
        # without a model there is another problem, which is told
        model = info.data.get("model")
        return DEFAULT_BACKBONE if model is None else FAMILIES[model].backbone

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
