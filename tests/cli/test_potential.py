"""``mace-scf-jax potential``: a cube file, a picture, and bad input refused."""

from __future__ import annotations

import numpy as np
import pytest
from ase.io import write
from ase.io.cube import read_cube_data
from tiny_models import molecule, periodic, tiny_model

from mace_scf_jax.simulate import load_model, potential_at, predicted_multipoles
from mace_scf_jax_cli.main import main


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Files of a model with charges and of one without, and a file of structures."""
    folder = tmp_path_factory.mktemp("potential")
    for family in ("LocalCharges", "MACE"):
        tiny_model(family).save(folder / family)
    write(folder / "in.xyz", [periodic(), molecule()], format="extxyz")
    return folder


def test_a_cube_file_and_a_picture(models, tmp_path, capsys):
    cube, picture = tmp_path / "v.cube", tmp_path / "v.png"
    words = [str(models / "LocalCharges"), str(models / "in.xyz"), "--index", "1", "--spacing", "2"]
    words += ["--external-field", "--plane", "xz", "--height", "0.5"]
    assert main(["potential", *words, "--cube", str(cube), "--plot", str(picture)]) == 0
    shown = capsys.readouterr().out
    assert f"Wrote {cube}" in shown
    assert shown.splitlines()[-1] == f"Wrote {picture}"
    assert picture.read_bytes().startswith(b"\x89PNG")

    values, framed = read_cube_data(str(cube))
    np.testing.assert_array_equal(framed.numbers, molecule().numbers)
    model, atoms = load_model(models / "LocalCharges"), molecule()
    prediction = model.predict(atoms, forces=False)
    sources = predicted_multipoles(
        model, atoms, prediction, external_field=atoms.info["external_field"]
    )
    corner = atoms.positions.min(axis=0) - 4.0
    expected = potential_at(sources, corner).potential
    np.testing.assert_allclose(values[0, 0, 0], expected, rtol=1e-5)


def test_the_density(models, tmp_path, capsys):
    cube = tmp_path / "rho.cube"
    words = [str(models / "LocalCharges"), str(models / "in.xyz"), "--spacing", "0.5"]
    assert main(["potential", *words, "--quantity", "density", "--cube", str(cube)]) == 0
    assert "density from" in capsys.readouterr().out
    assert cube.read_text().startswith("charge density in e/Angstrom^3, by mace-scf-jax")
    values, _ = read_cube_data(str(cube))
    charge = load_model(models / "LocalCharges").predict(periodic(), forces=False)["total_charge"]
    np.testing.assert_allclose(values.mean() * periodic().get_volume(), charge, atol=1e-3)


def test_bad_input_is_refused(models, tmp_path, capsys):
    good, source = str(models / "LocalCharges"), str(models / "in.xyz")
    output = ["--cube", str(tmp_path / "v.cube")]
    for words, expected in (
        ([good, source, "--index", "2", *output], "found 2 structures, expected more for --index"),
        ([str(models / "MACE"), source, *output], "expected a model with charges"),
        ([good, source, "--cube", str(tmp_path / "no" / "v.cube")], "no such folder"),
        ([good, source, "--spacing", "0", *output], "spacing of the grid"),
        ([good, source, "--fermi-level", *output], "--fermi-level: expected a self-consistent mo"),
    ):
        assert main(["potential", *words]) == 2
        assert expected in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["potential", good, source])
    assert "expected --cube OUT.cube, --plot OUT.png, or both" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
