"""Settings of the Chebyshev backbone."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from ase.data import chemical_symbols
from jaxtyping import Array

from mace_scf_jax.backbones.backbone import BackboneOutput, BackboneSettings
from mace_scf_jax.backbones.chebyshev.descriptor import Descriptor
from mace_scf_jax.backbones.chebyshev.measured import (
    architectures_of,
    energy_constants,
    feature_statistics,
)
from mace_scf_jax.backbones.chebyshev.networks import (
    Architecture,
    ElementNetworks,
    check_architecture,
)
from mace_scf_jax.backbones.chebyshev.normalisation import FeatureStatistics
from mace_scf_jax.backbones.chebyshev.options import ROOM_FOR_FEATURES
from mace_scf_jax.backbones.chebyshev.stored import (
    DescriptorFeatures,
    descriptors_of,
    with_descriptors,
)
from mace_scf_jax.data.sets import StructureSet
from mace_scf_jax.data.training_set import TrainingSet
from mace_scf_jax.graph import Graph
from mace_scf_jax.layers.features import Features
from mace_scf_jax.layers.notation import Multiplicities
from mace_scf_jax.options import ConfigurationError

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ChebyshevSettings(BackboneSettings):
    """Descriptor, networks and constants of a descriptor potential.

    Raises:
        ValueError: a value is out of range, or numbers do not fit to each other.
    """

    name: ClassVar[str] = "chebyshev"

    elements: tuple[int, ...]
    """Atomic numbers, ascending."""
    descriptor: Descriptor
    arch: tuple[Architecture, ...]
    """Hidden layers of the network of each element."""
    features: FeatureStatistics | None = None
    """By which features are normalised; None to leave them as they are."""
    E_scaling: tuple[float, ...] = ()
    """S of each element in 1/eV; 1 by default."""
    E_shift: tuple[float, ...] = ()
    """e_0 of each element in eV; 0 by default."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "elements", tuple(int(z) for z in self.elements))
        if isinstance(self.descriptor, Mapping):
            object.__setattr__(self, "descriptor", Descriptor(**self.descriptor))
        if isinstance(self.features, Mapping):
            object.__setattr__(self, "features", FeatureStatistics(**self.features))
        number = len(self.elements)
        object.__setattr__(self, "E_scaling", self.E_scaling or (1.0,) * number)
        object.__setattr__(self, "E_shift", self.E_shift or (0.0,) * number)
        if list(self.elements) != sorted(set(self.elements)) or not self.elements:
            raise ValueError(
                f"elements: expected distinct atomic numbers in ascending order, found "
                f"{self.elements}"
            )
        for what in ("arch", "E_scaling", "E_shift"):
            if len(getattr(self, what)) != number:
                raise ValueError(
                    f"{what}: expected one entry for each of {number} elements, found "
                    f"{len(getattr(self, what))}"
                )
        self.descriptor.check_elements(self.elements)
        for element, architecture in zip(self.elements, self.arch, strict=True):
            check_architecture(f"arch, {chemical_symbols[element]}", architecture)
        if self.features is not None:
            self._check_features(self.features)

    def _check_features(self, features: FeatureStatistics) -> None:
        if features.size != self.descriptor.size:
            raise ValueError(
                f"feature statistics: expected {self.descriptor.size} features, found "
                f"{features.size}"
            )
        if len(features.mean) not in (1, len(self.elements)):
            raise ValueError(
                f"feature statistics: expected one row or one for each of {len(self.elements)} "
                f"elements, found {len(features.mean)}"
            )

    @classmethod
    def cutoff_of(cls, options: Any) -> float:
        """Return the larger radius of the descriptor."""
        return max(options.descriptor.rad_cutoff, options.descriptor.ang_cutoff)

    @classmethod
    def from_options(cls, options: Any, training: TrainingSet, **_: Any) -> ChebyshevSettings:
        """Return the settings that options describe, with constants measured on the training set.

        Raises:
            ConfigurationError: options and training set do not go together.
        """
        elements = training.elements
        descriptor = options.descriptor.of_elements(elements)
        scaling, shift = energy_constants(options, training)
        try:
            unnormalised = cls(
                elements,
                descriptor,
                architectures_of(options.arch, elements),
                E_scaling=(scaling,) * len(elements),
                E_shift=(shift,) * len(elements),
            )
            statistics = feature_statistics(options, descriptor, training)
            return dataclasses.replace(unnormalised, features=statistics)
        except ConfigurationError:
            raise
        except ValueError as error:
            raise ConfigurationError(str(error)) from error

    @classmethod
    def features_of(cls, options: Any) -> Callable[[tuple[int, ...]], DescriptorFeatures] | None:
        """Return those of the descriptor, unless they are to be computed anew in every step."""
        if options.cache_features == "false":
            return None

        def of_elements(elements: tuple[int, ...]) -> DescriptorFeatures:
            try:
                descriptor = options.descriptor.of_elements(elements)
                descriptor.check_elements(elements)
            except ValueError as error:
                raise ConfigurationError(str(error)) from error
            return DescriptorFeatures(descriptor, tuple(sorted(descriptor.species)))

        return of_elements

    @property
    def r_max(self) -> float:  # type: ignore[override]  # follows from the descriptor
        """Cutoff of the edges in Å."""
        return self.descriptor.cutoff

    @property
    def num_interactions(self) -> int:
        """One: what an atom sees reaches as far as the cutoff."""
        return 1

    @property
    def channels(self) -> int:
        """Number of features."""
        return self.descriptor.size

    @property
    def max_hidden_degree(self) -> int:
        """Zero: all features are invariant."""
        return 0

    @property
    def least_distance(self) -> float:
        """That of the descriptor."""
        return self.descriptor.min_cutoff

    @property
    def on_request(self) -> tuple[str, ...]:
        """Descriptors, and how far these are outside the training set, if its range is known."""
        known = self.features is not None and self.features.has_range
        return ("descriptors", "extrapolation") if known else ("descriptors",)

    def describe(self, graph: Graph) -> dict[str, Array]:
        """Return the raw features of every atom, and the fraction of them outside the range."""
        raw = descriptors_of(graph, self.descriptor, self.elements)
        found = {"descriptors": raw}
        if "extrapolation" in self.on_request:
            assert self.features is not None
            outside = self.features.outside(raw, jnp.asarray(graph.species))
            found["extrapolation"] = jnp.where(graph.atom_mask, outside, 0.0)
        return found

    def precompute(
        self, structures: StructureSet, options: Any, *, derivatives: bool, edges_are_read: bool
    ) -> StructureSet | None:
        """Return structures with stored descriptors, or computed ones if there is room."""
        wanted = options.cache_features
        if edges_are_read and wanted == "true":
            raise ConfigurationError(
                "cache_features: expected auto or false for a model that reads edges beside the "
                "descriptors, as with conserve_charge: learned; found true"
            )
        if wanted == "false" or edges_are_read:
            return None
        stored = structures.with_stored_features(derivatives=derivatives)
        if stored is not None:
            logger.info(
                "Features%s of %d atoms are read from files",
                " and their derivatives" if derivatives else "",
                stored.sizes.atoms.sum(),
            )
            return stored
        return with_descriptors(
            structures,
            self.descriptor,
            self.elements,
            dtype=options.default_dtype,
            derivatives=derivatives,
            most_bytes=None if wanted == "true" else ROOM_FOR_FEATURES,
        )

    @property
    def last_map(self) -> str:
        """The last layer of the network of each element."""
        each = zip(self.elements, self.arch, strict=True)
        return f"({'|'.join(f'{chemical_symbols[z]}/(weight|bias)_{len(it)}$' for z, it in each)})"

    def read_out(
        self, output: BackboneOutput, multiplicities: Multiplicities, *, label: str, **_: Any
    ) -> Features:
        """Return the outputs of a network per element over the same descriptors."""
        assert output.species is not None
        networks = ElementNetworks(
            self.elements, self.arch, outputs=multiplicities[0], name=f"{label}_0"
        )
        return {0: networks(output.layers[0][0][:, 0], output.species)[:, None]}
