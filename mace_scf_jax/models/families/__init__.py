"""The model families, one folder and one line each."""

from mace_scf_jax.models.families import (
    chebyshev_ann,
    energy_functional,
    fixed_charges,
    fixed_point,
    local_charges,
    mace,
    polar_mace,
    qeq,
    split_charges,
)
from mace_scf_jax.models.family import FAMILIES

for family in (
    mace.PLAIN,
    mace.SCALE_SHIFT,
    chebyshev_ann.FAMILY,
    local_charges.FAMILY,
    split_charges.FAMILY,
    fixed_charges.FAMILY,
    qeq.FAMILY,
    energy_functional.FAMILY,
    fixed_point.FAMILY,
    polar_mace.FAMILY,
):
    FAMILIES.add(family)
