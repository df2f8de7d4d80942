"""Models that ænet-python saves: as the mapping in their files, and as a file where PyTorch is."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.data import chemical_symbols

from mace_scf_jax.pytorch import compare_with_torch, import_model
from mace_scf_jax.pytorch.configuration import TorchConfigurationError
from mace_scf_jax.pytorch.layers import WeightImportError
from mace_scf_jax.pytorch.module import TorchModelError, torch_model_of_aenet
from mace_scf_jax.pytorch.verification.descriptors import potential
from mace_scf_jax.pytorch.verification.reference_file import ReferenceFile, read_reference_file

REFERENCE = Path(__file__).parents[1] / "data" / "reference" / "descriptor"


def saved(file: ReferenceFile) -> dict[str, Any]:
    """What ænet-python saves of the model whose numbers a reference file has."""
    state = file.state
    weights = {name: values for name, values in state.items() if name.startswith("net.")}
    symbols = [chemical_symbols[number] for number in file.meta["atomic_numbers"]]
    normalised = "feature_mean" in state
    return {
        "schema_version": "1.0",
        "torch_version": "2.9.0",
        "architecture": {
            symbol: [tuple(layer) for layer in layers]
            for symbol, layers in file.meta["arch"].items()
        },
        "descriptor_config": {**file.meta["descriptor"], "dtype": "float64", "n_features": 20},
        "model_state_dict": OrderedDict(weights),
        "optimizer_state_dict": None,
        "training_history": {"train_energy_rmse": [1.0]},
        "normalization": {
            "normalize_features": normalised,
            "normalize_energy": True,
            "E_shift": float(state["E_shift"]),
            "E_scaling": float(state["E_scaling"]),
            "feature_mean": state["feature_mean"].tolist() if normalised else None,
            "feature_std": state["feature_std"].tolist() if normalised else None,
            "feature_min": None,
            "feature_max": None,
        },
        "atomic_energies": dict(zip(symbols, state["atomic_energies"], strict=True)),
    }


@pytest.mark.parametrize("name", ["exported", "water", "five_species", "tio2_periodic"])
def test_models_are_those_of_the_reference(name):
    """`mace-scf-jax verify` compares what these predict with ænet-python."""
    file = read_reference_file(REFERENCE / f"{name}.npz")
    model = import_model(torch_model_of_aenet(saved(file)))
    settings, parameters = potential(file, file.meta["arch"])
    assert model.settings == settings
    for symbol, network in parameters["backbone"]["energy"].items():
        for weights, values in network.items():
            found = model.parameters["backbone"]["energy"][symbol][weights]
            np.testing.assert_array_equal(found, values, strict=True)


def changed(**changes: Any) -> dict[str, Any]:
    content = saved(read_reference_file(REFERENCE / "exported.npz"))
    for name, value in changes.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    return content


def test_what_training_left_out():
    """No normalisation of energies, no E0, and ranges of features."""
    content = changed(atomic_energies=None)
    content["normalization"] |= {
        "normalize_energy": False,
        "feature_std": np.full(20, 1e-20),
        "feature_min": [-1.0] * 20,
        "feature_max": [2.0] * 20,
    }
    settings = import_model(torch_model_of_aenet(content)).settings
    assert settings.atomic_energies == (0.0, 0.0)
    backbone = settings.backbone
    assert (backbone.E_scaling, backbone.E_shift) == ((1.0, 1.0), (0.0, 0.0))
    assert backbone.features.std == ((1e-12,) * 20,)
    assert (backbone.features.minimum, backbone.features.maximum) == (
        ((-1.0,) * 20,),
        ((2.0,) * 20,),
    )


FIRST = "net.functions.0.Linear_Sp1_F1.weight"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"schema_version": "2.0"}, ValueError, "schema_version: expected 1.0, found 2.0"),
        ({"descriptor_config": {"species": ["O", "Q"]}}, ValueError, "elements, found 'Q'"),
        ({"architecture": {"O": [(6, "relu"), (4, "tanh")]}}, ValueError, "found 'relu'"),
        (
            {"architecture": {"O": [(7, "tanh"), (4, "sigmoid")]}},
            WeightImportError,
            r"backbone/energy/O/bias_0: expected the shape \(7,\), found \(6,\)",
        ),
        (
            {"architecture": {"O": [(6, "tanh")]}},
            WeightImportError,
            "backbone/energy/O/bias_1: expected the shape",
        ),
        (
            {"model_state_dict": {"net.functions.2.Linear_Sp3_F1.weight": np.zeros((2, 2))}},
            WeightImportError,
            r"state dict has 'net.functions.2.Linear_Sp3_F1.weight', but .* of 2 networks",
        ),
        (
            {"model_state_dict": {"net.batch_norm.weight": np.zeros(2)}},
            WeightImportError,
            "state dict has 'net.batch_norm.weight'",
        ),
        ({"descriptor_config": {"rad_order": 6}}, ValueError, "expected 22 features, found 20"),
    ],
)
def test_models_that_cannot_be_used(changes, error, message):
    with pytest.raises(error, match=message):
        import_model(torch_model_of_aenet(changed(**changes)))


def test_predictions_are_not_compared():
    model = import_model(torch_model_of_aenet(changed()))
    with pytest.raises(TorchModelError, match=r"x\.pt: comparisons are made for MACE, "):
        compare_with_torch(model, "x.pt", [])


def test_options_are_refused_and_missing_entries_named():
    with pytest.raises(TorchConfigurationError, match="ænet-python tell everything"):
        import_model(torch_model_of_aenet(changed()), options={"pbc_handling": "pbc"})
    content = changed()
    del content["descriptor_config"]["ang_order"]
    with pytest.raises(TorchConfigurationError, match="found no entry 'ang_order'"):
        import_model(torch_model_of_aenet(content))


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_a_file_of_pytorch(tmp_path):
    import torch

    content = changed()
    state = content["model_state_dict"]
    content["model_state_dict"] = OrderedDict(
        (name, torch.from_numpy(values)) for name, values in state.items()
    )
    content["normalization"]["feature_mean"] = torch.tensor(
        content["normalization"]["feature_mean"], dtype=torch.float64
    )
    torch.save(content, tmp_path / "potential.pt")
    model = import_model(tmp_path / "potential.pt", trust=True)  # energies are scalars of NumPy
    assert model.settings == import_model(torch_model_of_aenet(changed())).settings
    weights = model.parameters["backbone"]["energy"]["O"]["weight_0"]
    np.testing.assert_array_equal(weights, state[FIRST].T)
    model.save(tmp_path / "potential.model")
    assert model.record["imported_from"] == "potential.pt"
