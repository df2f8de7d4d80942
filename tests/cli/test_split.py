"""``mace-scf-jax split``: every structure is in one file, as it was, and the seed decides where."""

import shlex

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write
from labelled_water import water

from mace_scf_jax_cli.main import main


@pytest.fixture
def folder(folder):
    """A folder with twenty structures, the first of them an isolated atom."""
    atom = Atoms("O", info={"REF_energy": -432.0, "config_type": "IsolatedAtom"})
    write("all.xyz", [atom, *(water(index) for index in range(19))], format="extxyz")
    return folder


def split(words: str) -> int:
    return main(["split", *shlex.split(words)])


def energies(folder: str) -> dict[str, list[float]]:
    names = ("train", "valid", "test")
    return {
        name: [atoms.info["REF_energy"] for atoms in read(f"{folder}/{name}.xyz", ":")]
        for name in names
    }


def test_every_structure_is_in_one_file_by_the_seed(folder, capsys):
    assert split("all.xyz --valid 0.2 --test 0.15 --output one") == 0
    assert "Wrote 13 structures to one/train.xyz" in capsys.readouterr().out
    found = energies("one")
    assert [len(part) for part in found.values()] == [13, 4, 3]
    assert found["train"][0] == -432.0
    together = np.sort(np.concatenate(list(found.values())))
    np.testing.assert_array_equal(together, [*(-2000.0 - np.arange(19))[::-1], -432.0])
    lines = (folder / "one" / "valid.xyz").read_text().splitlines()
    assert set(lines) <= set((folder / "all.xyz").read_text().splitlines())

    assert split("all.xyz --valid 0.2 --test 0.15 --output two") == 0
    assert split("all.xyz --valid 0.2 --test 0.15 --output three --seed 2") == 0
    assert energies("two") == found != energies("three")
    write("all.traj", [water(index) for index in range(4)])
    assert split("all.traj --valid 0.25 --test 0 --output four") == 0
    assert len(read("four/train.xyz", ":")) == 3
    assert not (folder / "four" / "test.xyz").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("all.xyz --output old", "old/train.xyz: exists already; replace it with --overwrite"),
        ("all.xyz --valid 0.6 --test 0.4", "shares: found 0.6 and 0.4, expected numbers from 0"),
        ("all.xyz --valid nan", "shares: found nan and 0.1"),
        ("none.xyz", "none.xyz: no such file"),
    ],
)
def test_bad_input_is_refused(folder, capsys, words, expected):
    (folder / "old").mkdir()
    (folder / "old" / "train.xyz").write_text("kept")
    assert split(words) == 2
    assert expected in capsys.readouterr().err
    assert not list(folder.glob("train.xyz"))
    assert [path.name for path in (folder / "old").iterdir()] == ["train.xyz"]
