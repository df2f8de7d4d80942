"""Settings of the backbone are checked when made."""

from __future__ import annotations

import pytest
from tiny_models import tiny_backbone


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"elements": ()}, r"elements: expected distinct atomic numbers in ascending order"),
        ({"elements": (8, 1)}, r"elements: expected .* ascending order, found \(8, 1\)"),
        ({"elements": (1, 1)}, r"elements: expected distinct .* found \(1, 1\)"),
        ({"elements": (0, 8)}, r"elements: expected .* found \(0, 8\)"),
        ({"hidden_irreps": "8x0e + 4x1o"}, "hidden_irreps: expected the same number of channels"),
        ({"MLP_irreps": "soup"}, "MLP_irreps: expected irreps .* found 'soup'"),
        ({"r_max": 0.0}, "r_max: expected a positive length in Å, found 0.0"),
        ({"num_radial_basis": 0}, "num_radial_basis: expected at least 1, found 0"),
        (
            {"num_radial_basis": 1, "radial_type": "gaussian"},
            "num_radial_basis: expected at least 2, found 1",
        ),
        ({"num_cutoff_basis": 1}, "num_cutoff_basis: expected ≥ 2, found 1"),
        ({"max_ell": 4}, "max_ell: expected 0, 1, 2 or 3, found 4"),
        ({"correlation": 0}, "correlation: expected 1, 2, 3 or 4, found 0"),
        (
            {"correlation": (2, 1)},
            r"correlation: expected one for each of 1 layers, found \(2, 1\)",
        ),
        ({"use_edge_irreps_first": True}, "use_edge_irreps_first: expected edge_irreps beside it"),
        ({"edge_irreps": "8x0e + 4x1o"}, "edge_irreps: expected the same number of channels"),
        ({"readout_cls": "x"}, "readout_cls: expected one of NonLinearReadoutBlock, .* found 'x'"),
        (
            {"embedding_specs": {"elec_temp": {"type": "continuous", "emb_dim": 4}}},
            "embedding_specs: expected numbers per graph: total_charge, total_spin, found .*elec",
        ),
        (
            {"embedding_specs": {"total_spin": {"type": "categorical", "emb_dim": 4}}},
            "embedding_specs, total_spin, num_classes: expected at least 1, found 0",
        ),
        (
            {"embedding_specs": {"total_spin": {"type": "continuous", "width": 4}}},
            "embedding_specs, total_spin: found unknown width",
        ),
        ({"use_embedding_readout": True}, "use_embedding_readout: expected embedding_specs beside"),
        ({"num_interactions": 0}, "num_interactions: expected ≥ 1, found 0"),
        (
            {"interaction": "ResidualBlock"},
            "interaction: expected one of RealAgnosticInteractionBlock, .* found 'ResidualBlock'",
        ),
        ({"interaction_first": "x"}, "interaction_first: expected one of .* found 'x'"),
        ({"radial_MLP": (64, 0)}, r"radial_MLP: expected positive widths, found \(64, 0\)"),
        ({"radial_type": "sine"}, "radial_type: expected one of bessel, gaussian, chebyshev"),
        ({"distance_transform": "log"}, "distance_transform: expected one of None, Agnesi, Soft"),
        ({"gate": "gelu"}, "gate: expected one of silu, tanh, abs, None, found 'gelu'"),
        ({"avg_num_neighbors": 0.0}, "avg_num_neighbors: expected > 0, found 0.0"),
    ],
)
def test_values_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_backbone(**changes)


def test_lists_become_tuples():
    settings = tiny_backbone(elements=[1, 8], radial_MLP=[4, 4])
    assert settings == tiny_backbone(elements=(1, 8), radial_MLP=(4, 4))
    assert hash(settings) == hash(tiny_backbone(elements=(1, 8), radial_MLP=(4, 4)))


def test_sizes_read_from_the_irreps():
    settings = tiny_backbone(
        num_interactions=2, hidden_irreps="6x0e + 6x1o + 6x2e", scalar_last_layer=True
    )
    assert (settings.channels, settings.max_hidden_degree) == (6, 2)
    assert [settings.layer_max_degree(layer) for layer in range(2)] == [2, 0]
