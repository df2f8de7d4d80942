"""Equivariant layers that networks and readouts are made of: features, linear maps, couplings."""

from typing import TYPE_CHECKING

from mace_scf_jax.late import imported_late

if TYPE_CHECKING:
    from mace_scf_jax.layers.features import Features, add_up, concatenate_components
    from mace_scf_jax.layers.linear import EquivariantLinear, FullyConnectedTensorProduct
    from mace_scf_jax.layers.readout import LinearReadout, NonlinearReadout

__all__ = [
    "EquivariantLinear",
    "Features",
    "FullyConnectedTensorProduct",
    "LinearReadout",
    "NonlinearReadout",
    "add_up",
    "concatenate_components",
]

__getattr__, __dir__ = imported_late(__name__, __file__)
