"""Committees: spread of the members, ranking, members that do not fit, the ASE calculator."""

from __future__ import annotations

import functools
import json
import pickle

import ase.io
import jax
import numpy as np
import pytest
from ase.stress import voigt_6_to_full_3x3_stress
from tiny_models import ELEMENTS, molecule, periodic, tiny_model, tiny_settings

from mace_scf_jax.models.model_file import ModelFileError
from mace_scf_jax.predict.committee import (
    CommitteeFile,
    CommitteeFileError,
    DataDigests,
    MemberEntry,
)
from mace_scf_jax.predict.spread import UncertaintyError, mean_and_std
from mace_scf_jax.simulate import (
    Committee,
    CommitteeCalculator,
    CommitteeError,
    CommitteePrediction,
    Model,
    committee_energy_function,
    evaluate_file,
    load_committee,
    rank,
    uncertainty,
)

SEEDS = (0, 1, 2)


STRUCTURES = tuple(periodic(seed) for seed in range(2))
"""Predicted together everywhere, so that one compiled function serves all tests."""


@pytest.fixture(scope="module")
def models() -> list[Model]:
    return [tiny_model(seed=seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def committee(models) -> Committee:
    return Committee(tuple(models))


@pytest.fixture
def folder(models, tmp_path):
    """A committee as training leaves it, with two stages."""
    entries = []
    for number, model in enumerate(models, start=1):
        paths = {stage: f"member-{number}/x_{stage}.model.safetensors" for stage in ("a", "b")}
        (tmp_path / f"member-{number}").mkdir()
        for path in paths.values():
            model.save(tmp_path / path)
        entries.append(MemberEntry(number=number, seed=number, models=paths))
    CommitteeFile(
        version="0",
        name="x",
        size=len(models),
        split_seed=1,
        data=DataDigests(training="0", validation="1"),
        members=tuple(entries),
    ).write(tmp_path)
    return tmp_path


def test_mean_and_deviation_of_separate_predictions(committee, models):
    together = committee.predict(STRUCTURES, stress=True)
    separate = [model.predict(STRUCTURES, stress=True) for model in models]
    for index, prediction in enumerate(together):
        assert "dipole" not in prediction.mean
        for name in ("energy", "forces", "stress", "multipoles"):
            values = np.stack([own[index][name] for own in separate])
            np.testing.assert_array_equal(prediction.values[name], values)
            np.testing.assert_allclose(prediction.mean[name], values.mean(axis=0), rtol=1e-12)
            np.testing.assert_allclose(
                prediction.std[name], values.std(axis=0, ddof=1), rtol=1e-9, atol=1e-12
            )
        assert prediction.std["energy"] > 0.0
        assert uncertainty(prediction, by="forces") == pytest.approx(
            np.max(np.linalg.norm(prediction.std["forces"], axis=1))
        )
        assert uncertainty(prediction, by="energy") == pytest.approx(prediction.std["energy"] / 5)
        assert uncertainty(prediction, by="charges") == np.max(prediction.std["multipoles"][:, 0])
    assert rank(together) == sorted(range(2), key=lambda k: -uncertainty(together[k]))


def test_members_of_the_same_settings_share_one_compiled_function(committee):
    assert {id(model.evaluate) for model in committee.members} == {id(committee.first.evaluate)}


def test_identical_members_do_not_deviate(models):
    same = Committee((models[0],) * 3).predict(STRUCTURES, stress=True)[1]
    assert all(not np.any(deviation) for deviation in same.std.values())
    for name, mean in same.mean.items():
        np.testing.assert_array_equal(mean, same.members[0][name])


def test_deviations_are_not_lost_in_large_energies():
    _, deviation = mean_and_std([-1e9 + 1e-3, -1e9, -1e9 - 1e-3])
    # 1e9 is stored to 1.2e-7, so that the differences of 1e-3 are known to 1e-4 of themselves
    assert deviation == pytest.approx(1e-3, rel=1.2e-4)


def test_the_most_uncertain_comes_first_and_what_is_not_finite_before_all():
    deviations = [0.1, 0.3, float("nan"), 0.2]
    predictions = [
        CommitteePrediction({}, {"forces": np.full((1, 3), value)}, ()) for value in deviations
    ]
    assert rank(predictions) == [2, 1, 3, 0]
    with pytest.raises(UncertaintyError, match="did you mean 'forces'"):
        rank(predictions, by="force")
    with pytest.raises(UncertaintyError, match="expected predictions of stress, found only forces"):
        rank(predictions, by="stress")


def test_members_have_to_agree(models):
    one = models[0]
    other_elements = tiny_settings(elements=(1, 6))
    two_layers = tiny_settings(num_interactions=2)
    single = Model(one.settings, jax.tree.map(lambda leaf: leaf.astype("float32"), one.parameters))
    for other, expected in (
        (Model(other_elements, one.parameters), rf"elements of member 1, \({ELEMENTS[0]}, 8\), "),
        (Model(tiny_settings("MACE"), one.parameters), "family of member 1, LocalCharges, found M"),
        (Model(tiny_settings(r_max=3.5), one.parameters), "cutoff of member 1, 3.0, found 3.5"),
        (Model(two_layers, one.parameters), "number of layers of member 1, 1, found 2"),
        (single, "precision of member 1, float64, found float32"),
    ):
        with pytest.raises(CommitteeError, match="member 2: expected the " + expected):
            Committee((one, other))
    with pytest.raises(CommitteeError, match="at least 2 members, found 1"):
        Committee((one,))


def test_a_committee_is_read_from_its_folder_or_from_model_files(folder, models):
    paths = [folder / f"member-{number}/x_a.model.safetensors" for number in (1, 3)]
    for source, stage, seeds in (
        (folder, None, SEEDS),
        (folder / "committee.json", "a", SEEDS),
        (paths, None, (0, 2)),
    ):
        committee = load_committee(source, stage=stage)
        assert len(committee) == len(seeds)
        for found, seed in zip(committee.members, seeds, strict=True):
            jax.tree.map(np.testing.assert_array_equal, found.parameters, models[seed].parameters)
    assert load_committee(folder).names[0].endswith("x_b.model.safetensors")
    with pytest.raises(CommitteeError, match="unknown stage 'c'; known are a, b"):
        load_committee(folder, stage="c")
    with pytest.raises(CommitteeError, match="none together with a list"):
        load_committee(paths, stage="a")


def test_committees_that_are_not_complete(folder):
    description = json.loads((folder / "committee.json").read_text())

    def rewritten(**changes):
        """The file as before there were checksums."""
        first = {name: value for name, value in description.items() if name != "sha256"}
        content = first | {"format_version": 1} | changes
        (folder / "committee.json").write_text(json.dumps(content))

    rewritten(members=description["members"][:1])
    with pytest.raises(CommitteeError, match=r"expected 3 trained members, found 1; .*: 2, 3\."):
        load_committee(folder)
    rewritten(format_version=3)
    with pytest.raises(CommitteeFileError, match=r"format version 3, .* reads up to 2"):
        load_committee(folder)
    rewritten(size="three")
    with pytest.raises(CommitteeFileError, match="entry size: Input should be a valid integer"):
        load_committee(folder)
    (folder / "committee.json").write_text(json.dumps(description | {"size": 4}))
    with pytest.raises(CommitteeFileError, match="do not match their checksum"):
        load_committee(folder)
    (folder / "committee.json").write_text("{")
    with pytest.raises(CommitteeFileError, match="not a complete description of a committee"):
        load_committee(folder)
    rewritten()
    (folder / "member-2/x_b.model.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"member-2/x_b\.model\.safetensors: no such model"):
        load_committee(folder)
    with pytest.raises(CommitteeFileError, match=r"expected a folder with committee\.json"):
        load_committee(folder / "member-1")


def test_the_calculator_reports_means_and_deviations(committee):
    atoms = periodic()
    atoms.calc = CommitteeCalculator(committee)
    stress = atoms.get_stress()
    expected = committee.predict(STRUCTURES, stress=True)[0]
    assert atoms.get_potential_energy() == pytest.approx(float(expected.mean["energy"]), rel=1e-12)
    results = atoms.calc.results
    for name in ("energy", "forces", "multipoles"):
        np.testing.assert_allclose(results[name], expected.mean[name], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(results[f"{name}_std"], expected.std[name], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(
        voigt_6_to_full_3x3_stress(stress), expected.mean["stress"], rtol=1e-9, atol=1e-10
    )
    assert isinstance(results["energy_std"], float)
    assert atoms.calc.get_property("forces_std", atoms).shape == (5, 3)

    copied = pickle.loads(pickle.dumps(atoms))
    assert copied.calc.check_state(copied) == atoms.calc.check_state(atoms) == []
    copied.positions[0] += 0.1
    expected = committee.predict(copied)
    np.testing.assert_allclose(copied.get_forces(), expected.mean["forces"], rtol=1e-9, atol=1e-10)
    atoms.info["total_charge"] = 1.5
    assert atoms.calc.check_state(atoms) == ["info"]


def test_the_mean_energy_as_a_pure_function(committee):
    energy_fn, prepare = committee_energy_function(committee, skin=0.3)
    atoms = STRUCTURES[0]
    neighbours, expected = prepare(atoms), committee.predict(STRUCTURES, stress=True)[0]
    found = jax.jit(functools.partial(energy_fn.results, stress=True))(atoms.positions, neighbours)
    assert bool(found.valid & found.converged)
    for name in ("energy", "forces", "stress", "multipoles"):
        np.testing.assert_allclose(getattr(found, name), expected.mean[name], atol=1e-10)
    for name in ("energy", "forces"):
        np.testing.assert_allclose(found.further[f"{name}_std"], expected.std[name], atol=1e-9)
    far = energy_fn.results(atoms.positions + 3.0 * np.eye(5, 3), neighbours)
    assert not far.valid
    assert np.isnan(far.energy)
    assert np.isnan(far.further["forces_std"]).all()
    with pytest.raises(TypeError, match="unknown keyword 'pbc'"):
        committee_energy_function(committee, pbc="exact")


@pytest.mark.parametrize("member", [None, 2])
def test_one_member_is_followed_with_the_deviations_of_all(committee, member):
    followed = committee.aggregating("reference", member)
    prediction = followed.predict(STRUCTURES, stress=True)[0]
    of_member = prediction.members[(member or 1) - 1]
    means = committee.predict(STRUCTURES, stress=True)[0]
    atoms = periodic()
    atoms.calc = CommitteeCalculator(committee, aggregation="reference", reference_member=member)
    atoms.get_stress()
    results = atoms.calc.results
    energy_fn, prepare = committee_energy_function(followed, skin=0.3)
    found = jax.jit(energy_fn.results)(atoms.positions, prepare(atoms))
    for name in ("energy", "forces", "multipoles"):
        np.testing.assert_array_equal(prediction.combined[name], of_member[name])
        assert np.max(np.abs(of_member[name] - means.mean[name])) > 1e-6
        np.testing.assert_allclose(results[name], of_member[name], rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(getattr(found, name), of_member[name], atol=1e-10)
    for name in ("energy", "forces"):
        np.testing.assert_array_equal(prediction.std[name], means.std[name])
        np.testing.assert_array_equal(prediction.mean[name], means.mean[name])
        np.testing.assert_allclose(results[f"{name}_std"], means.std[name], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found.further[f"{name}_std"], means.std[name], atol=1e-9)
    assert results["free_energy"] == results["energy"]


def test_members_that_cannot_be_followed(committee, folder):
    with pytest.raises(CommitteeError, match="aggregation: expected mean or reference, found 'm"):
        Committee(committee.members, aggregation="median")
    with pytest.raises(CommitteeError, match="reference_member: expected a number from 1 to 3, f"):
        load_committee(folder, aggregation="reference", reference_member=4)
    with pytest.raises(CommitteeError, match="reference_member: found 2, which needs aggregation:"):
        committee.aggregating(None, 2)
    assert committee.aggregating(None) is committee
    followed = load_committee(folder, aggregation="reference", reference_member=2)
    assert followed.using(dtype="float32").reference == 1


def test_errors_of_a_file_are_those_of_the_member_that_is_followed(committee, tmp_path):
    structures = [atoms.copy() for atoms in STRUCTURES]
    second = committee.members[1].predict(structures)
    for atoms, prediction in zip(structures, second, strict=True):
        atoms.info["REF_energy"] = float(prediction["energy"])
    ase.io.write(tmp_path / "labelled.xyz", structures)
    keys = {"energy": "REF_energy"}
    errors = {
        reference: evaluate_file(
            committee.aggregating("reference", reference),
            tmp_path / "labelled.xyz",
            output=tmp_path / "out.xyz",
            keys=keys,
        ).metrics["all"]["rmse_e_per_atom"]
        for reference in (1, 2)
    }
    assert errors[2] < 1e-8 < errors[1]
    written = ase.io.read(tmp_path / "out.xyz", ":")
    assert written[0].info["MACE_energy"] == pytest.approx(float(second[0]["energy"]), abs=1e-6)


def test_members_have_small_arrays_after_a_large_structure(committee):
    calculator, small = CommitteeCalculator(committee), molecule()
    for atoms in (periodic() * (2, 1, 1), small):
        atoms.calc = calculator
        atoms.get_potential_energy()
    padded = {member.evaluator.num_padded_atoms for member in calculator.calculators}
    assert max(padded) < 2 * len(small)
