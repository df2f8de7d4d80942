"""Losses of labelled properties: energies, forces, stress, charges, dipoles, potentials."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float
from pydantic import Field

from mace_scf_jax.graph import Graph
from mace_scf_jax.options import OptionGroup
from mace_scf_jax.training.losses.terms import (
    LossError,
    Mean,
    Prediction,
    atoms_per_graph,
    mean,
    property_weight,
    register_loss,
    root_mean,
)


class ErrorForm(OptionGroup):
    """What is made of the errors of a term"""

    form: Literal["squared", "rmse"] = Field(
        default="squared",
        description="squared: mean of w v e² over all entries; rmse: √(Σ w v e² / Σ w v), which "
        "only entries with a label count in",
    )

    def of(self, squares: Float[Array, "entries *rest"], weight: Array, mask: Array) -> Mean:
        """The term from squared errors e² and their weights w v."""
        if self.form == "rmse":
            return root_mean(squares, weight, mask)
        return mean(weight * squares, mask)


@register_loss(
    "energy error per atom", predictions=("energy",), labels=("energy",), options=ErrorForm
)
def energy_per_atom(prediction: Prediction, graph: Graph, options: ErrorForm) -> Mean:
    """Mean over graphs of w v ((E_ref - E) / N)², in (eV/atom)²; or its root, see `ErrorForm`."""
    difference = graph.labels["energy"] - prediction["energy"]  # of large numbers, in double
    error = difference.astype(graph.dtype) / atoms_per_graph(graph)
    return options.of(error**2, property_weight(graph, "energy"), graph.graph_mask)


@register_loss("force components", predictions=("forces",), labels=("forces",), options=ErrorForm)
def forces(prediction: Prediction, graph: Graph, options: ErrorForm) -> Mean:
    """Mean over atoms and components of w v (F_ref - F)², in (eV/Å)²; or its root."""
    error = graph.labels["forces"] - prediction["forces"]
    weight = property_weight(graph, "forces")[graph.atom_graph]
    return options.of(error**2, weight[:, None], graph.atom_mask)


@register_loss("stress components", predictions=("stress",), labels=("stress",))
def stress(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs and the nine components of w v (S_ref - S)², in (eV/Å³)²."""
    return _of_labelled_cells("stress", prediction, graph, divisor=1.0)


@register_loss("virials per atom", predictions=("virials",), labels=("virials",))
def virials(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs and the nine components of w v ((W_ref - W) / N)², in (eV/atom)².

    W = -dE/dε = -Ω S, the sign of MACE and of the labels `virials`.
    """
    atoms = atoms_per_graph(graph)[:, None, None]
    return _of_labelled_cells("virials", prediction, graph, divisor=atoms)


@register_loss(
    "multipole coefficients of each atom",
    predictions=("multipoles",),
    labels=("atomic_multipoles",),
)
def atomic_multipoles(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over atoms and (L+1)² components of w v (p_ref - p)², charges in e, dipoles in e Å."""
    reference, predicted = graph.labels["atomic_multipoles"], prediction["multipoles"]
    if reference.shape != predicted.shape:
        raise LossError(
            f"loss term 'atomic_multipoles': the labels have {reference.shape[1]} components per "
            f"atom, the model predicts {predicted.shape[1]}; set atomic_multipoles_max_l to the "
            "order that the model predicts"
        )
    weight = property_weight(graph, "atomic_multipoles")[graph.atom_graph]
    return mean(weight[:, None] * (reference - predicted) ** 2, graph.atom_mask)


@register_loss("sum of the charges", predictions=("total_charge",))
def total_charge(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs of w (Q_ref - Σq)², in e².

    Every configuration has a total charge (it is an input of the model), so there is no weight of
    the property.
    """
    error = graph.total_charge - prediction["total_charge"]
    return mean(graph.config_weight * error**2, graph.graph_mask)


@register_loss("sum of the charges, per atom", predictions=("total_charge",))
def total_charge_per_atom(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs of w ((Q_ref - Σq) / N)², in (e/atom)²; no weight of the property."""
    error = (graph.total_charge - prediction["total_charge"]) / atoms_per_graph(graph)
    return mean(graph.config_weight * error**2, graph.graph_mask)


@register_loss("dipole components", predictions=("dipole",), labels=("dipole",))
def dipole(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs and components of w v_c (D_ref - D)_c², in (e Å)²."""
    error = graph.labels["dipole"] - prediction["dipole"]
    return mean(_dipole_weight(graph) * error**2, graph.graph_mask)


@register_loss("dipole components, per atom", predictions=("dipole",), labels=("dipole",))
def dipole_per_atom(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs and components of w v_c ((D_ref - D)_c / N)², in (e Å/atom)²."""
    error = (graph.labels["dipole"] - prediction["dipole"]) / atoms_per_graph(graph)[:, None]
    return mean(_dipole_weight(graph) * error**2, graph.graph_mask)


@register_loss(
    "polarizability components, per atom",
    predictions=("polarizability",),
    labels=("polarizability",),
)
def polarizability(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs and the nine components of w v ((α_ref - α) / N)², in (e Å²/V/atom)²."""
    atoms = atoms_per_graph(graph)[:, None, None]
    error = (graph.labels["polarizability"] - prediction["polarizability"]) / atoms
    weight = property_weight(graph, "polarizability")[:, None, None]
    return mean(weight * error**2, graph.graph_mask)


@register_loss("Fermi level", predictions=("fermi_level",), labels=("fermi_level",))
def fermi_level(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs of w (μ_ref - μ)², in eV².

    There is no weight of the property: a configuration without Fermi level counts with μ_ref = 0,
    as in the PyTorch reference.
    """
    error = graph.labels["fermi_level"] - prediction["fermi_level"]
    return mean(graph.config_weight * error**2, graph.graph_mask)


@register_loss("Fermi level, per atom", predictions=("fermi_level",), labels=("fermi_level",))
def fermi_level_per_atom(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over graphs of w ((μ_ref - μ) / N)², in (eV/atom)²; no weight of the property."""
    error = (graph.labels["fermi_level"] - prediction["fermi_level"]) / atoms_per_graph(graph)
    return mean(graph.config_weight * error**2, graph.graph_mask)


@register_loss(
    "electrostatic potentials at the atoms",
    predictions=("esps_dft", "esps"),
    labels=("atomic_multipoles", "electrostatic_potentials"),
)
def esps(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over atoms of w v (U_ref - U)², in V².

    Both potentials are outputs of the model: U_ref follows from the reference multipoles, not from
    the label ``electrostatic_potentials``, of which only the weight v is used.
    """
    weight = property_weight(graph, "electrostatic_potentials")[graph.atom_graph]
    error = prediction["esps_dft"] - prediction["esps"]
    return mean(weight * error**2, graph.atom_mask)


@register_loss(
    "field features of the atoms",
    predictions=("feats_no_mu_dft", "feats_no_mu_model"),
    labels=("atomic_multipoles", "electrostatic_potentials"),
)
def field_features(prediction: Prediction, graph: Graph) -> Mean:
    """Mean over atoms of w v times the mean over the features of (f_ref - f)².

    Both are outputs of the model, without the Fermi level; v is the weight of the label
    ``electrostatic_potentials``.
    """
    weight = property_weight(graph, "electrostatic_potentials")[graph.atom_graph]
    error = prediction["feats_no_mu_dft"] - prediction["feats_no_mu_model"]
    return mean(weight[:, None] * error**2, graph.atom_mask)


def _dipole_weight(graph: Graph) -> Float[Array, "graphs 3"]:
    """Weight of the configuration times that of each Cartesian component of the dipole."""
    return graph.config_weight[:, None] * graph.weights["dipole"]


def _of_labelled_cells(
    name: str, prediction: Prediction, graph: Graph, *, divisor: Float[Array, "..."] | float
) -> Mean:
    """Squared errors of a tensor that structures without periodic directions do not have."""
    weight = property_weight(graph, name)[:, None, None]
    error = (
        jnp.where(weight > 0.0, graph.labels[name] - prediction[name], jnp.zeros_like(weight))
        / divisor
    )
    return mean(weight * error**2, graph.graph_mask)
