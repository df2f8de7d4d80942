"""The table of public models."""

from __future__ import annotations

import dataclasses
from urllib.parse import urlparse

_MATERIALS = "https://github.com/ACEsuit/mace-mp/releases/download"
_FOUNDATIONS = "https://github.com/ACEsuit/mace-foundations/releases/download"
_ORGANIC = "https://raw.githubusercontent.com/ACEsuit/mace-off/main/mace_off23"


@dataclasses.dataclass(frozen=True)
class Licence:
    """Under which terms a model may be used."""

    name: str
    url: str
    terms: str
    """The point of it in one sentence."""


MIT = Licence("MIT", "https://opensource.org/license/mit", "any use, with the notice kept")
ASL = Licence(
    "ASL", "https://github.com/gabor1/ASL", "academic use; commercial use is not permitted"
)
UNSTATED = Licence(
    "see the release",
    "https://github.com/ACEsuit/mace-foundations",
    "this table knows no licence of the file: read what its makers say",
)


@dataclasses.dataclass(frozen=True)
class Release:
    """A model that its makers have published."""

    url: str
    """Of its file, a PyTorch module."""
    about: str
    """What it is for."""
    licence: Licence
    citation: str
    sha256: str | None = None
    """Of the file, where its makers have published it."""

    @property
    def file_name(self) -> str:
        """Name of the file."""
        return urlparse(self.url).path.rsplit("/", 1)[-1]


def _materials(path: str, about: str, licence: Licence = MIT) -> Release:
    return Release(f"{_MATERIALS}/{path}", about, licence, "arXiv:2401.00096")


_MP0, _MP0B = "materials, MPtrj, PBE+U", "materials, MPtrj, PBE+U, for molecular dynamics"
_OMAT, _MATPES = "materials, OMat24, PBE+U", "materials, MatPES"
_OFF, _HEADS = "organic molecules, ωB97M-D3(BJ)", "materials, surfaces and molecules, several heads"
_POLAR = "molecules, charges and spins, OMol25, ωB97M-V"
_CROSS_LEARNING = "arXiv:2510.25380"

RELEASES: dict[str, Release] = {
    "mace-mp-0-small": _materials("mace_mp_0/2023-12-10-mace-128-L0_energy_epoch-249.model", _MP0),
    "mace-mp-0-medium": _materials("mace_mp_0/2023-12-03-mace-128-L1_epoch-199.model", _MP0),
    "mace-mp-0-large": _materials("mace_mp_0/2024-01-07-mace-128-L2_epoch-199.model", _MP0),
    "mace-mp-0b-small": _materials("mace_mp_0b/mace_agnesi_small.model", _MP0B),
    "mace-mp-0b-medium": _materials("mace_mp_0b/mace_agnesi_medium.model", _MP0B),
    "mace-mp-0b2-small": _materials("mace_mp_0b2/mace-small-density-agnesi-stress.model", _MP0B),
    "mace-mp-0b2-medium": _materials("mace_mp_0b2/mace-medium-density-agnesi-stress.model", _MP0B),
    "mace-mp-0b2-large": _materials("mace_mp_0b2/mace-large-density-agnesi-stress.model", _MP0B),
    "mace-mp-0b3-medium": _materials("mace_mp_0b3/mace-mp-0b3-medium.model", _MP0B),
    "mace-mpa-0-medium": _materials(
        "mace_mpa_0/mace-mpa-0-medium.model", "materials, MPtrj and sAlex, PBE+U"
    ),
    "mace-omat-0-small": _materials("mace_omat_0/mace-omat-0-small.model", _OMAT, ASL),
    "mace-omat-0-medium": _materials("mace_omat_0/mace-omat-0-medium.model", _OMAT, ASL),
    **{
        f"mace-matpes-{functional}-0": Release(
            f"{_FOUNDATIONS}/mace_matpes_0/MACE-matpes-{functional}-omat-ft.model",
            f"{_MATPES}, {functional}",
            ASL,
            "arXiv:2401.00096",
        )
        for functional in ("pbe", "r2scan")
    },
    **{
        f"mace-off23-{size}": Release(
            f"{_ORGANIC}/MACE-OFF23_{size}.model", _OFF, ASL, "arXiv:2312.15211"
        )
        for size in ("small", "medium", "large")
    },
    "mace-omol-0": Release(
        f"{_FOUNDATIONS}/mace_omol_0/MACE-omol-0-extra-large-1024.model",
        "molecules, charge and spin, OMol25, ωB97M-V",
        ASL,
        _CROSS_LEARNING,
    ),
    **{
        f"mace-mh-{number}": Release(
            f"{_FOUNDATIONS}/mace_mh_1/mace-mh-{number}.model", _HEADS, ASL, _CROSS_LEARNING
        )
        for number in (0, 1)
    },
    **{
        f"mace-polar-1-{size}": Release(
            f"{_FOUNDATIONS}/mace_polar_1/MACE-POLAR-1-{size.upper()}.model",
            _POLAR,
            UNSTATED,
            "see the release",
        )
        for size in ("s", "m", "l")
    },
}
"""Public models by name. Addresses, licences and citations are those that their makers give in
``mace-torch`` 0.3.16 and in the tables of the README of the repositories ``ACEsuit/mace`` and
``ACEsuit/mace-foundations``; neither names a licence of MACE-POLAR-1, and none publishes a
SHA-256."""
