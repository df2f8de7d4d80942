from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import ase
import numpy as np
import pytest

from mace_scf_jax.data import stored_set
from mace_scf_jax.data.batching import BatchLoader, prefetched
from mace_scf_jax.data.datasets import DataSettings, load_datasets
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.preprocessing import PreprocessSettings, preprocess
from mace_scf_jax.data.reading import FilePart, file_parts, read_atoms
from mace_scf_jax.data.stored_set import open_stored

from .builders import INFO_KEYS, KEYS, heads, labelled_atoms, write

FRAME = "1\nProperties=species:S:1:pos:R:3\nH 0 0 0\n"


def waters(count: int, **info) -> list[ase.Atoms]:
    return [labelled_atoms(seed, num_molecules=1 + seed % 3, **info) for seed in range(count)]


def settings(folder: Path, **options) -> PreprocessSettings:
    """Preprocess train.xyz and, if they exist, valid.xyz and test.xyz, in shards of 4 kB."""
    files = {
        f"{split}_file": folder / f"{split}.xyz"
        for split in ("train", "valid", "test")
        if (folder / f"{split}.xyz").exists()
    }
    data = {"keys": KEYS, "multipoles_max_l": 1, **files, **options.pop("data", {})}
    defaults = {"cutoff": 3.0, "kspace_cutoff": 0.6, "shard_megabytes": 0.004}
    return PreprocessSettings(data=DataSettings(**data), **(defaults | options))


def same_structures(parts: list[FilePart], path: Path) -> None:
    found = [atoms for part in parts for atoms in part.read().atoms]
    expected = read_atoms(path)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == other


@pytest.mark.parametrize("largest", [1, 3000, 10**9])
def test_parts_of_a_file_hold_all_structures_in_order(tmp_path: Path, largest: int) -> None:
    path = write(tmp_path / "a.xyz", waters(11))
    parts = file_parts(path, largest=largest)
    assert {1: len(parts) == 11, 3000: 2 < len(parts) < 11, 10**9: len(parts) == 1}[largest]
    counts = [part.count for part in parts]
    assert [part.first_index for part in parts] == [sum(counts[:i]) for i in range(len(parts))]
    if largest == 3000:
        assert all(part.end_byte - part.first_byte <= largest for part in parts)
    same_structures(parts, path)


@pytest.mark.parametrize(
    "text",
    [
        FRAME * 2 + "\n\n",
        (FRAME * 2).rstrip("\n"),
        FRAME + "VEC1 1 0 0\nVEC2 0 1 0\nVEC3 0 0 1\n" + FRAME,
        (FRAME * 2).replace("\n", "\r\n"),
    ],
    ids=["empty lines", "no last line end", "cell vectors", "carriage returns"],
)
def test_unusual_files_are_cut_where_they_are_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.xyz"
    path.write_bytes(text.encode())
    parts = file_parts(path, largest=1)
    assert len(parts) == 2
    same_structures(parts, path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xyz", "", "found no structures"),
        ("a.xyz", FRAME + "two\n", "configuration 1: not readable .*expected the number of atoms"),
    ],
)
def test_unreadable_files_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        file_parts(tmp_path / name, largest=100)


def test_the_number_of_processes_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "train.xyz", waters(12))
    write(tmp_path / "test.xyz", waters(2))
    told: list[tuple[int, int]] = []
    one = preprocess(settings(tmp_path), tmp_path / "one", notify=lambda *n: told.append(n))
    two = preprocess(settings(tmp_path, workers=2), tmp_path / "new" / "two")
    assert told[0] == (0, 14)
    assert told[-1] == (14, 14)
    files = sorted(path.relative_to(one) for path in one.rglob("*.h5"))
    assert len(files) > 4
    assert files == sorted(path.relative_to(two) for path in two.rglob("*.h5"))
    assert all((one / path).read_bytes() == (two / path).read_bytes() for path in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "new",
        "one",
        "test.xyz",
        "train.xyz",
    ]


def test_a_set_is_the_same_from_its_file_and_preprocessed(tmp_path: Path) -> None:
    free = ase.Atoms("H", cell=[30.0] * 3, info={"REF_energy": -13.0, "total_charge": 0.0})
    free.info["config_type"] = "IsolatedAtom"
    oxygen = free.copy()
    oxygen.symbols[:] = "O"
    structures = [free, *waters(9, config_weight=2.0), oxygen, *waters(3, config_type="bulk")]
    write(tmp_path / "train.xyz", structures)
    folder = preprocess(settings(tmp_path), tmp_path / "data")
    sets = [
        load_datasets(
            DataSettings(
                train_file=file,
                keys=KEYS,
                multipoles_max_l=1,
                valid_fraction=0.25,
                config_type_weights={"bulk": 0.5},
            )
        )
        for file in (tmp_path / "train.xyz", folder)
    ]
    plain, stored = sets
    for name in ("train", "valid"):
        one, other = getattr(plain, name).catalogue, getattr(stored, name).catalogue
        assert one.content_digest() == other.content_digest()
        assert one.label_weights() == other.label_weights()
        assert [one.location(row) for row in range(len(one))] == [
            other.location(row) for row in range(len(other))
        ]
    assert stored.valid_indices == plain.valid_indices
    assert stored.elements == plain.elements
    np.testing.assert_array_equal(stored.atomic_energies, plain.atomic_energies)


def short_dipole_weight(atoms: ase.Atoms) -> None:
    atoms.info["config_dipole_weight"] = np.ones(2)


def coincident(atoms: ase.Atoms) -> None:
    atoms.positions[1] = atoms.positions[0]


def crystal(atoms: ase.Atoms) -> None:
    atoms.pbc, atoms.cell = [True, False, True], [30.0] * 3


@pytest.mark.parametrize(
    ("workers", "spoil", "message"),
    [
        (1, short_dipole_weight, r"train\.xyz, configuration 10: config_dipole_weight must be"),
        (2, coincident, r"train\.xyz, configuration 10: found atoms 0 and 1 at the same position"),
        (1, crystal, r"train: .*train\.xyz, configuration 10: found pbc TFT"),
    ],
)
def test_bad_structures_are_named_and_leave_nothing(
    tmp_path: Path, workers: int, spoil: Callable, message: str
) -> None:
    structures = waters(12)
    spoil(structures[10])
    write(tmp_path / "train.xyz", structures)
    with pytest.raises(DataError, match=message):
        preprocess(settings(tmp_path, workers=workers), tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["train.xyz"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers: found 0"),
        ({"shard_megabytes": 0.0}, "shard_megabytes: found 0"),
        ({"data": {"train_file": "none.xyz"}}, r"none\.xyz: no such file"),
        (
            {"data": {"keys": KeySpecification.from_heads(heads({**INFO_KEYS, "energy": "E"}))}},
            "found no configuration with the key 'E'",
        ),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, options: dict, message: str) -> None:
    write(tmp_path / "train.xyz", waters(3))
    with pytest.raises(DataError, match=message):
        preprocess(settings(tmp_path, **options), tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["train.xyz"]


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    write(tmp_path / "train.xyz", waters(3))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").touch()
    with pytest.raises(DataError, match="data: exists already"):
        preprocess(settings(tmp_path), tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine"]


def peak_memory(action: Callable[[], object]) -> int:
    """Most bytes that Python and NumPy hold at a time beyond what they held before."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set of 7 MB is prepared and read, epoch by epoch, within a fraction of that."""
    monkeypatch.setattr(stored_set, "KEPT_BYTES", 0)
    rng = np.random.default_rng(0)
    structures = []
    for _ in range(48):
        atoms = labelled_atoms(0, num_molecules=30)
        atoms.positions = rng.uniform(0.0, 9.0, size=atoms.positions.shape)
        structures.append(atoms)
    write(tmp_path / "train.xyz", structures)
    write(tmp_path / "valid.xyz", structures[:2])
    del structures
    wide = settings(tmp_path, cutoff=8.0, shard_megabytes=0.05)
    folder = tmp_path / "data"
    preparing = peak_memory(lambda: preprocess(wide, folder))
    stored = sum(path.stat().st_size for path in folder.rglob("*.h5"))
    assert stored > 7_000_000
    assert preparing < stored / 2

    def epoch() -> None:
        found = open_stored(folder, split="train").prepare(
            elements=(1, 8), cutoff=8.0, kspace_cutoff=0.6
        )
        loader = BatchLoader(found, batch_size=1, shuffle=True)
        assert sum(graph.graph_mask.sum() for graph in prefetched(loader.epoch(0))) == 48

    peaks = [peak_memory(epoch) for _ in range(2)]
    assert max(peaks) < stored / 3
    assert peaks[1] < 1.1 * peaks[0]
