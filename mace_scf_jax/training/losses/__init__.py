"""Terms of the loss: plain functions of a prediction and a batch, and their weighted sum.

The formulas are in `properties`, `molecules` and `solution`. A term from outside the
package is registered like those::

    from mace_scf_jax.training.losses import Mean, mean, property_weight, register_loss

    @register_loss("fourth power of the force error", predictions=("forces",), labels=("forces",))
    def quartic_forces(prediction, graph) -> Mean:
        error = graph.labels["forces"] - prediction["forces"]
        weight = property_weight(graph, "forces")[graph.atom_graph]
        return mean(weight[:, None] * error**4, graph.atom_mask)
"""

from typing import TYPE_CHECKING

from mace_scf_jax.late import imported_late

if TYPE_CHECKING:
    from mace_scf_jax.training.losses.terms import (
        GEOMETRY_DERIVATIVES,
        LOSSES,
        WEIGHT_MODIFIER,
        LossError,
        LossTerm,
        Mean,
        Prediction,
        atoms_per_graph,
        check_terms,
        check_validation,
        loss_inputs,
        loss_means,
        loss_options,
        mean,
        outputs_read,
        property_weight,
        register_loss,
        root_mean,
        weighted_loss,
    )

__all__ = [
    "GEOMETRY_DERIVATIVES",
    "LOSSES",
    "WEIGHT_MODIFIER",
    "LossError",
    "LossTerm",
    "Mean",
    "Prediction",
    "atoms_per_graph",
    "check_terms",
    "check_validation",
    "loss_inputs",
    "loss_means",
    "loss_options",
    "mean",
    "molecules",
    "outputs_read",
    "properties",
    "property_weight",
    "register_loss",
    "root_mean",
    "solution",
    "weighted_loss",
]

__getattr__, __dir__ = imported_late(__name__, __file__)
