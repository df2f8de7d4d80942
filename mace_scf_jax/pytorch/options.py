"""Options of a MACE_SCF model that its state dict tells."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mace_scf_jax.pytorch.constants import UPDATE

_FACTOR_DIGITS = 12
"""Decimals kept of a cutoff factor, which is the quotient of two rounded numbers."""


def options_from_state(family: str, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Options in the configuration of a model with charges, as far as its buffers contain them.

    Args:
        family: name of the class.
        state: parameters and buffers by name.

    Returns:
        Multipole order and width, cutoff factor, formal charges, field features with their norms,
        and whether there are polarizability readouts; what the family does not have is left out.
    """
    max_l, (width,) = _basis(state, "coulomb_energy.density_basis")
    options: dict[str, Any] = {
        "atomic_multipoles_max_l": max_l,
        "atomic_multipoles_smearing_width": width,
    }
    highest_l, narrowest = max_l, width
    if "formal_charges.formal_charges" in state:
        options["atomic_formal_charges"] = state["formal_charges.formal_charges"].tolist()
    if family == "LocalSplitCharges":
        options["formal_charges_from_data"] = "atomic_formal_charges" not in options
        options["compute_polarizability"] = any("polarizability_readouts" in key for key in state)
        mixer_range = "oxidation_state_mixer.ox_embedding.oxidation_state_range"
        if mixer_range in state:
            options["oxidation_state_range"] = state[mixer_range].tolist()
    if family == "FixedPoint":
        feature_l, widths = _basis(state, "electric_potential_descriptor.feature_basis")
        highest_l, narrowest = max(highest_l, feature_l), min(narrowest, *widths)
        count = len(widths)
        starts = [
            degree**2 * count + index * (2 * degree + 1)
            for degree in range(feature_l + 1)
            for index in range(count)
        ]
        linear = "lr_source_maps.0.linear.weight" in state
        scaling = np.ones(len(state["atomic_numbers"]))
        for part in ("lr_source_maps.0", UPDATE):  # the same, if both have one
            scaling = state.get(f"{part}.atom_density_scale", scaling)
        options |= {
            "field_feature_max_l": feature_l,
            "field_feature_widths": widths,
            "field_feature_norms": state["field_feature_norms"][starts].tolist(),
            "fermi_level_offset": float(state["fermi_level_offset"]),
            "use_linear_local_charges": linear,
            "atom_density_scaling": scaling.tolist(),
        }
    unscaled = 0.75 * 3.0 / narrowest * (highest_l + 1) ** 0.3
    factor = float(state["kspace_cutoff"]) / unscaled
    options["kspace_cutoff_factor"] = round(factor, _FACTOR_DIGITS)
    return options


def _basis(state: Mapping[str, np.ndarray], name: str) -> tuple[int, list[float]]:
    """Highest degree and widths in Å of a basis of Gaussians."""
    max_l = state[f"{name}.cl_scale"].shape[1] - 1
    return max_l, [math.sqrt(value) for value in state[f"{name}.radial_spline.sigma2"]]
