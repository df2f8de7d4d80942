"""Potentials of the programs ænet: import and export of their files, as text and binary.

All knowledge of these files is here; nothing below the command line imports it. Models that
ænet-python pickled are read by `mace_scf_jax.pytorch`.
"""

from mace_scf_jax.aenet.exchange import (
    EnergyDeviation,
    compare_with_formulas,
    export_committee,
    export_potential,
    import_potential,
)
from mace_scf_jax.aenet.files import read_potential
from mace_scf_jax.aenet.potential import AenetFileError, ElementPotential

__all__ = [
    "AenetFileError",
    "ElementPotential",
    "EnergyDeviation",
    "compare_with_formulas",
    "export_committee",
    "export_potential",
    "import_potential",
    "read_potential",
]
