"""Potentials of ænet, read from text and from binary files; files that cannot be used."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from aenet_files import (
    EXPORTED,
    FORTRAN,
    assert_same_potential,
    model_of,
    paths_of,
    predictions_of,
    reference,
    structures_of,
)
from ase.data import chemical_symbols
from scipy.io import FortranFile

from mace_scf_jax.aenet import (
    AenetFileError,
    ElementPotential,
    compare_with_formulas,
    import_potential,
    read_potential,
)
from mace_scf_jax.backbones.chebyshev.networks import ACTIVATIONS


@pytest.mark.parametrize(
    ("name", "of_energies", "of_forces"),
    # digits that the Fortran program prints, and rounding
    [(FORTRAN, 1e-8, 1e-6), (EXPORTED, 1e-9, 1e-9)],
)
def test_energies_and_forces_are_those_of_aenet(name, of_energies, of_forces):
    expected = reference(name).outputs
    predictions = predictions_of(name)
    for output, tolerance in (("energy", of_energies), ("node_energy", of_energies)):
        found = np.concatenate([np.atleast_1d(entry[output]) for entry in predictions])
        np.testing.assert_allclose(found, expected[output], rtol=0.0, atol=tolerance)
    forces = np.concatenate([entry["forces"] for entry in predictions])
    np.testing.assert_allclose(forces, expected["forces"], rtol=0.0, atol=of_forces)


def test_the_formulas_pair_by_pair_give_the_same_energies():
    for name in (FORTRAN, EXPORTED):
        found = compare_with_formulas(model_of(name), paths_of(name), structures_of(name))
        assert len(found) == len(structures_of(name))
        assert all(entry.passes(1e-12) for entry in found)


def test_what_the_files_tell():
    settings = model_of(FORTRAN).settings
    descriptor = settings.backbone.descriptor
    assert settings.elements == (8, 22)
    assert descriptor.symbols == ("Ti", "O")
    assert (descriptor.rad_order, descriptor.rad_cutoff) == (20, 6.5)
    assert (descriptor.ang_order, descriptor.ang_cutoff, descriptor.min_cutoff) == (6, 5.0, 0.35)
    assert settings.atomic_energies == (-432.503149303, -1604.604515075)
    assert settings.backbone.E_scaling == (1.27384834786371,) * 2
    ours = settings.backbone.features
    for index, symbol in enumerate(("O", "Ti")):
        mean = reference(FORTRAN).state[f"{symbol}/feature_mean"]
        np.testing.assert_array_equal(ours.mean[index], mean)
        assert np.all(np.less_equal(ours.minimum[index], ours.mean[index]))
        assert np.all(np.greater_equal(ours.maximum[index], ours.mean[index]))
    record = model_of(FORTRAN).record
    assert record["imported_from"] == "tio2_fortran.Ti.nn.ascii, tio2_fortran.O.nn.ascii"
    assert record["aenet"]["Ti"]["description"] == "Descriptor for Ti$$"
    assert record["aenet"]["O"]["training_energies"][0] == -8.571270741333345
    assert record["data"]["train"] == {"structures": 1000, "atoms": 21285}


def test_statistics_that_all_elements_share_are_one_row():
    assert len(model_of(EXPORTED).settings.backbone.features.mean) == 1


FIRST_LINE = {**{item: item - 1 for item in range(1, 22)}, **{k: k + 6 for k in range(22, 37)}}
"""Line of each item in the files of ænet-python: 20 and 21 have seven and two."""
OXYGEN = paths_of(EXPORTED)[0]


def changed(folder: Path, changes: dict[int, Callable[[str], str]]) -> Path:
    """The file of oxygen with other items."""
    lines = OXYGEN.read_text().splitlines()
    for item, change in changes.items():
        lines[FIRST_LINE[item]] = change(lines[FIRST_LINE[item]])
    path = folder / "changed.O.nn.ascii"
    path.write_text("\n".join(lines) + "\n")
    return path


def becomes(text: str) -> Callable[[str], str]:
    return lambda line: text


def word(index: int, text: str) -> Callable[[str], str]:
    """Another word at a place of a line."""

    def change(line: str) -> str:
        words = line.split()
        words[index] = text
        return " ".join(words)

    return change


@pytest.mark.parametrize(
    ("item", "change", "message"),
    [
        (1, becomes("2"), "item 1, number of layers: expected at least 3, found 2"),
        (1, becomes("four"), "item 1, number of layers: expected 1 whole numbers, found 'four'"),
        (2, becomes("19"), "item 2, widest layer: expected 20, found 19"),
        (3, becomes("160"), "item 3, number of weights: expected 159, found 160"),
        (4, becomes("35"), "item 4, number of values: expected 34, found 35"),
        (5, becomes("20 6 4 2"), "item 5, nodes of the last layer: expected 1, found 2"),
        (5, becomes("20 0 4 1"), "item 5, nodes: expected at least 1 in every layer, found 0"),
        (6, becomes("1 5 0"), r"item 6, activations: expected 0 \(linear\), .*, found 5"),
        (6, becomes("1 2 1"), "item 6, activation of the last layer: expected 0, found 1"),
        (7, word(1, "125"), r"item 7, offsets of weights: expected \[0, 126, 154, 159\], found"),
        (8, word(3, "34"), r"item 8, offsets of values: expected \[0, 21, 28, 33\], found"),
        (9, word(7, "NaN"), "item 9, weights: expected 159 finite numbers, found 'NaN'"),
        (9, word(7, "1e999"), "item 9, weights: expected 159 finite numbers, found '1e999'"),
        (9, word(7, "1.0 2.0"), "item 10, description: expected a new line, found '.*' left over"),
        (9, word(7, ""), "item 9, weights: expected 159 finite numbers, found 'PyTorch'"),
        (11, becomes("Xq"), "item 11, element .*: expected symbols of elements, found 'Xq'"),
        (11, becomes("Si"), "item 13, species: expected the element of item 11 among them"),
        (12, becomes("0"), "item 12, number of species: expected at least 1, found 0"),
        (13, becomes("O O"), "item 13, species: expected different elements, found O O"),
        (
            15,
            becomes("5.0"),
            "item 15, .*: expected 4.5 Å, the larger radius of item 20, found 5 Å",
        ),
        (16, becomes("Behler2011"), "item 16, basis: expected Chebyshev, found Behler2011"),
        (18, becomes("6"), "item 18, parameters of a feature: expected 4, found 6"),
        (20, word(1, "6.0"), "item 17, features: expected 22 for 2 species and the orders 6 and 3"),
        (20, word(1, "5.5"), "item 20, parameters: expected whole orders, found"),
        (
            20,
            word(2, "-3.0"),
            "item 20, parameters: ang_cutoff: expected a length above min_cutoff",
        ),
        (22, becomes("-1"), "item 22, atoms behind the statistics: expected at least 0, found -1"),
        (25, word(3, "inf"), "item 25, mean features: expected 20 finite numbers, found 'inf'"),
        (28, becomes("yes"), "item 28, normalised: expected T or F, found 'yes'"),
        (29, becomes("0.0"), "item 29, energy scaling: expected a number above 0, found 0"),
        (32, becomes("Si H"), "item 32, species: expected the element of item 11 among them"),
        (36, becomes("0.0 0.0"), "item 36, energies per atom: expected 3, found 2 before the end"),
        (
            36,
            becomes("0 0 0 7"),
            "item 36, .*: expected the end of the file .*, found 1 more words",
        ),
    ],
)
def test_files_that_contradict_themselves(tmp_path, item, change, message):
    with pytest.raises(AenetFileError, match=r"changed\.O\.nn\.ascii: " + message):
        read_potential(changed(tmp_path, {item: change}))


def test_the_number_of_features_is_that_of_the_network(tmp_path):
    lines = OXYGEN.read_text().splitlines()
    fewer = [*lines[:4], "18 6 4 1", *lines[5:]]
    fewer[1:4] = ["18", "147", "32"]
    fewer[6:8] = ["0 114 142 147", "0 19 26 31"]
    fewer[8] = " ".join(lines[8].split()[:147])
    (tmp_path / "fewer.nn.ascii").write_text("\n".join(fewer))
    with pytest.raises(AenetFileError, match=r"item 17, features: expected 18 as in item 5"):
        read_potential(tmp_path / "fewer.nn.ascii")


@pytest.mark.parametrize("kept", [0.0, 0.05, 0.5, 0.9, 0.999])
def test_truncated_files(tmp_path, kept):
    content = OXYGEN.read_bytes().rstrip()
    (tmp_path / "short.nn.ascii").write_bytes(content[: int(kept * len(content)) - 30])
    with pytest.raises(AenetFileError, match=r"short\.nn\.ascii: item \d+, .*: expected "):
        read_potential(tmp_path / "short.nn.ascii")


def test_other_files(tmp_path):
    with pytest.raises(AenetFileError, match=r"none\.nn\.ascii: no such file"):
        read_potential(tmp_path / "none.nn.ascii")
    (tmp_path / "other.nn").write_bytes(b"PK\0\0\1\2")
    with pytest.raises(
        AenetFileError, match=r"other\.nn: expected a potential of ænet, found neither"
    ):
        read_potential(tmp_path / "other.nn")
    with pytest.raises(AenetFileError, match="one for each element, found none"):
        import_potential([])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({13: becomes("H O")}, "item 13, species: expected H O as in .*, found O H"),
        (
            {15: becomes("4.0"), 20: word(0, "4.0")},
            "item 20, radial radius: expected 4 as in .*, found 4.5",
        ),
        ({20: word(2, "2.5")}, "item 20, angular radius: expected 2.5 as in .*, found 3"),
    ],
)
def test_files_of_different_descriptors(tmp_path, changes, message):
    with pytest.raises(AenetFileError, match=message):
        import_potential([changed(tmp_path, changes), paths_of(EXPORTED)[1]])


def test_the_smallest_distance_is_that_of_all_files(tmp_path):
    """It counts for nothing but lists of neighbours."""
    paths = [changed(tmp_path, {14: becomes("0.4")}), paths_of(EXPORTED)[1]]
    assert import_potential(paths).settings.backbone.descriptor.min_cutoff == 0.4


def test_elements_that_are_missing_or_come_twice():
    oxygen, hydrogen = paths_of(EXPORTED)
    with pytest.raises(AenetFileError, match="each of its species O H, found none for H"):
        import_potential([oxygen])
    with pytest.raises(AenetFileError, match=r"item 11, element of the centre: found H again"):
        import_potential([oxygen, hydrogen, hydrogen])


def test_constants_that_differ_between_files_belong_to_the_elements(tmp_path):
    texts = {29: "0.5", 30: "1.5D+00", 32: "H O", 33: "-13.0 -430.0"}
    path = changed(tmp_path, {item: becomes(text) for item, text in texts.items()})
    settings = import_potential([path, paths_of(EXPORTED)[1]]).settings
    assert settings.backbone.E_scaling == (1.234567, 0.5)
    assert settings.backbone.E_shift == (-2.345678, 1.5)
    assert settings.atomic_energies == (-13.6, -430.0)


def test_lines_are_broken_anywhere_and_numbers_written_as_by_fortran(tmp_path):
    lines = OXYGEN.read_text().splitlines()
    for item in (9, 19, 23):
        line = FIRST_LINE[item]
        lines[line] = "\n".join(lines[line].split())
    weights = lines[8].splitlines()
    weights[0] = weights[0] + "D+00"
    weights[1] = "1.0-100"
    lines[8] = "\n".join(weights)
    lines[FIRST_LINE[28]] = ".true."
    (tmp_path / "broken.nn.ascii").write_text("\n".join(lines))
    found, expected = read_potential(tmp_path / "broken.nn.ascii"), read_potential(OXYGEN)
    assert found.layers[0][0][0, 1] == 1e-100
    expected.layers[0][0][0, 1] = 1e-100
    assert_same_potential(found, expected)


def test_features_that_do_not_vary_are_left_out(tmp_path):
    path = changed(tmp_path, {25: word(0, "1e-11"), 26: word(0, "0.0")})
    potential = read_potential(path)
    features = np.ones((2, 20))
    features[1, 0] = 1e6
    np.testing.assert_array_equal(*potential.energies(features))
    statistics = import_potential([path, paths_of(EXPORTED)[1]]).settings.backbone.features
    assert (statistics.std[1][0], statistics.std[0][0] > 0.0) == (0.0, True)


def write_binary(path: Path, potential: ElementPotential) -> None:
    """The 36 records of a potential, as the Fortran programs write them."""
    layers, descriptor = potential.layers, potential.descriptor
    nodes = [len(layers[0][0]), *(len(biases) for _, biases in layers)]
    sizes = [(first + 1) * second for first, second in itertools.pairwise(nodes)]
    offsets = [sum(sizes[:k]) for k in range(len(nodes))]
    values = [sum(size + 1 for size in nodes[:k]) for k in range(len(nodes))]
    codes = [*(list(ACTIVATIONS).index(name) for _, name in potential.architecture), 0]
    columns = [np.vstack([weights, biases]).ravel() for weights, biases in layers]
    parameters = np.zeros((descriptor.size, 4))
    parameters[0] = descriptor.rad_cutoff, descriptor.rad_order, *np.zeros(2)
    parameters[0, 2:] = descriptor.ang_cutoff, descriptor.ang_order
    features, training = potential.features, potential.training
    symbols = [chemical_symbols[element] for element in potential.atomic_energies]
    records = [
        *(len(nodes), max(nodes), offsets[-1], values[-1] + 1, nodes, codes, offsets, values),
        np.concatenate(columns),
        potential.description.ljust(1024),
        chemical_symbols[potential.element].ljust(2),
        len(descriptor.species),
        "".join(symbol.ljust(2) for symbol in descriptor.symbols),
        *(descriptor.min_cutoff, descriptor.cutoff, "Chebyshev".ljust(100), descriptor.size, 4),
        [0] * descriptor.size,
        parameters.ravel(),
        [0] * 2 * descriptor.size,
        *(features.atoms, features.minimum, features.maximum),
        *(features.average, features.second_moment),
        *(training.name.ljust(1024), 1, potential.E_scaling, potential.E_shift, len(symbols)),
        "".join(symbol.ljust(2) for symbol in symbols),
        np.array(list(potential.atomic_energies.values())),
        *(training.atoms, training.structures, np.array(training.energies)),
    ]
    assert len(records) == 36
    with FortranFile(path, "w") as file:
        for record in records:
            if isinstance(record, str):
                file.write_record(np.frombuffer(record.encode(), np.uint8))
            else:
                whole = isinstance(record, int | list)
                file.write_record(np.array(record, np.int32 if whole else np.float64))


@pytest.mark.parametrize("path", [*paths_of(FORTRAN), OXYGEN], ids=lambda path: path.name)
def test_binary_files_hold_the_same(tmp_path, path):
    expected = read_potential(path)
    write_binary(tmp_path / "binary.nn", expected)
    assert_same_potential(read_potential(tmp_path / "binary.nn"), expected)


def test_binary_files_that_cannot_be_used(tmp_path):
    path = tmp_path / "binary.nn"
    potential = read_potential(OXYGEN)
    write_binary(path, potential)
    whole = path.read_bytes()
    path.write_bytes(whole + np.array([4, 1, 4], np.int32).tobytes())
    with pytest.raises(AenetFileError, match=r"item 36, .* last record, found one more of 4 bytes"):
        read_potential(path)
    path.write_bytes(whole[:-8])
    with pytest.raises(
        AenetFileError, match=r"item 36, .*: expected a whole record, found a damage"
    ):
        read_potential(path)
    path.write_bytes(whole[:-32])
    with pytest.raises(
        AenetFileError, match=r"item 36, .*: expected a record, found the end of the"
    ):
        read_potential(path)
    potential.layers[0][0][0, 0] = np.nan
    write_binary(path, potential)
    with pytest.raises(AenetFileError, match=r"item 9, .*: expected 159 finite numbers, found nan"):
        read_potential(path)
    path.write_bytes(np.array([4, 4, 4, 8, 9, 9, 8], np.int32).tobytes())
    with pytest.raises(
        AenetFileError, match=r"item 2, .*: expected 1 numbers of 4 bytes, found 8 b"
    ):
        read_potential(path)
