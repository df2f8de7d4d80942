import numpy as np
import pytest
from tiny_system import tiny_graph

from mace_scf_jax.predict.metrics import ErrorAccumulator


def prediction_off_by(graph, **errors):
    """Predictions that deviate from the labels: reference - prediction = error."""
    names = {"energy": "energy", "forces": "forces", "dipole": "dipole"}
    names |= {"multipoles": "atomic_multipoles", "total_charge": "total_charge"}
    return {name: graph.labels[names[name]] - error for name, error in errors.items()}


def metrics_of(*batches):
    errors = ErrorAccumulator()
    for prediction, graph in batches:
        errors.update(prediction, graph)
    return errors.metrics()


def test_energy_errors_by_hand():
    first, second = tiny_graph(0), tiny_graph(1)
    # padding (third graph) is far off and must not count; all graphs have three atoms
    metrics = metrics_of(
        (prediction_off_by(first, energy=np.array([3.0, -6.0, 1e6])), first),
        (prediction_off_by(second, energy=np.array([9.0, 0.0, 1e6])), second),
    )
    expected = {
        "mae_e": 4.5,
        "rmse_e": np.sqrt((9 + 36 + 81) / 4),
        "q95_e": np.percentile([3, 6, 9, 0], 95),
        "mae_e_per_atom": 1.5,
        "rmse_e_per_atom": np.sqrt((1 + 4 + 9) / 4),
        "offset_e_per_atom": 0.5,
        "mae_spread_e_per_atom": np.mean([0.5, 2.5, 2.5, 0.5]),
        "rmse_spread_e_per_atom": np.sqrt(np.mean(np.square([0.5, -2.5, 2.5, -0.5]))),
    }
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-12), name


def test_force_and_multipole_errors_by_hand():
    graph = tiny_graph(0)
    forces = np.full((8, 3), 0.5)
    forces[6:] = 1e6
    multipoles = np.tile([1.0, 2.0, 2.0, 2.0], (8, 1))
    metrics = metrics_of((prediction_off_by(graph, forces=forces, multipoles=multipoles), graph))
    reference = graph.labels["forces"][:6]
    assert metrics["rmse_f"] == pytest.approx(0.5)
    assert metrics["rel_mae_f"] == pytest.approx(50.0 / np.mean(np.abs(reference)))
    assert metrics["rel_rmse_f"] == pytest.approx(50.0 / np.sqrt(np.mean(reference**2)))
    assert metrics["rmse_dma"] == pytest.approx(np.sqrt(13.0 / 4.0))
    assert metrics["rmse_charges"] == pytest.approx(1.0)
    assert metrics["rmse_local_dipoles"] == pytest.approx(2.0)


def test_missing_labels_are_left_out():
    graph = tiny_graph(0)
    dipole_weight = np.array([[1.0, 0.0, 0.5], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    graph = graph.replace(
        weights={
            **graph.weights,
            "energy": np.array([0.0, 1.0, 0.0]),
            "forces": np.zeros(3),
            "dipole": dipole_weight,
        }
    )
    metrics = metrics_of(
        (
            prediction_off_by(
                graph,
                energy=np.array([100.0, 2.0, 0.0]),
                forces=np.ones((8, 3)),
                dipole=np.tile([3.0, 100.0, 6.0], (3, 1)),
            ),
            graph,
        )
    )
    assert metrics["rmse_e"] == pytest.approx(2.0)
    assert metrics["mae_mu"] == pytest.approx(4.5)
    assert metrics["mae_mu_per_atom"] == pytest.approx(1.5)
    assert not [name for name in metrics if name.endswith("_f")]


def test_polarizabilities_count_where_they_have_a_weight():
    graph = tiny_graph(0)
    reference = np.arange(27.0).reshape(3, 3, 3)
    graph = graph.replace(
        labels={"polarizability": reference},
        weights={"polarizability": np.array([0.5, 0.0, 0.0])},
    )
    error = np.array([3.0, 100.0, 100.0])[:, None, None]
    metrics = metrics_of(({"polarizability": reference - error}, graph))
    assert metrics["rmse_polarizability"] == pytest.approx(3.0)
    assert metrics["rmse_polarizability_per_atom"] == pytest.approx(1.0)


def test_total_charge_counts_every_configuration():
    graph = tiny_graph(0)
    error = np.array([1.0, 3.0, 100.0])
    metrics = metrics_of((prediction_off_by(graph, total_charge=error), graph))
    assert metrics["mae_total_charge"] == pytest.approx(2.0)


def test_a_prediction_that_is_not_a_number_is_not_hidden():
    graph = tiny_graph(0)
    metrics = metrics_of((prediction_off_by(graph, energy=np.array([np.nan, 0.0, 0.0])), graph))
    assert np.isnan(metrics["rmse_e"])


def test_different_shapes_are_refused():
    graph = tiny_graph(0)
    with pytest.raises(ValueError, match=r"'atomic_multipoles': the labels have shape \(8, 4\)"):
        metrics_of(({"multipoles": np.zeros((8, 1))}, graph))


def test_metrics_do_not_depend_on_batches_or_padding():
    graph, larger = tiny_graph(3), tiny_graph(3, atoms=11, edges=20)
    rng = np.random.default_rng(0)
    error = rng.normal(size=(11, 3))
    together = metrics_of((prediction_off_by(graph, forces=error[:8]), graph))
    padded = larger.replace(
        labels={**larger.labels, "forces": np.pad(graph.labels["forces"], ((0, 3), (0, 0)))}
    )
    assert together == metrics_of((prediction_off_by(padded, forces=error), padded))
