"""PyTorch models as data: archives, what their buffers tell, and files that cannot be used."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from mace_scf_jax.pytorch.files import read_torch_model, write_torch_model
from mace_scf_jax.pytorch.module import TorchModel, TorchModelError, options_from_state

MODELS = Path(__file__).parents[1] / "data" / "reference" / "models"
WITHOUT_CHARGES = ("mace", "scale_shift_mace")
CHARGED = [path for path in sorted(MODELS.glob("*.npz")) if path.stem not in WITHOUT_CHARGES]


def test_an_archive_comes_back_exactly(tmp_path):
    model = TorchModel(
        {"model": "MACE", "note": "Å"}, {"a.weight": np.arange(3.0), "b": np.array(7)}
    )
    write_torch_model(tmp_path / "small.npz", model)
    returned = read_torch_model(tmp_path / "small.npz")
    assert returned.configuration == model.configuration
    assert returned.state.keys() == model.state.keys()
    for name, values in model.state.items():
        np.testing.assert_array_equal(returned.state[name], values, strict=True)


@pytest.mark.parametrize("path", CHARGED, ids=lambda path: path.stem)
def test_options_that_buffers_tell(path):
    model = read_torch_model(path)
    options = model.configuration["options"]
    found = options_from_state(model.configuration["model"], model.state)
    assert {"atomic_multipoles_max_l", "kspace_cutoff_factor"} <= found.keys()
    if not options.get("use_linear_local_charges"):
        found.pop("atom_density_scaling", None)  # not stored, and not used
    for name in found.keys() & options.keys():
        assert found[name] == options[name], name


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(TorchModelError, match=r"none\.npz: no such file"):
        read_torch_model(tmp_path / "none.npz")
    short = tmp_path / "short.npz"
    short.write_bytes((MODELS / "mace.npz").read_bytes()[:5000])
    with pytest.raises(TorchModelError, match=r"short\.npz: not a readable \.npz file"):
        read_torch_model(short)
    np.savez(tmp_path / "other.npz", meta="{}", x=np.zeros(2))
    with pytest.raises(TorchModelError, match=r"expected arrays 'state/…', found \['x'\]"):
        read_torch_model(tmp_path / "other.npz")
    with pytest.raises(TorchModelError, match=r"expected a name ending in \.npz or \.pt"):
        write_torch_model(tmp_path / "x.model", TorchModel({}, {}))


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is not None, reason="says what happens without PyTorch"
)
def test_other_files_need_pytorch(tmp_path):
    with pytest.raises(TorchModelError, match=r"water\.model: .* need PyTorch \(pip inst"):
        read_torch_model(tmp_path / "water.model")
    with pytest.raises(TorchModelError, match=r"water\.pt: .* need PyTorch"):
        write_torch_model(tmp_path / "water.pt", TorchModel({}, {}))
