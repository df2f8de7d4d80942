"""Units of metrics, from those of the labels that they compare with."""

from __future__ import annotations

from mace_scf_jax.data.properties import PROPERTIES
from mace_scf_jax.predict.metrics import QUANTITIES

PER_ATOM = "_per_atom"
RELATIVE = "rel_"
_STATISTICS = ("mae_spread_", "rmse_spread_", "offset_", "rmse_", "mae_", "q95_")
_PARTS_OF_MULTIPOLES = {"charges": "e", "local_dipoles": "e Å"}


def metric_unit(name: str) -> str:
    """The unit of a metric; empty for a loss and for names that are no metric.

    Args:
        name: such as ``rmse_f``, ``rel_mae_mu`` or ``offset_e_per_atom``.
    """
    if name.startswith(RELATIVE):
        return "%"
    statistic = next((start for start in _STATISTICS if name.startswith(start)), None)
    if statistic is None:
        return ""
    symbol = name.removeprefix(statistic).removesuffix(PER_ATOM)
    units = {quantity.symbol: PROPERTIES[quantity.label].unit for quantity in QUANTITIES}
    unit = (units | _PARTS_OF_MULTIPOLES).get(symbol, "")
    return f"{unit}/atom" if unit and name.endswith(PER_ATOM) else unit
