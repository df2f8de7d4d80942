import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_system import tiny_graph

from mace_scf_jax.training.losses import LOSSES, LossError, check_terms, weighted_loss

REFERENCE = Path(__file__).parents[1] / "data" / "reference" / "training"


def on_device(*containers):
    return jax.tree.map(jnp.asarray, containers)


def loss(name, prediction, graph):
    return LOSSES[name].function(*on_device(prediction, graph))


def reference_case(name, *, extra_atoms, extra_graphs):
    """Labels as a padded batch, the predictions, and the weighted terms of the PyTorch package."""
    data = np.load(REFERENCE / f"losses_{name}.npz")
    atoms, graphs = len(data["in/batch"]), len(data["in/ref_energy"])

    def padded(key):
        rows = extra_atoms if len(data[key]) == atoms else extra_graphs
        # Padding holds rubbish on purpose: it must not count.
        return np.concatenate([data[key], np.full((rows, *data[key].shape[1:]), 7.0)])

    def weight(key):
        return padded(f"in/ref_{key}weight")

    owner = np.concatenate([data["in/batch"], np.full(extra_atoms, graphs + extra_graphs - 1)])
    graph = tiny_graph(0).replace(
        positions=np.zeros((atoms + extra_atoms, 3)),
        cell=np.zeros((graphs + extra_graphs, 3, 3)),
        atom_graph=owner,
        atom_mask=np.arange(atoms + extra_atoms) < atoms,
        graph_mask=np.arange(graphs + extra_graphs) < graphs,
        total_charge=padded("in/total_charge"),
        labels={
            "energy": padded("in/ref_energy"),
            "forces": padded("in/ref_forces"),
            "atomic_multipoles": padded("in/density_coefficients"),
            "dipole": padded("in/ref_dipole"),
        },
        weights={
            "energy": weight("energy_"),
            "forces": weight("forces_"),
            "atomic_multipoles": weight("density_coefficients_"),
            "dipole": weight("dipole_"),
        },
        config_weight=weight(""),
    )
    prediction = {
        "energy": padded("out/energy"),
        "forces": padded("out/forces"),
        "multipoles": padded("out/density"),
        "dipole": padded("out/dipole"),
    }
    prediction["total_charge"] = graph.sum_atoms(prediction["multipoles"][:, 0])
    weights = json.loads(str(data["meta"]))["loss"]
    expected = {
        key.split("/")[-1]: data[key].item() for key in data.files if "weighted_loss" in key
    }
    return graph, prediction, {name: weights[name] for name in expected}, expected


@pytest.mark.parametrize("case", ["direct", "unroll_scf_constant_charge"])
@pytest.mark.parametrize("padding", [(1, 1), (13, 3)])
def test_terms_equal_the_pytorch_package(case, padding):
    graph, prediction, weights, expected = reference_case(
        case, extra_atoms=padding[0], extra_graphs=padding[1]
    )
    total, terms = weighted_loss(weights, *on_device(prediction, graph))
    assert set(terms) == set(expected) == set(LOSSES) - {"stress"}
    for name, value in expected.items():
        np.testing.assert_allclose(terms[name], value, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(total, sum(expected.values()), rtol=1e-12)


def test_stress_is_the_mean_over_graphs_and_components():
    graph = tiny_graph(0)
    labels = np.zeros((3, 3, 3))
    labels[2] = 1e9  # padding
    graph = graph.replace(
        labels={"stress": labels},
        weights={"stress": np.array([1.0, 0.5, 1.0])},
        config_weight=np.array([2.0, 3.0, 1.0]),
    )
    prediction = {"stress": np.full((3, 3, 3), 2.0)}
    # (2 * 1 * 4 + 3 * 0.5 * 4) / 2 graphs, the same for all nine components
    np.testing.assert_allclose(loss("stress", prediction, graph), 7.0, rtol=1e-14)


def test_unlabelled_entries_count_in_the_denominator_only():
    graph = tiny_graph(0)
    graph = graph.replace(weights={**graph.weights, "energy": np.array([1.0, 0.0, 0.0])})
    prediction = {"energy": graph.labels["energy"] + np.array([3.0, 100.0, 0.0])}
    # one labelled graph of three atoms, off by 3 eV, among two real graphs
    value = loss("energy_per_atom", prediction, graph)
    np.testing.assert_allclose(value, 0.5, rtol=1e-14)


def test_dipole_weights_are_per_component():
    graph = tiny_graph(0)
    weight = np.array([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    graph = graph.replace(weights={"dipole": weight})
    prediction = {"dipole": graph.labels["dipole"] + np.array([1.0, 10.0, 2.0])}
    value = loss("dipole", prediction, graph)
    np.testing.assert_allclose(value, (1.0 + 2.0 * 4.0) / 6.0, rtol=1e-14)


def test_gradient_of_padding_is_zero():
    graph = tiny_graph(0)
    prediction = {
        "energy": np.zeros(3),
        "forces": np.zeros((8, 3)),
        "multipoles": np.zeros((8, 4)),
        "total_charge": np.ones(3),
        "dipole": np.zeros((3, 3)),
    }
    weights = {name: 1.0 for name in LOSSES if name != "stress"}
    prediction, graph = on_device(prediction, graph)
    gradient = jax.grad(lambda values: weighted_loss(weights, values, graph)[0])(prediction)
    for name, values in gradient.items():
        mask = graph.atom_mask if len(values) == graph.num_atoms else graph.graph_mask
        assert np.all(np.asarray(values)[~mask] == 0.0), name
        assert np.all(np.asarray(values)[mask] != 0.0), name


def test_multipoles_of_another_order_are_refused():
    graph = tiny_graph(0)
    with pytest.raises(LossError, match="labels have 4 components per atom, the model predicts 1"):
        loss("atomic_multipoles", {"multipoles": np.zeros((8, 1))}, graph)


OUTPUTS = ("energy", "forces", "multipoles", "dipole", "total_charge")


@pytest.mark.parametrize(
    ("names", "outputs", "labels", "message"),
    [
        ([], OUTPUTS, {}, "the loss has no term"),
        (["force"], OUTPUTS, {}, "unknown loss term 'force'; did you mean 'forces'?"),
        (["dipole"], ("energy", "forces"), {"dipole": 3.0}, "needs the model output 'dipole'"),
        (["forces"], OUTPUTS, {"energy": 4.0}, "needs the label 'forces', but no training"),
        (["dipole_per_atom"], OUTPUTS, {"dipole": 0.0}, "needs the label 'dipole', but no"),
    ],
)
def test_terms_that_cannot_be_trained_on_are_refused(names, outputs, labels, message):
    with pytest.raises(LossError) as caught:
        check_terms(names, outputs, labels, where="stage 'first'")
    assert str(caught.value).startswith("stage 'first': ")
    assert message in str(caught.value)


def test_complete_terms_pass():
    check_terms(["energy_per_atom", "total_charge"], OUTPUTS, {"energy": 1.0}, where="stage 'a'")
