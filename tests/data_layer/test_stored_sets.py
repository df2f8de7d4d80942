from __future__ import annotations

import dataclasses
import gc
import json
import shutil
import tracemalloc
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest

from mace_scf_jax.data import open_shards, stored_set
from mace_scf_jax.data.batching import BatchLoader
from mace_scf_jax.data.datasets import DataSets, DataSettings, load_datasets
from mace_scf_jax.data.description import Description
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.sets import ConfigurationsInMemory
from mace_scf_jax.data.shard import write_shard
from mace_scf_jax.data.stored_set import open_stored

from .builders import INFO_KEYS, KEYS, configuration, heads, labelled_atoms, periodic_structure

ELEMENTS = (1, 8)
DESCRIPTION = Description(keys=KEYS, multipoles_max_l=1, cutoff=3.0, kspace_cutoff=0.6)


def in_memory(count: int = 13) -> ConfigurationsInMemory:
    """Molecules of different sizes and labels, some without any."""
    structures = [
        labelled_atoms(
            seed,
            num_molecules=1 + seed % 3,
            config_type=f"kind {seed % 2}",
            config_weight=1.0 + seed,
        )
        for seed in range(count)
    ]
    del structures[1].info["REF_energy"], structures[1].arrays["REF_forces"]
    structures[2].cell[:] = 20.0
    return ConfigurationsInMemory([configuration(atoms) for atoms in structures])


def stored(
    folder: Path,
    members: ConfigurationsInMemory,
    *,
    shard_size: int = 5,
    description: Description = DESCRIPTION,
) -> Path:
    """A folder with shards of the members."""
    structures = members.prepare(
        elements=ELEMENTS,
        cutoff=description.cutoff,
        kspace_cutoff=description.kspace_cutoff,
        tails=description.tails,
    )
    folder.mkdir()
    starts = range(0, len(members), shard_size)
    for number, start in enumerate(starts):
        part = [structures[i] for i in range(start, min(start + shard_size, len(members)))]
        path = folder / f"{number}.h5"
        write_shard(path, part, description, number=number, shards=len(starts))
    return folder


def prepared(members, kspace_cutoff: float | None = 0.6, tails: float | None = None):
    return members.prepare(elements=ELEMENTS, cutoff=3.0, kspace_cutoff=kspace_cutoff, tails=tails)


def assert_equal(first: object, second: object) -> None:
    """The same dataclass with the same arrays, bit for bit and of the same type."""
    assert type(first) is type(second)
    if dataclasses.is_dataclass(first):
        for field in dataclasses.fields(first):
            assert_equal(getattr(first, field.name), getattr(second, field.name))
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first:
            assert_equal(first[name], second[name])
    elif isinstance(first, np.ndarray):
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    else:
        assert first == second


def test_what_was_written_is_read(tmp_path):
    members = in_memory()
    found = open_stored(stored(tmp_path / "set", members), split="train")
    assert len(found) == 13
    assert_equal(found.catalogue, members.catalogue)
    assert_equal(prepared(found).sizes, prepared(members).sizes)
    for index in range(13):
        assert_equal(found[index], members[index])
        assert_equal(prepared(found)[index], prepared(members)[index])


def test_every_property_is_read_in_its_shape(tmp_path):
    rng = np.random.default_rng(0)
    info = {
        "energy": -1.5,
        "stress": rng.normal(size=6),
        "virials": rng.normal(size=(3, 3)),
        "dipole": rng.normal(size=3),
        "polarizability": rng.normal(size=9),
        "total_charge": 1.0,
        "fermi_level": -4.0,
        "external_field": rng.normal(size=3),
        "elec_temp": 300.0,
    }
    arrays = {
        "forces": rng.normal(size=(3, 3)),
        "atomic_multipoles": rng.normal(size=(3, 4)),
        "electrostatic_potentials": rng.normal(size=3),
        "charges": rng.normal(size=3),
        "enegs": rng.normal(size=3),
        "hardness": rng.normal(size=3),
        "molID": np.array([0, 0, 1]),
    }
    keys = KeySpecification.from_heads(
        heads({name: f"my_{name}" for name in info}, {name: f"my_{name}" for name in arrays})
    )
    full = labelled_atoms(0)
    full.info = {f"my_{name}": value for name, value in info.items()}
    full.info["config_dipole_weight"] = np.array([1.0, 0.0, 0.5])
    for name, value in arrays.items():
        full.arrays[f"my_{name}"] = value
    members = ConfigurationsInMemory(
        [configuration(full, keys), configuration(labelled_atoms(1), keys)]
    )
    description = dataclasses.replace(DESCRIPTION, keys=keys)
    found = open_stored(stored(tmp_path / "set", members, description=description), split="train")
    for index in range(2):
        assert_equal(found[index], members[index])
    assert found[0].present == info.keys() | arrays.keys()


def test_periodic_images_and_reciprocal_vectors(tmp_path):
    structures = [periodic_structure(seed, num_atoms=4) for seed in range(3)] * 2
    description = dataclasses.replace(DESCRIPTION, cutoff=3.5, kspace_cutoff=2.0)
    write_shard(tmp_path / "set.h5", structures, description)
    found = open_stored(tmp_path / "set.h5", split="train")
    read = found.prepare(elements=ELEMENTS, cutoff=3.5, kspace_cutoff=2.0)
    for index, expected in enumerate(structures):
        assert_equal(read[index], expected)
    with h5py.File(tmp_path / "set.h5") as file:
        # The reciprocal vectors of equal cells are stored once.
        assert len(file["k_indices"]) == sum(entry.num_kvectors for entry in structures[:3])


@pytest.mark.parametrize("kept_bytes", [0, stored_set.KEPT_BYTES], ids=["read", "kept"])
def test_batches_are_the_same_as_from_memory(tmp_path, monkeypatch, kept_bytes):
    monkeypatch.setattr(open_shards, "_OPEN_FILES", 1)
    monkeypatch.setattr(stored_set, "KEPT_BYTES", kept_bytes)
    members = in_memory()
    found = open_stored(stored(tmp_path / "set", members), split="train")
    rows = [12, 3, 0, 7, 5, 9, 1]
    options = {"batch_size": 2, "shuffle": True, "seed": 4, "layout": "per_atom"}
    expected = BatchLoader(prepared(members.take(rows)), **options)
    loader = BatchLoader(prepared(found.take(rows)), **options)
    assert loader.buckets == expected.buckets
    for one, other in zip(loader.epoch(3), expected.epoch(3), strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize("kept_bytes", [0, stored_set.KEPT_BYTES], ids=["read", "kept"])
def test_only_small_sets_are_kept(tmp_path, monkeypatch, kept_bytes):
    monkeypatch.setattr(stored_set, "KEPT_BYTES", kept_bytes)
    folder = stored(tmp_path / "set", in_memory())
    found = prepared(open_stored(folder, split="train"))
    before = found.stack(np.arange(13))
    with h5py.File(folder / "0.h5") as file:
        place = file["atoms"].id.get_offset()
    with (folder / "0.h5").open("rb+") as file:
        file.seek(place)
        file.write(np.float64(7.0).tobytes())
    position = found.stack(np.array([0])).atoms["positions"][0, 0]
    assert position == (before.atoms["positions"][0, 0] if kept_bytes else 7.0)


@pytest.mark.parametrize("kept_bytes", [0, stored_set.KEPT_BYTES], ids=["read", "kept"])
def test_shards_with_different_labels(tmp_path, monkeypatch, kept_bytes):
    """Labels that only the one or only the other holds are zero elsewhere."""
    monkeypatch.setattr(stored_set, "KEPT_BYTES", kept_bytes)
    structures = [labelled_atoms(seed) for seed in range(4)]
    for atoms in structures[:2]:
        del atoms.info["REF_dipole"]
    for atoms in structures[2:]:
        del atoms.arrays["REF_forces"]
    members = ConfigurationsInMemory([configuration(atoms) for atoms in structures])
    found = open_stored(stored(tmp_path / "set", members, shard_size=2), split="train")
    for index in range(4):
        assert_equal(found[index], members[index])
    (one,) = BatchLoader(prepared(members), batch_size=4).epoch(0)
    (other,) = BatchLoader(prepared(found), batch_size=4).epoch(0)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert one.labels["dipole"][2:4].any()
    assert one.labels["forces"][:6].any()


def test_compressed_files_are_read_too(tmp_path):
    members = in_memory()
    folder = stored(tmp_path / "set", members)
    for path in folder.rglob("*.h5"):
        with h5py.File(path, "r+") as file:
            for name in ("structures", "atoms", "edges", "k_indices"):
                values, attributes = file[name][()], dict(file[name].attrs)
                del file[name]
                file.create_dataset(name, data=values, chunks=True, compression="gzip")
                file[name].attrs.update(attributes)
    found = open_stored(folder, split="train")
    for index in range(13):
        assert_equal(prepared(found)[index], prepared(members)[index])
    with pytest.raises(ValueError, match="read-only"):
        prepared(found)[3].k_indices[0] = 99


def test_structures_in_equal_cells_share_their_reciprocal_vectors(tmp_path):
    # In turn of two cells, as after a shuffle.
    structures = [periodic_structure(seed, num_atoms=4) for seed in range(2)] * 3
    description = dataclasses.replace(DESCRIPTION, cutoff=3.5, kspace_cutoff=2.0)
    write_shard(tmp_path / "set.h5", structures, description)
    found = open_stored(tmp_path / "set.h5", split="train")
    read = found.prepare(elements=ELEMENTS, cutoff=3.5, kspace_cutoff=2.0).stack(np.arange(6))
    first, second, *others = read.k_indices
    assert first.shape != second.shape or np.any(first != second)
    assert all(indices is (first, second)[number % 2] for number, indices in enumerate(others))


def test_keeping_a_set_takes_little_more_than_its_size(tmp_path, monkeypatch):
    """Reciprocal vectors that the model does not need are not all held while the set is read."""
    monkeypatch.setattr(stored_set, "STACKED_AT_ONCE", 4)
    members = in_memory(60)
    for number, entry in enumerate(members):
        entry.cell[:] = np.eye(3) * (120.0 + number)
    found = prepared(open_stored(stored(tmp_path / "set", members), split="train"), None)
    tracemalloc.start()
    kept = found.stack(np.arange(60))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(kept) == 60
    # The vectors alone are 3.8 MB; of the file read last, those of one structure are held.
    assert peak < 2.5e6


def test_a_set_that_is_forgotten_leaves_no_file_open(tmp_path):
    open_files = Path("/proc/self/fd")
    if not open_files.exists():
        pytest.skip("open files are counted on Linux only")
    folder = stored(tmp_path / "set", in_memory())

    def opened() -> int:
        return sum(str(tmp_path) in str(link.resolve()) for link in list(open_files.iterdir()))

    found = open_stored(folder, split="train")
    assert found[0].num_atoms > 0
    assert opened() > 0
    del found
    gc.collect()
    assert opened() == 0


def test_a_model_without_reciprocal_vectors_reads_none(tmp_path):
    found = prepared(open_stored(stored(tmp_path / "set", in_memory()), split="train"), None)
    assert found[3].num_kvectors == 0
    assert not found.sizes.kvectors.any()


def load(folder: Path, **options) -> DataSets:
    defaults = {"train_file": folder, "keys": KEYS, "multipoles_max_l": 1, "E0s": {1: 0.0, 8: 0.0}}
    return load_datasets(DataSettings(**(defaults | options)))


def test_weights_of_config_types_are_those_of_the_run(tmp_path):
    folder = stored(tmp_path / "set", in_memory())
    found = load(folder, valid_file=folder, config_type_weights={"kind 1": 0.5})
    assert [entry.config_weight for entry in found.train][:4] == [1.0, 1.0, 3.0, 2.0]
    assert found.train.catalogue.label_weights()["energy"] == 1 + 3 + 2 + 5 + 3 + 7 + 4 + 9 + (
        5 + 11 + 6 + 13
    )


def test_the_folder_of_a_split_is_found(tmp_path):
    (tmp_path / "data").mkdir()
    for split, count in (("train", 6), ("valid", 4), ("test", 3)):
        stored(tmp_path / "data" / split, in_memory(count))
    found = load(
        tmp_path / "data", valid_file=tmp_path / "data", test_file=tmp_path / "data" / "test"
    )
    assert (len(found.train), len(found.valid)) == (6, 4)
    assert {name: len(group) for name, group in found.tests.items()} == {
        "kind 0": 2,
        "kind 1": 1,
    }
    assert len(load(tmp_path / "data" / "train" / "0.h5", valid_fraction=0.2).train) == 4


OTHER_KEYS = KeySpecification.from_heads(heads({**INFO_KEYS, "energy": "my_energy"}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keys": OTHER_KEYS}, r"key of energy 'REF_energy' \(the run asks for 'my_energy'\)"),
        ({"multipoles_max_l": 0}, r"atomic_multipoles_max_l 1 \(the run asks for 0\)"),
        ({"electrostatic_pbc_method": "slab"}, r"train: some\.xyz, configuration 2: found pbc FFF"),
    ],
)
def test_files_for_other_labels_are_refused(tmp_path, options, message):
    folder = stored(tmp_path / "set", in_memory())
    with pytest.raises(DataError, match=message):
        load(folder, **options)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"cutoff": 4.0}, r"set: preprocessed with r_max 3 Å \(the run asks for 4 Å\)"),
        ({"kspace_cutoff": 0.7}, r"vectors up to 0\.6 1/Å \(the run asks for 0\.7 1/Å, which"),
        ({"elements": (1, 6)}, r"some\.xyz, configuration 2: found element O, unknown to the mod"),
    ],
)
def test_files_for_another_model_are_refused(tmp_path, model, message):
    found = open_stored(stored(tmp_path / "set", in_memory()), split="train")
    fitting = {"elements": ELEMENTS, "cutoff": 3.0, "kspace_cutoff": 0.6}
    with pytest.raises(DataError, match=message):
        found.prepare(**(fitting | model))


def test_missing_reciprocal_vectors_are_refused(tmp_path):
    description = dataclasses.replace(DESCRIPTION, kspace_cutoff=None)
    found = open_stored(stored(tmp_path / "set", in_memory(), description=description), split="x")
    with pytest.raises(DataError, match="preprocessed with no reciprocal vectors"):
        prepared(found)


def mixed_periodicities(*flags: str) -> ConfigurationsInMemory:
    """Structures of the given periodic directions."""
    structures = [labelled_atoms(seed) for seed in range(len(flags))]
    for atoms, letters in zip(structures, flags, strict=True):
        atoms.set_cell([6.0, 7.0, 9.0])
        atoms.pbc = [letter == "T" for letter in letters]
    return ConfigurationsInMemory([configuration(atoms) for atoms in structures])


def test_structures_of_the_boundary_condition_exact(tmp_path):
    members = mixed_periodicities("TTT", "TFT", "FFF")
    description = dataclasses.replace(DESCRIPTION, tails=5.0)
    found = open_stored(stored(tmp_path / "set", members, description=description), split="x")
    assert_equal(found.description, description)
    read, made = prepared(found, tails=5.0), prepared(members, tails=5.0)
    assert_equal(read.sizes, made.sizes)
    for index in range(3):
        assert_equal(read[index], made[index])
    assert made.sizes.repeat.tolist()[::2] == [0.0, np.inf]
    assert made.sizes.repeat[1] > 10.0
    assert made.sizes.kvectors.tolist()[2] == 0
    assert made.sizes.of_one_batch("flat").open_slots == made.sizes.atoms[2]
    for asked in (None, 6.0):
        with pytest.raises(DataError, match=r"has pbc TFT and was preprocessed for the boundary"):
            prepared(found, tails=asked)


def test_old_files_serve_the_boundary_condition_exact_where_it_is_the_same(tmp_path):
    """Crystals are; open structures leave their reciprocal vectors unread."""
    members = mixed_periodicities("TTT", "FFF")
    found = open_stored(stored(tmp_path / "set", members), split="x")
    read, made = prepared(found, tails=5.0), prepared(members, tails=5.0)
    assert_equal(read.sizes, made.sizes)
    for index in range(2):
        assert_equal(read[index], made[index])
    slabs = open_stored(stored(tmp_path / "slabs", mixed_periodicities("TTF")), split="x")
    with pytest.raises(DataError, match="for another boundary condition than exact, the run asks"):
        prepared(slabs, tails=5.0)


def truncate(folder: Path) -> None:
    content = (folder / "1.h5").read_bytes()
    (folder / "1.h5").write_bytes(content[: len(content) // 2])


def empty(folder: Path) -> None:
    (folder / "1.h5").write_bytes(b"")


def other_version(folder: Path) -> None:
    with h5py.File(folder / "1.h5", "r+") as file:
        file.attrs["format_version"] = 99


def other_hdf5(folder: Path) -> None:
    (folder / "1.h5").unlink()
    with h5py.File(folder / "1.h5", "w") as file:
        file["positions"] = np.zeros(3)


def without_table(folder: Path) -> None:
    with h5py.File(folder / "1.h5", "r+") as file:
        del file["edges"]


def changed_index(folder: Path) -> None:
    with h5py.File(folder / "1.h5", "r+") as file:
        file["sizes/edges"][2] += 1


def missing_shard(folder: Path) -> None:
    (folder / "1.h5").unlink()


def shard_of_another_set(folder: Path) -> None:
    with h5py.File(folder / "1.h5", "r+") as file:
        description = json.loads(file.attrs["description"]) | {"cutoff": 4.0}
        file.attrs["description"] = json.dumps(description)


def shard_twice(folder: Path) -> None:
    shutil.copy(folder / "0.h5", folder / "3.h5")


def no_shards(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (truncate, r"1\.h5: not readable as HDF5, perhaps cut short .*preprocess` again"),
        (empty, r"1\.h5: not readable as HDF5"),
        (other_version, r"1\.h5: found format version 99, expected 1"),
        (other_hdf5, r"1\.h5: HDF5, but not written by `mace-scf-jax preprocess`"),
        (without_table, r"1\.h5: damaged .*a table is missing"),
        (changed_index, r"1\.h5: damaged \(its index does not have the digest"),
        (missing_shard, r"set: found 2 of 3 shards, missing number 1"),
        (shard_of_another_set, r"set: found shards of different data sets \(0\.h5 and 1\.h5\)"),
        (shard_twice, r"set: found 4 of 3 shards"),
        (no_shards, r"set: found neither \.h5 files nor a folder 'train' with some"),
    ],
)
def test_damaged_sets_are_refused(tmp_path, spoil, message):
    folder = stored(tmp_path / "set", in_memory())
    spoil(folder)
    with pytest.raises(DataError, match=message):
        open_stored(folder, split="train")


def test_a_changed_structure_is_noticed_when_it_is_read(tmp_path):
    folder = stored(tmp_path / "set", in_memory())
    with h5py.File(folder / "1.h5", "r+") as file:
        file["atoms"][0, 0] += 1e-9
    found = open_stored(folder, split="train")
    assert found[4].num_atoms == 6
    with pytest.raises(DataError, match=r"1\.h5: damaged \(structure 0 does not have the checks"):
        found[5]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.h5: no such file"):
        open_stored(tmp_path / "none.h5", split="train")


def test_densities_on_a_grid_are_refused(tmp_path):
    keys = KeySpecification.from_heads(
        heads({"total_charge": "total_charge", "rho_fftn": "rho"}, {})
    )
    atoms = labelled_atoms(0)
    atoms.info["rho"] = np.zeros((2, 2, 2, 2))
    with pytest.raises(DataError, match=r"some\.xyz, configuration 2: found rho_fftn, which"):
        stored(tmp_path / "set", ConfigurationsInMemory([configuration(atoms, keys)]))
