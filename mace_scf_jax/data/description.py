"""What a preprocessed data set was prepared for, and whether that is what a run asks for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification

_ROUNDING = 1e-12
"""Relative difference of cutoffs that only comes from rounding."""


@dataclasses.dataclass(frozen=True)
class Description:
    """Everything that decides what a preprocessed data set holds, besides the structures."""

    keys: KeySpecification
    multipoles_max_l: int
    cutoff: float
    """Cutoff of the edges, Å."""
    kspace_cutoff: float | None
    """Cutoff of the reciprocal vectors, 1/Å; None without any."""
    tails: float | None = None
    """Length in Å to which Gaussians reach in the boundary condition ``exact``; None in others."""
    features: Mapping[str, Any] | None = None
    """What describes the features of atoms, as of `AtomFeatures.to_dict`; None without any."""
    derivatives: bool = False
    """Whether there are derivatives of the features."""

    def with_features(self, features: Mapping[str, Any], *, derivatives: bool) -> Description:
        """The description of the same data set with features."""
        return dataclasses.replace(self, features=features, derivatives=derivatives)

    def to_dict(self) -> dict[str, Any]:
        """The description as JSON values."""
        return {
            "info_keys": dict(self.keys.info_keys),
            "arrays_keys": dict(self.keys.arrays_keys),
            "completed": sorted(self.keys.completed),
            "multipoles_max_l": self.multipoles_max_l,
            "cutoff": self.cutoff,
            "kspace_cutoff": self.kspace_cutoff,
            "tails": self.tails,
            "features": self.features,
            "derivatives": self.derivatives,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Description:
        """The description written by `to_dict`."""
        return cls(
            keys=KeySpecification(
                info_keys=values["info_keys"],
                arrays_keys=values["arrays_keys"],
                completed=frozenset(values["completed"]),
            ),
            multipoles_max_l=int(values["multipoles_max_l"]),
            cutoff=float(values["cutoff"]),
            kspace_cutoff=(
                None if values["kspace_cutoff"] is None else float(values["kspace_cutoff"])
            ),
            tails=None if values.get("tails") is None else float(values["tails"]),
            features=values.get("features"),
            derivatives=bool(values.get("derivatives", False)),
        )

    def check_labels(self, keys: KeySpecification, multipoles_max_l: int, *, file: str) -> None:
        """Refuse other keys and another order of multipoles than the run asks for.

        Raises:
            DataError: names each difference.
        """
        names = sorted({*self.keys.names(), *keys.names()} - {"head"})
        differences = [
            f"key of {name} {_key(self.keys, name)} (the run asks for {_key(keys, name)})"
            for name in names
            if self.keys.key_of(name) != keys.key_of(name)
        ]
        if self.multipoles_max_l != multipoles_max_l:
            differences.append(
                f"atomic_multipoles_max_l {self.multipoles_max_l} (the run asks for "
                f"{multipoles_max_l})"
            )
        _refuse(differences, file)

    def check_model(
        self,
        cutoff: float,
        kspace_cutoff: float | None,
        features: Mapping[str, Any] | None = None,
        *,
        file: str,
    ) -> None:
        """Refuse other cutoffs, in Å and 1/Å, and other features than the run asks for.

        Reciprocal vectors that the run does not need are no difference, nor are features that are
        not stored or not asked for.

        Raises:
            DataError: names each difference.
        """
        differences = []
        if not _close(self.cutoff, cutoff):
            differences.append(f"r_max {self.cutoff:g} Å (the run asks for {cutoff:g} Å)")
        if kspace_cutoff is not None and self.kspace_cutoff is None:
            differences.append(
                f"no reciprocal vectors (the run asks for |k| up to {kspace_cutoff:g} 1/Å)"
            )
        elif kspace_cutoff is not None and not _close(self.kspace_cutoff, kspace_cutoff):
            differences.append(
                f"reciprocal vectors up to {self.kspace_cutoff:g} 1/Å (the run asks for "
                f"{kspace_cutoff:g} 1/Å, which follows from smearing width, multipoles and "
                "kspace_cutoff_factor)"
            )
        if features is not None and self.features is not None:
            differences += _differences(self.features, features)
        _refuse(differences, file)


def _differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What two descriptions of features do not have in common."""
    names = [
        name for name in dict.fromkeys([*stored, *asked]) if stored.get(name) != asked.get(name)
    ]
    return [
        f"features of {name} {_told(stored.get(name))} (the run asks for {_told(asked.get(name))})"
        for name in names
    ]


def _told(value: Any) -> str:
    """A parameter of features in words."""
    if isinstance(value, float):
        return f"{value:.12g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _key(keys: KeySpecification, name: str) -> str:
    key = keys.key_of(name)
    return "none" if key is None else repr(key)


def _close(first: float, second: float) -> bool:
    return math.isclose(first, second, rel_tol=_ROUNDING)


def _refuse(differences: list[str], file: str) -> None:
    if differences:
        raise DataError(
            f"{file}: preprocessed with {'; '.join(differences)}. Preprocess again with the "
            "options of the run, or change those"
        )
