"""Settings of the fixed-point family: how multipoles answer a potential, and what that costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any

from mace_scf_jax.backbones import Offer
from mace_scf_jax.data.training_set import TrainingSet
from mace_scf_jax.models.families.fixed_point.choices import (
    FIELD_READOUTS,
    LINEAR_NONLINEARITIES,
    NONLINEARITIES,
    POTENTIAL_EMBEDDINGS,
    SCALED_UPDATES,
    UPDATES,
)
from mace_scf_jax.models.families.fixed_point.density_update import MAX_EDGE_DEGREE
from mace_scf_jax.models.families.fixed_point.measured import (
    atom_density_scaling,
    fermi_level_offset,
    field_feature_norms,
)
from mace_scf_jax.models.family import FamilySettings
from mace_scf_jax.models.field_feature_norms import check_norms
from mace_scf_jax.models.settings import ModelSettings
from mace_scf_jax.registry import unknown_name


def _require_choice(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ValueError(unknown_name(name, value, choices))


@dataclasses.dataclass(frozen=True)
class FixedPointSettings(FamilySettings):
    """Choices and constants of a `FixedPoint` model.

    Raises:
        ValueError: a name is unknown, or a number is out of range.
    """

    field_feature_norms: tuple[float, ...]
    """What field features are divided by: one number for each degree and width, widths fastest."""
    fermi_level_offset: float
    """Fermi level in eV at which it causes no field features."""
    update: str = "OneBodyVariableUpdate"
    """How a potential changes multipoles; a name in `UPDATES`."""
    potential_embedding: str = "BiasedLinearPotentialEmbedding"
    """How the potential enters the update; a name in `POTENTIAL_EMBEDDINGS`."""
    nonlinearity: str = "NoNonLinearity"
    """What is applied to the invariants of the update; a name in `NONLINEARITIES`."""
    correlation: int = 1
    """Highest order of the products of `ManyBodyUpdate`."""
    skip_connection: bool = True
    """Whether the product of `ManyBodyUpdate` has a skip connection."""
    field_readout: str = "StrictQuadraticFieldEnergyReadout"
    """Energy of the multipoles in their potential; a name in `FIELD_READOUTS`."""
    include_field_energy: bool = True
    """Whether that energy is part of the total energy."""
    linear_local_multipoles: bool = False
    """Read local multipoles linearly, scaled by element, instead of with two hidden layers."""
    atom_density_scaling: tuple[float, ...] | None = None
    """Scale of the multipoles of each element: of linear local ones, and of their change in scaled
    updates; without effect otherwise."""

    def __post_init__(self) -> None:
        for name in ("field_feature_norms", "atom_density_scaling"):
            values = getattr(self, name)
            if values is None:
                continue
            object.__setattr__(self, name, tuple(float(value) for value in values))
            if not all(math.isfinite(value) and value > 0.0 for value in getattr(self, name)):
                raise ValueError(f"{name}: expected positive numbers, found {values!r}")
        if not math.isfinite(self.fermi_level_offset):
            raise ValueError(
                f"fermi_level_offset: expected a number (eV), found {self.fermi_level_offset!r}"
            )
        _require_choice("update", self.update, UPDATES)
        _require_choice("potential_embedding", self.potential_embedding, POTENTIAL_EMBEDDINGS)
        _require_choice("nonlinearity", self.nonlinearity, NONLINEARITIES)
        _require_choice("field_readout", self.field_readout, FIELD_READOUTS)
        if not 1 <= self.correlation <= 4:
            raise ValueError(f"correlation: expected 1, 2, 3 or 4, found {self.correlation!r}")
        if self.needs_scaling and self.atom_density_scaling is None:
            raise ValueError(
                "atom_density_scaling: linear local multipoles and scaled updates need a scale for "
                "every element, found none"
            )

    def with_elements(self, kept: Sequence[int]) -> FixedPointSettings:
        """Return the settings with the scales of these elements."""
        scales = self.atom_density_scaling
        some = None if scales is None else tuple(scales[index] for index in kept)
        return dataclasses.replace(self, atom_density_scaling=some)

    @property
    def needs_scaling(self) -> bool:
        """Whether multipoles are scaled by element."""
        return self.linear_local_multipoles or self.update in SCALED_UPDATES

    @property
    def is_one_body(self) -> bool:
        """Whether an atom answers the potential at its own site alone."""
        return self.update != "ManyBodyUpdate"

    @property
    def is_affine(self) -> bool:
        """Whether the update is an affine function of the potential, one linear solve away."""
        return (
            self.is_one_body
            and self.nonlinearity in LINEAR_NONLINEARITIES
            and self.potential_embedding != "TanhPotentialEmbedding"
        )

    @classmethod
    def from_options(cls, options: Any, training: TrainingSet) -> FixedPointSettings:
        """Return what options and training set describe.

        Raises:
            ConfigurationError: sizes do not fit, or the training set lacks what is to be measured.
        """
        offset = fermi_level_offset(options, training)
        update = options.fixedpoint_update_config
        return cls(
            field_feature_norms=field_feature_norms(options, training, offset=offset),
            fermi_level_offset=offset,
            update=update["type"],
            potential_embedding=update["potential_embedding_cls"],
            nonlinearity=update["nonlinearity_cls"],
            correlation=update["correlation"],
            skip_connection=update["use_sc"],
            field_readout=options.field_readout_config["type"],
            include_field_energy=options.include_local_electron_energy,
            linear_local_multipoles=options.use_linear_local_charges,
            atom_density_scaling=atom_density_scaling(options, training),
        )

    def check_model(self, settings: ModelSettings) -> None:
        """Refuse sizes that disagree, and a backbone without what updates and readouts read."""
        receivers = settings.density.features
        if receivers is None:
            raise ValueError("model FixedPoint needs electrostatic settings with field features")
        check_norms(self.field_feature_norms, receivers)
        scaling = self.atom_density_scaling
        if scaling is not None and len(scaling) != len(settings.elements):
            raise ValueError(
                f"atom_density_scaling: expected one number for each of the elements "
                f"{settings.elements}, found {len(scaling)}"
            )
        if self.update in SCALED_UPDATES and settings.backbone.max_hidden_degree < 1:
            raise ValueError(f"hidden_irreps: {self.update} needs vectors (1o), found scalars only")
        passes_messages = not self.is_one_body or FIELD_READOUTS[self.field_readout].needs_edges
        if passes_messages and Offer.EDGES not in settings.backbone_offers:
            raise ValueError(
                f"many-body updates and readouts need a backbone with {Offer.EDGES}, found "
                f"{settings.backbone.name}, which has none"
            )
        if passes_messages and settings.backbone.max_ell < MAX_EDGE_DEGREE:
            raise ValueError(
                f"max_ell: many-body updates and readouts need edge harmonics up to degree "
                f"{MAX_EDGE_DEGREE}, found {settings.backbone.max_ell}"
            )
