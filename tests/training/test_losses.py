import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_system import tiny_graph

from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    FieldFeatureSettings,
    batch_atomic_potentials,
)
from mace_scf_jax.options import ConfigurationError, OptionGroup
from mace_scf_jax.options.values import PositiveNumber
from mace_scf_jax.pytorch.verification.reference_file import graph_from_arrays
from mace_scf_jax.training.loop.schedule import read_schedule
from mace_scf_jax.training.losses import (
    LOSSES,
    LossError,
    check_terms,
    check_validation,
    loss_inputs,
    loss_options,
    mean,
    register_loss,
    weighted_loss,
)
from mace_scf_jax.training.losses.molecules import molecule_of_atom

REFERENCE = Path(__file__).parents[1] / "data" / "reference" / "training"


def on_device(*containers):
    return jax.tree.map(jnp.asarray, containers)


def loss(name, prediction, graph, **options):
    chosen = {name: loss_options(name, options)}
    prediction, graph = on_device(prediction, graph)
    return weighted_loss({name: 1.0}, prediction, graph, options=chosen)[0]


def potential_errors(data):
    """Potential of the reference minus that of the predicted multipoles, at the atoms."""
    options = json.loads(str(data["meta"]))["options"]
    features = FieldFeatureSettings(
        max_l=options["field_feature_max_l"], widths=tuple(options["field_feature_widths"])
    )
    settings = ElectrostaticsSettings(
        max_l=options["atomic_multipoles_max_l"],
        smearing_width=options["atomic_multipoles_smearing_width"],
        kspace_cutoff_factor=options["kspace_cutoff_factor"],
        boundary=options["pbc_handling"],
        features=features,
    )
    pbc = data["in/pbc"].copy()
    pbc[~pbc.any(axis=1)] = True  # the PyTorch package leaves potentials of molecules uncorrected
    graph = graph_from_arrays(
        data["in/positions"],
        data["in/batch"],
        cell=data["in/cell"],
        pbc=pbc,
        kspace_cutoff=settings.kspace_cutoff,
    )
    errors = np.zeros((graph.num_atoms, data["out/density"].shape[1]))
    errors[: len(data["in/batch"])] = data["in/density_coefficients"] - data["out/density"]
    potentials = jax.jit(lambda graph, p: batch_atomic_potentials(graph, p, settings=settings))
    return np.asarray(potentials(graph, jnp.asarray(errors)))[: len(data["in/batch"])]


def reference_case(name, *, extra_atoms, extra_graphs):
    """Labels as a padded batch, the predictions, and the weighted terms of the PyTorch package."""
    data = dict(np.load(REFERENCE / f"losses_{name}.npz"))
    data["out/esps_dft"] = potential_errors(data)
    data["out/esps"] = np.zeros_like(data["out/esps_dft"])
    atoms, graphs = len(data["in/batch"]), len(data["in/ref_energy"])

    def padded(key):
        rows = extra_atoms if len(data[key]) == atoms else extra_graphs
        # Padding holds rubbish on purpose: it must not count.
        return np.concatenate([data[key], np.full((rows, *data[key].shape[1:]), 7.0)])

    def weight(key):
        return padded(f"in/ref_{key}weight")

    owner = np.concatenate([data["in/batch"], np.full(extra_atoms, graphs + extra_graphs - 1)])
    graph = tiny_graph(0).replace(
        positions=padded("in/positions"),
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
            "fermi_level": padded("in/fermi_level"),
            "molID": padded("in/ref_cluster_batch").astype(int),
        },
        weights={
            "energy": weight("energy_"),
            "forces": weight("forces_"),
            "atomic_multipoles": weight("density_coefficients_"),
            "dipole": weight("dipole_"),
            "electrostatic_potentials": weight("electrostatic_potentials_"),
            "molID": weight("cluster_loss_"),
        },
        config_weight=weight(""),
    )
    prediction = {
        "energy": padded("out/energy"),
        "forces": padded("out/forces"),
        "multipoles": padded("out/density"),
        "dipole": padded("out/dipole"),
        "fermi_level": padded("out/fermi_level"),
        "esps_dft": padded("out/esps_dft"),
        "esps": padded("out/esps"),
    }
    prediction["total_charge"] = graph.sum_atoms(prediction["multipoles"][:, 0])
    weights = json.loads(str(data["meta"]))["loss"]
    expected = {key.split("/")[-1]: data[key].item() for key in data if "weighted_loss" in key}
    return graph, prediction, {name: weights[name] for name in expected}, expected


NOT_IN_REFERENCE = {
    "stress",
    "virials",
    "polarizability",
    "field_features",
    "fixedpoint_scf_stability",
    "final_terms_fixedpoint_scf_stability",
    "fermi_level_gradient",
    "rho_fftn",
    "fourier_density",
}
"""Terms that the reference files do not hold."""

ESP_TOLERANCE = 1e-9
"""Potentials of the reference carry the numerical error of its Gaussian integrals."""


@pytest.mark.parametrize("case", ["direct", "unroll_scf_constant_charge"])
@pytest.mark.parametrize("padding", [(1, 1), (13, 3)])
def test_terms_equal_the_pytorch_package(case, padding):
    graph, prediction, weights, expected = reference_case(
        case, extra_atoms=padding[0], extra_graphs=padding[1]
    )
    total, terms = weighted_loss(weights, *on_device(prediction, graph))
    assert set(terms) == set(expected) == set(LOSSES) - NOT_IN_REFERENCE
    for name, value in expected.items():
        tolerance = ESP_TOLERANCE if name == "esps" else 1e-12
        np.testing.assert_allclose(terms[name], value, rtol=tolerance, atol=1e-25, err_msg=name)
    np.testing.assert_allclose(total, sum(expected.values()), rtol=ESP_TOLERANCE)


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


def test_virials_are_the_negative_stress_times_the_volume_per_atom():
    """And what a molecule has instead, NaN without weight, spoils neither value nor gradient."""
    graph = tiny_graph(0)
    graph = graph.replace(
        labels={"virials": np.zeros((3, 3, 3))},
        weights={"virials": np.array([1.0, 0.0, 0.0])},
        config_weight=np.array([2.0, 3.0, 1.0]),
    )
    predicted = np.full((3, 3, 3), 6.0)
    predicted[1] = np.nan

    def value(virials):
        return loss("virials", {"virials": virials}, graph)

    # 2 * (6 / 3 atoms)² / 2 graphs, the same for all nine components
    np.testing.assert_allclose(value(predicted), 4.0, rtol=1e-14)
    gradient = jax.grad(value)(jnp.asarray(predicted))
    np.testing.assert_array_equal(gradient[1:], 0.0)
    np.testing.assert_allclose(gradient[0], 2 * 4.0 / 6.0 / 9.0)


def test_unlabelled_entries_count_in_the_denominator_only():
    graph = tiny_graph(0)
    graph = graph.replace(weights={**graph.weights, "energy": np.array([1.0, 0.0, 0.0])})
    prediction = {"energy": graph.labels["energy"] + np.array([3.0, 100.0, 0.0])}
    # one labelled graph of three atoms, off by 3 eV, among two real graphs
    value = loss("energy_per_atom", prediction, graph)
    np.testing.assert_allclose(value, 0.5, rtol=1e-14)


def test_a_model_can_take_back_configurations():
    graph = tiny_graph(0).replace(config_weight=np.array([2.0, 3.0, 1.0]))
    prediction = {
        "energy": graph.labels["energy"] + np.array([3.0, 6.0, 0.0]),
        "total_charge": graph.total_charge + np.array([1.0, 2.0, 0.0]),
        "loss_weight_modifier": np.array([0.5, 0.0, 1.0]),
    }
    # graphs of three atoms, with weights 2 * 0.5 and 3 * 0
    np.testing.assert_allclose(loss("energy_per_atom", prediction, graph), 0.5, rtol=1e-14)
    np.testing.assert_allclose(loss("total_charge", prediction, graph), 0.5, rtol=1e-14)


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
    weights = dict.fromkeys(
        ("energy_per_atom", "forces", "atomic_multipoles", "dipole", "total_charge"), 1.0
    )
    prediction, graph = on_device(prediction, graph)
    gradient = jax.grad(lambda values: weighted_loss(weights, values, graph)[0])(prediction)
    for name, values in gradient.items():
        mask = graph.atom_mask if len(values) == graph.num_atoms else graph.graph_mask
        assert np.all(np.asarray(values)[~mask] == 0.0), name
        assert np.all(np.asarray(values)[mask] != 0.0), name


def test_polarizability_errors_are_per_atom():
    graph = tiny_graph(0)
    labels = np.arange(27.0).reshape(3, 3, 3)
    graph = graph.replace(
        labels={"polarizability": labels},
        weights={"polarizability": np.array([1.0, 0.5, 9.0])},
        config_weight=np.array([2.0, 3.0, 9.0]),
    )
    prediction = {"polarizability": labels + np.array([1.0, 2.0, 50.0])[:, None, None]}
    # graphs of three atoms: (2 * 1 * (1/3)² + 3 * 0.5 * (2/3)²) / 2
    value = loss("polarizability", prediction, graph)
    np.testing.assert_allclose(value, (2.0 / 9.0 + 6.0 / 9.0) / 2.0, rtol=1e-14)


def test_field_features_are_averaged_over_features():
    graph = tiny_graph(0).replace(weights={"electrostatic_potentials": np.array([1.0, 0.0, 5.0])})
    error = np.tile([3.0, 4.0], (8, 1))
    prediction = {"feats_no_mu_dft": error, "feats_no_mu_model": np.zeros((8, 2))}
    # half of the six real atoms count, each with (9 + 16) / 2
    value = loss("field_features", prediction, graph)
    np.testing.assert_allclose(value, 6.25, rtol=1e-14)


def test_molecules_are_told_apart_by_graph_and_number():
    graph = tiny_graph(0)
    numbers = np.array([7, -1, 7, 7, 7, -1, 7, 7])
    found = np.asarray(molecule_of_atom(*on_device(graph.replace(labels={"molID": numbers}))))
    partners = [np.flatnonzero(found == number).tolist() for number in found]
    assert partners == [[0, 2], [1], [0, 2], [3, 4], [3, 4], [5], [6, 7], [6, 7]]


def test_forces_inside_a_molecule_do_not_matter():
    graph = tiny_graph(0)
    graph = graph.replace(
        labels={**graph.labels, "molID": np.array([0, 0, 0, 0, 1, 1, 0, 0])},
        weights={**graph.weights, "molID": np.ones(3)},
    )
    inside = np.zeros((8, 3))
    inside[:2] = [[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]]
    for name in ("cluster_virial", "cluster_virial_per_atom", "molecular_forces"):
        value = loss(name, {"forces": graph.labels["forces"] + inside}, graph)
        np.testing.assert_allclose(value, 0.0, atol=1e-28, err_msg=name)
        value = loss(name, {"forces": graph.labels["forces"] + np.abs(inside)}, graph)
        assert value > 1e-3, name


def test_growth_of_a_perturbation_is_penalised():
    graph = tiny_graph(0)
    ingoing = np.full((8, 2), 1.0)
    outgoing = np.full((8, 2), 1.0)
    outgoing[:3, 0] = 2.0  # grows fourfold in one of four graph components
    outgoing[3:6, 1] = 0.5
    prediction = {"perturbing_vector": ingoing, "perturbed_density": outgoing}
    ramp = loss("fixedpoint_scf_stability", prediction, graph, smooth=False)
    np.testing.assert_allclose(ramp, 3.0 / 4.0, rtol=1e-14)
    shifted = loss("fixedpoint_scf_stability", prediction, graph, smooth=False, offset=0.5)
    np.testing.assert_allclose(shifted, (3.5 + 0.5 + 0.5) / 4.0, rtol=1e-14)
    growth = np.array([3.0, 0.0, 0.0, -0.75])
    smooth = loss("fixedpoint_scf_stability", prediction, graph)
    np.testing.assert_allclose(smooth, np.mean(np.log1p(np.exp(10.0 * growth)) / 10.0), rtol=1e-12)


def test_the_last_change_of_the_multipoles():
    history = np.zeros((8, 2, 3))
    history[..., 1], history[..., 2] = 5.0, 5.5
    history[6:] = np.nan
    value = loss(
        "final_terms_fixedpoint_scf_stability", {"charges_history": history}, tiny_graph(0)
    )
    np.testing.assert_allclose(value, 0.5, rtol=1e-14)


def test_charges_must_not_rise_with_the_fermi_level():
    slopes = np.array([1.0, -2.0, 3.0, -4.0, 0.0, -1.0, 9.0, 9.0])
    value = loss("fermi_level_gradient", {"dq_dmu": slopes}, tiny_graph(0))
    np.testing.assert_allclose(value, 4.0 / 6.0, rtol=1e-14)


def densities():
    """Errors 1 at |k| = 0, 0.05, 0.5 and 2 /Å of both real graphs, rubbish in the padding graph."""
    squared = np.tile(np.array([0.0, 0.05, 0.5, 2.0]) ** 2, (3, 1))
    error = np.ones((3, 4, 2))
    error[2] = np.nan
    return {
        "rho_fftn": error,
        "rho_fftn_dft": np.zeros((3, 4, 2)),
        "k_vectors_normed_squared": squared,
        "k_vectors_mask": np.tile([1, 1, 0, 1], (3, 1)),
    }


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("rho_fftn", {}, np.mean([10.0, 10.0, 2.0, 0.5])),
        ("fourier_density", {}, np.mean([1.0, 0.05**2, 1.0])),
        ("fourier_density", {"alpha": "-1", "k_min": 0.1}, np.mean([100.0, 100.0, 0.25])),
        (
            "fourier_density",
            {"form": "exponential", "alpha": 0.5},
            np.mean([1.0, np.exp(-0.05), np.exp(-2.0)]),
        ),
        (
            "fourier_density",
            {"form": "gaussian", "alpha": 2.0},
            np.mean([1.0, np.exp(-0.01), np.exp(-16.0)]),
        ),
    ],
)
def test_density_in_reciprocal_space(name, options, expected):
    prediction = densities()
    value = loss(name, prediction, tiny_graph(0), **options)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    prediction, graph = on_device(prediction, tiny_graph(0))
    chosen = {name: loss_options(name, options)}

    def of_wavevectors(squared):
        values = {**prediction, "k_vectors_normed_squared": squared}
        return weighted_loss({name: 1.0}, values, graph, options=chosen)[0]

    slope = jax.grad(of_wavevectors)(prediction["k_vectors_normed_squared"])
    assert np.all(np.isfinite(slope[:2]))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dipole", {"form": "poly"}, "takes no option, found 'form'"),
        ("fourier_density", {"forms": "poly"}, "unknown key 'forms'; did you mean 'form'?"),
        (
            "fourier_density",
            {"form": "cubic"},
            "form: expected 'poly', 'exponential' or 'gaussian', found 'cubic'",
        ),
        ("fourier_density", {"alpha": "big"}, "alpha: expected a number, found 'big'"),
        ("fourier_density", {"k_min": 0}, "k_min: expected a number above 0, found 0"),
        ("fixedpoint_scf_stability", {"beta": -1}, "beta: expected a number above 0"),
        ("fixedpoint_scf_stability", {"smooth": 1}, "smooth: expected true or false, found 1"),
    ],
)
def test_wrong_options_are_refused(name, options, message):
    with pytest.raises(ConfigurationError) as caught:
        loss_options(name, options)
    assert message in str(caught.value)


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


def test_shares_of_the_parts_of_a_batch_add_up_to_its_loss():
    graph = tiny_graph(0)
    zeros = jax.tree.map(np.zeros_like, graph.labels)
    prediction = {name: zeros[name] for name in ("energy", "forces")}
    graph, prediction = on_device(graph, prediction)
    weights = {"energy_per_atom": 1.0, "forces": 3.0}
    loss, terms = weighted_loss(weights, prediction, graph)
    parts = [
        graph.replace(graph_mask=jnp.arange(3) == index, atom_mask=graph.atom_graph == index)
        for index in range(2)  # both of three atoms, so that each has half of all entries
    ]
    shares = [
        weighted_loss(weights, prediction, part, sum_parts=lambda count: 2.0 * count)
        for part in parts
    ]
    np.testing.assert_allclose(sum(share for share, _ in shares), loss, rtol=1e-14)
    for name in weights:
        np.testing.assert_allclose(sum(share[name] for _, share in shares), terms[name], rtol=1e-14)


def labelled_case(seed=0):
    """A batch in which one of two structures has forces, with unequal weights, and a prediction."""
    rng = np.random.default_rng(seed)
    graph = tiny_graph(seed)
    graph = graph.replace(
        weights={**graph.weights, "forces": np.array([0.0, 3.0, 7.0])},
        config_weight=np.array([1.0, 0.25, 9.0]),
    )
    energies = graph.labels["energy"] + rng.normal(size=3)
    return graph, {"energy": energies, "forces": rng.normal(size=(graph.num_atoms, 3))}


RMSE = {name: loss_options(name, {"form": "rmse"}) for name in ("energy_per_atom", "forces")}


def test_roots_are_of_means_over_what_has_a_label():
    graph, prediction = labelled_case()
    per_atom = (graph.labels["energy"] - prediction["energy"])[:2] / 3
    expected_energy = np.sqrt(np.average(per_atom**2, weights=[1.0, 0.25]))
    of_second = (graph.labels["forces"] - prediction["forces"])[3:6]
    expected_forces = np.sqrt(np.mean(of_second**2))
    assert loss("energy_per_atom", prediction, graph, form="rmse") == pytest.approx(expected_energy)
    assert loss("forces", prediction, graph, form="rmse") == pytest.approx(expected_forces)
    scaled = graph.replace(weights={**graph.weights, "forces": 5.0 * graph.weights["forces"]})
    assert loss("forces", prediction, scaled, form="rmse") == pytest.approx(expected_forces)
    squared = np.sum(of_second**2) * 3.0 * 0.25 / 18
    assert loss("forces", prediction, graph) == pytest.approx(squared)


def test_derivatives_of_roots():
    graph, prediction = on_device(*labelled_case())

    def total(predicted):
        terms = {"energy_per_atom": 0.7, "forces": 0.3}
        return weighted_loss(terms, predicted, graph, options=RMSE)[0]

    gradient = jax.grad(total)(prediction)
    direction = jax.tree.map(
        lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), prediction
    )
    step = 1e-5

    def moved(factor):
        return total(jax.tree.map(lambda a, b: a + factor * b, prediction, direction))

    slope = (moved(step) - moved(-step)) / (2 * step)
    products = jax.tree.map(lambda a, b: jnp.sum(a * b), gradient, direction)
    np.testing.assert_allclose(sum(products.values()), slope, rtol=1e-8)
    assert not gradient["forces"][:3].any(), "no forces are known there"


def test_roots_of_nothing_are_zero_with_zero_derivatives():
    graph, prediction = labelled_case()
    exact = {name: graph.labels[name] for name in prediction}
    unlabelled = {**graph.weights, "forces": np.zeros(3)}
    for batch, predicted in ((graph, exact), (graph.replace(weights=unlabelled), prediction)):
        batch, predicted = on_device(batch, predicted)
        value, gradient = jax.value_and_grad(
            lambda predicted, batch=batch: weighted_loss(
                {"forces": 1.0}, predicted, batch, options=RMSE
            )[0]
        )(predicted)
        assert value == 0.0
        assert not any(leaf.any() for leaf in gradient.values())


def test_roots_are_taken_after_sums_over_parts():
    graph, prediction = on_device(*labelled_case())
    terms = {"energy_per_atom": 0.7, "forces": 0.3}

    def total(predicted):
        return weighted_loss(terms, predicted, graph, options=RMSE)[0]

    def share(predicted, mine):
        part = graph.replace(
            graph_mask=graph.graph_mask & mine, atom_mask=graph.atom_mask & mine[graph.atom_graph]
        )
        summed = weighted_loss(
            terms,
            predicted,
            part,
            options=RMSE,
            sum_parts=lambda number: jax.lax.psum(number, "parts"),
        )
        return summed[0]

    shares = jax.vmap(jax.value_and_grad(share), in_axes=(None, 0), axis_name="parts")
    values, gradients = shares(prediction, jnp.eye(3, dtype=bool)[:2])
    value, gradient = jax.value_and_grad(total)(prediction)
    np.testing.assert_allclose(values.sum(), value, rtol=1e-14)
    for name, expected in gradient.items():
        np.testing.assert_allclose(gradients[name].sum(axis=0), expected, atol=1e-15)


def test_a_term_from_outside_the_package(monkeypatch):
    monkeypatch.setattr(LOSSES, "_things", dict(LOSSES))  # for this test only

    class PowerOptions(OptionGroup):
        """Which power of the force error is penalised"""

        power: PositiveNumber = 4.0

    @register_loss("power of the force error", predictions=("forces",), options=PowerOptions)
    def force_power(prediction, graph, options):
        error = jnp.abs(graph.labels["forces"] - prediction["forces"])
        return mean(error**options.power, graph.atom_mask)

    graph = tiny_graph(0)
    prediction = {"forces": np.zeros_like(graph.labels["forces"])}
    expected = np.mean(np.abs(graph.labels["forces"][graph.atom_mask]) ** 3)
    np.testing.assert_allclose(loss("force_power", prediction, graph, power="3"), expected)
    (stage,) = read_schedule(
        {0: {"name": "a", "start": 0, "end": 0, "loss": {"force_power": {"weight": 2, "power": 3}}}}
    )
    assert stage.loss_options == {"force_power": PowerOptions(power=3.0)}
    assert "forces" in loss_inputs()
    with pytest.raises(ValueError, match="loss term 'forces': found a second one of that name"):

        @register_loss("another", predictions=("forces",))
        def forces(prediction, graph):
            return mean(prediction["forces"], graph.atom_mask)


def test_a_validation_set_without_labels_is_refused(caplog):
    loss = {"energy_per_atom": 1.0, "forces": 10.0, "total_charge": 1.0, "dipole": 0.0}
    check_validation(loss, {"energy": 1.0, "forces": 2.0}, where="stage 'a'")
    check_validation({"total_charge": 1.0}, {}, where="stage 'a'")
    assert not caplog.messages
    check_validation(loss, {"energy": 0.0, "forces": 2.0}, where="stage 'a'")
    assert caplog.messages == [
        "stage 'a': no validation configuration has energy; the validation loss lacks "
        "energy_per_atom"
    ]
    with pytest.raises(LossError, match="stage 'a': no validation configuration has energy, forc"):
        check_validation(loss, {"dipole": 1.0}, where="stage 'a'")
