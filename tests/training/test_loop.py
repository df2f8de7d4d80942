import errno
import logging
import os
import time

import jax
import numpy as np
import optax
import pytest
from ase.build import bulk
from tiny_system import tiny_batches, tiny_data, tiny_graph, tiny_model
from tiny_training import LOSS, STAGES, TAG, Recorder, stages, trainer

from mace_scf_jax.data.batching import BatchLoader
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.sets import StructuresInMemory
from mace_scf_jax.data.structure import prepare
from mace_scf_jax.training import batches
from mace_scf_jax.training.loop import loop
from mace_scf_jax.training.loop.checkpoints import (
    CheckpointError,
    CheckpointStore,
    UnwritableCheckpointError,
)
from mace_scf_jax.training.loop.options import ValidationOptions, WatchOptions
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.state import DivergedTrainingError
from mace_scf_jax.training.loop.steps import Programs
from mace_scf_jax.training.losses.properties import ErrorForm
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings
from mace_scf_jax.training.optimise.parameter_groups import group_sizes
from mace_scf_jax.training.records.reporting import LogLines

BATCHES = tiny_batches()
FINGERPRINT = {"model": {"r_max": 4.0}, "data": "tiny"}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_same(found, expected):
    """Bit for bit."""
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b, strict=True), found, expected)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """An uninterrupted run: the trainer, its progress, what it recorded and its folder."""
    folder = tmp_path_factory.mktemp("complete")
    recorder = Recorder()
    run = trainer(folder, observer=recorder)
    return run, run.run(STAGES, fingerprint=FINGERPRINT), recorder, folder


def test_a_step_takes_until_the_device_has_finished(tmp_path, monkeypatch):
    """The only batch of an epoch: nothing but the reading of its loss waits for it."""
    get = jax.device_get

    def finish(records):
        time.sleep(0.05)
        return get(records)

    recorder = Recorder()
    run = trainer(tmp_path, data=tiny_data(BATCHES[:1]), observer=recorder)
    monkeypatch.setattr(loop.jax, "device_get", finish)
    run.run(stages(1), fingerprint=FINGERPRINT)
    assert len(recorder.steps) == 2
    assert all(record.time > 0.05 for record in recorder.steps)


def test_a_run_learns_and_reports(complete):
    _, progress, recorder, folder = complete
    assert recorder.started == [("first", 0), ("second", 4)]
    assert recorder.finished == [("first", 4), ("second", 8)]
    assert [record.epoch for record in recorder.evaluations] == list(range(8))
    assert [record.opt_step for record in recorder.steps] == [*range(16), *range(16)]
    first = [record.loss for record in recorder.evaluations if record.stage == "first"]
    assert first[-1] < 0.9 * first[0]
    for record in recorder.steps:
        assert list(record.terms) == list(LOSS)
        assert record.loss == pytest.approx(sum(record.terms.values()), rel=1e-12)
        assert record.grad_clip_applied == (record.grad_norm_before_clip > 10.0)
    assert any(record.grad_clip_applied for record in recorder.steps)
    assert files(folder) == sorted(
        [
            f"{TAG}_resume.safetensors",
            f"{TAG}_resume_previous.safetensors",
            *progress.kept.values(),
        ]
    )


def test_the_kept_parameters_are_those_of_the_best_evaluation(complete):
    run, progress, recorder, _ = complete
    for stage in STAGES:
        records = [record for record in recorder.evaluations if record.stage == stage.name]
        best = min(records, key=lambda record: record.loss)
        assert progress.kept[stage.name] == f"{TAG}_{stage.name}_epoch-{best.epoch}.safetensors"
        parameters, record = run.best_parameters(progress, stage.name)
        assert record == {"stage": stage.name, "epoch": best.epoch, "loss": best.loss}
        again = run.validator.evaluate(parameters, tiny_data(BATCHES).sets["valid"](), stage)
        assert again.loss == best.loss
        assert again.metrics == best.metrics


def test_the_optimiser_goes_on_from_stage_to_stage(complete):
    run, _, recorder, _ = complete
    assert run.state.steps == len(recorder.steps) == 32


def test_several_steps_in_one_call_are_the_same_steps(tmp_path, monkeypatch):
    """Four batches put together on the device, in calls of two steps; or on the host, one by one.

    The structures are of two sizes.
    """
    monkeypatch.setattr(batches, "MOST_STEPS_TOGETHER", 3)
    salt = [bulk("NaCl", "rocksalt", 5.2) * (1 + seed % 2, 1, 1) for seed in range(9)]
    for seed, atoms in enumerate(salt):
        atoms.rattle(0.1, seed=seed)
        atoms.info["REF_energy"] = float(seed % 2)
    structures = StructuresInMemory(
        prepare(from_atoms(atoms), elements=(11, 17), cutoff=3.0) for atoms in salt
    ).without_edges()
    loader = BatchLoader(structures, batch_size=2, shuffle=True, drop_last=True, layout="per_atom")

    def of_stage(loss, sources):
        recorder = Recorder()
        data = tiny_data(BATCHES, energies=sources(loader))
        run = trainer(tmp_path / sources.__name__, data=data, observer=recorder)
        stage = Stage(name="only", start=0, end=1, loss=loss, lr=0.02)
        run.run((stage,), fingerprint=FINGERPRINT)
        return run, recorder

    def on_host(loader):
        return batches.batches_of_epochs(loader, None, None)

    def on_device(loader):
        return batches.batches_on_device(loader, None)

    energies = {"energy_per_atom": 1.0}
    (single, expected), (several, found) = (
        of_stage(energies, on_host),
        of_stage(energies, on_device),
    )
    compiled = [it.step for it in several.compilations]
    assert 1 <= compiled.count("2 training steps") <= len(loader.buckets)
    assert "training step" not in compiled
    assert len(found.steps) == 8
    for name in ("epoch", "batch", "opt_step"):
        assert [getattr(it, name) for it in found.steps] == [
            getattr(it, name) for it in expected.steps
        ]
    np.testing.assert_allclose(
        [it.loss for it in found.steps], [it.loss for it in expected.steps], rtol=1e-12
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10),
        several.state.parameters,
        single.state.parameters,
    )


def test_stages_that_read_forces_have_them_in_their_batches(tmp_path):
    def refused(epoch, *, start=0):
        raise AssertionError("batches without what forces need")

    data = tiny_data(BATCHES, energies=refused)
    trainer(tmp_path, data=data).run(STAGES[:1], fingerprint=FINGERPRINT)


def test_stages_may_have_other_terms(tmp_path):
    recorder = Recorder()
    stages = (
        Stage(name="first", start=0, end=0, loss={"energy_per_atom": 1.0}),
        Stage(name="second", start=1, end=1, loss={"atomic_multipoles": 2.0, "total_charge": 1.0}),
    )
    trainer(tmp_path, observer=recorder).run(stages, fingerprint=FINGERPRINT)
    terms = [(record.stage, list(record.terms)) for record in recorder.steps]
    assert (
        terms
        == [("first", ["energy_per_atom"])] * 4
        + [("second", ["atomic_multipoles", "total_charge"])] * 4
    )


def test_evaluations_use_the_moving_average(complete):
    run, _, recorder, _ = complete
    validation = tiny_data(BATCHES).sets["valid"]
    last = recorder.evaluations[-1].loss
    assert run.validator.evaluate(run.state.average, validation(), STAGES[-1]).loss == last
    assert run.validator.evaluate(run.state.parameters, validation(), STAGES[-1]).loss != last


def test_roots_are_of_the_whole_set(complete):
    """One batch of both graphs, or one of each: the same loss. Squared errors: likewise."""
    run, whole = complete[0], BATCHES[:1]
    graph = whole[0]
    halves = [
        graph.replace(
            graph_mask=graph.graph_mask & (np.arange(3) == one),
            atom_mask=graph.atom_mask & (graph.atom_graph == one),
        )
        for one in (0, 1)
    ]
    rooted = Stage.read({"name": "a", "start": 0, "end": 0, "force_weight": 0.3})
    mixed = rooted.model_copy(update={"loss": {**rooted.loss, "atomic_multipoles": 2.0}})
    for stage in (rooted, mixed):
        found = [
            run.validator.evaluate(run.state.average, it, stage).loss for it in (whole, halves)
        ]
        assert found[1] == pytest.approx(found[0], rel=1e-12)
    values = run.validator.evaluate(run.state.average, whole, rooted)
    expected = 0.7 * values.metrics["rmse_e_per_atom"] + 0.3 * values.metrics["rmse_f"]
    assert values.loss == pytest.approx(expected, rel=1e-12)


def test_each_step_is_compiled_once_per_bucket(tmp_path):
    larger = [tiny_graph(seed, atoms=10, edges=24) for seed in range(2)]
    run = trainer(tmp_path, data=tiny_data([*BATCHES, *larger]), programs=Programs())
    # the same terms with other weights and in another order are the same step
    other = Stage(
        name="second",
        start=4,
        end=5,
        loss={"forces": 3.0, "atomic_multipoles": 2.0, "energy_per_atom": 1.0},
    )
    run.run((STAGES[0], other), fingerprint=FINGERPRINT)
    counts = [(compilation.step, compilation.bucket) for compilation in run.compilations]
    assert len(counts) == len(set(counts))
    training = [bucket for step, bucket in counts if step == "training step"]
    assert sorted(training) == [
        "3 graphs, 10 atoms, 24 edges, 0 k",
        "3 graphs, 8 atoms, 16 edges, 0 k",
    ]


def test_single_precision_stays_single(tmp_path):
    def single(tree):
        return jax.tree.map(
            lambda leaf: leaf.astype(np.float32) if leaf.dtype == np.float64 else leaf, tree
        )

    parameters = single(tiny_model())
    recorder = Recorder()
    run = trainer(
        tmp_path,
        data=tiny_data([single(graph) for graph in BATCHES]),
        parameters=parameters,
        observer=recorder,
    )
    run.run(STAGES[:1], fingerprint=FINGERPRINT)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(run.state)} == {"float32", "int32"}
    assert recorder.evaluations[-1].loss < 0.9 * recorder.evaluations[0].loss


class Killed(BaseException):
    pass


class KillAt(Recorder):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def step_done(self, record):
        super().step_done(record)
        if len(self.steps) == self.step:
            raise Killed


@pytest.mark.parametrize(
    ("step", "seconds"),
    [(1, 0.0), (7, 1e9), pytest.param(16, 1e9, marks=pytest.mark.slow), (19, 0.0), (30, 1e9)],
)
def test_an_interrupted_run_ends_with_the_same_state(complete, tmp_path, step, seconds):
    with pytest.raises(Killed):
        trainer(tmp_path, observer=KillAt(step), checkpoint_seconds=seconds).run(
            STAGES, fingerprint=FINGERPRINT
        )
    resumed = trainer(tmp_path, checkpoint_seconds=seconds)
    progress = resumed.run(STAGES, fingerprint=FINGERPRINT)
    assert_same(resumed.state, complete[0].state)
    assert progress == complete[1]


@pytest.mark.parametrize(
    ("seconds", "saved"), [(0.0, [1, 2, 3, 4, 5, 6, 7, 8]), (1e9, [1, 4, 7, 8])]
)
def test_short_epochs_share_a_saved_state(tmp_path, monkeypatch, seconds, saved):
    found = []
    monkeypatch.setattr(loop, "SHORT_SECONDS", seconds)
    run = trainer(tmp_path, eval_interval=3, checkpoint_seconds=1e9)
    save = run._store.save

    def noted(state, progress, fingerprint):
        found.append(progress.epoch)
        save(state, progress, fingerprint)

    monkeypatch.setattr(run._store, "save", noted)
    run.run(STAGES, fingerprint=FINGERPRINT)
    assert found == saved


def test_a_finished_run_has_nothing_left_to_train(complete):
    run, progress, _, folder = complete
    recorder = Recorder()
    again = trainer(folder, observer=recorder, programs=Programs())
    assert again.run(STAGES, fingerprint=FINGERPRINT) == progress
    assert_same(again.state, run.state)
    assert not recorder.started
    assert not again.compilations


def test_a_stage_can_be_extended(complete, tmp_path):
    short = (
        STAGES[0],
        Stage(
            name="second",
            start=4,
            end=5,
            loss=STAGES[1].loss,
            lr=0.002,
            group_lrs={"embedding": 0.0005},
        ),
    )
    trainer(tmp_path).run(short, fingerprint=FINGERPRINT)
    extended = trainer(tmp_path)
    assert extended.run(STAGES, fingerprint=FINGERPRINT) == complete[1]
    assert_same(extended.state, complete[0].state)


def test_states_that_tell_options_at_their_defaults_are_of_the_same_run(complete, tmp_path):
    told = {"loss_options": {"forces": ErrorForm()}}
    trainer(tmp_path).run([STAGES[0].model_copy(update=told)], fingerprint=FINGERPRINT)
    resumed = trainer(tmp_path)
    assert resumed.run(STAGES, fingerprint=FINGERPRINT) == complete[1]
    assert_same(resumed.state, complete[0].state)


def test_a_damaged_state_is_reported_and_the_previous_one_used(complete, tmp_path, caplog):
    with pytest.raises(Killed):
        trainer(tmp_path, observer=KillAt(10)).run(STAGES, fingerprint=FINGERPRINT)
    latest = CheckpointStore(tmp_path, TAG).latest
    latest.write_bytes(latest.read_bytes()[:-1000])
    resumed = trainer(tmp_path)
    with caplog.at_level(logging.WARNING):
        progress = resumed.run(STAGES, fingerprint=FINGERPRINT)
    assert "not a complete checkpoint" in caplog.text
    assert "resuming from the previous one" in caplog.text
    assert_same(resumed.state, complete[0].state)
    assert progress == complete[1]


def test_a_run_goes_on_once_the_disk_has_room_again(complete, tmp_path, monkeypatch):
    def refuse(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    class FillDisk(Recorder):
        def step_done(self, record):
            super().step_done(record)
            if len(self.steps) == 10:
                monkeypatch.setattr(os, "fsync", refuse)

    with pytest.raises(UnwritableCheckpointError, match=r"No space left .* start the run again"):
        trainer(tmp_path, observer=FillDisk()).run(STAGES, fingerprint=FINGERPRINT)
    monkeypatch.undo()
    resumed = trainer(tmp_path)
    assert resumed.run(STAGES, fingerprint=FINGERPRINT) == complete[1]
    assert_same(resumed.state, complete[0].state)


@pytest.mark.parametrize(
    ("stages", "fingerprint", "message"),
    [
        (STAGES, {"model": {"r_max": 5.0}, "data": "tiny"}, "model.r_max: 4.0 then, 5.0 now"),
        (STAGES, {"model": {"r_max": 4.0}}, "data: tiny then, absent now"),
        (
            (Stage(name="first", start=0, end=3, loss=LOSS, lr=0.03), STAGES[1]),
            FINGERPRINT,
            "train_schedule.0.lr: 0.02 then, 0.03 now",
        ),
        (STAGES[:1], FINGERPRINT, "train_schedule.1.name: second then, absent now"),
    ],
)
def test_other_settings_are_refused(complete, stages, fingerprint, message):
    folder = complete[3]
    before = files(folder)
    with pytest.raises(CheckpointError) as caught:
        trainer(folder).run(stages, fingerprint=fingerprint)
    assert message in str(caught.value)
    assert files(folder) == before


def test_a_shortened_stage_is_refused(complete):
    shorter = (
        STAGES[0],
        Stage(
            name="second",
            start=4,
            end=5,
            loss=STAGES[1].loss,
            lr=0.002,
            group_lrs={"embedding": 0.0005},
        ),
    )
    with pytest.raises(CheckpointError, match=r"at epoch 8, after the end of stage 'second'"):
        trainer(complete[3]).run(shorter, fingerprint=FINGERPRINT)


def test_starting_anew_ignores_saved_states(complete, tmp_path):
    changed = (Stage(name="first", start=0, end=1, loss=LOSS, lr=0.03),)
    trainer(tmp_path).run(changed, fingerprint=FINGERPRINT)
    anew = trainer(tmp_path)
    assert anew.run(STAGES, fingerprint=FINGERPRINT, resume=False).kept == complete[1].kept
    assert_same(anew.state, complete[0].state)


def test_patience_ends_a_stage_and_the_next_one_runs(tmp_path):
    recorder = Recorder()
    stages = (
        Stage(name="still", start=0, end=50, loss=LOSS, lr=0.0),
        Stage(name="moving", start=51, end=52, loss=LOSS, lr=0.01),
    )
    progress = trainer(tmp_path, observer=recorder, patience=3).run(stages, fingerprint=FINGERPRINT)
    assert [record.epoch for record in recorder.evaluations] == [0, 1, 2, 3, 51, 52]
    assert recorder.finished == [("still", 4), ("moving", 53)]
    assert not progress.stopped_early


def test_evaluation_at_the_interval_and_the_end_of_each_stage(tmp_path):
    recorder = Recorder()
    trainer(tmp_path, observer=recorder, eval_interval=3).run(STAGES, fingerprint=FINGERPRINT)
    assert [record.epoch for record in recorder.evaluations] == [0, 3, 6, 7]


@pytest.mark.parametrize(
    ("flag", "kept"), [("keep_checkpoints", [0]), ("save_all_checkpoints", [0, 1, 2])]
)
def test_keeping_more_files(tmp_path, flag, kept):
    stages = (Stage(name="still", start=0, end=2, loss=LOSS, lr=0.0),)
    trainer(tmp_path, **{flag: True}).run(stages, fingerprint=FINGERPRINT)
    found = [name for name in files(tmp_path) if "_still_" in name]
    assert found == [f"{TAG}_still_epoch-{epoch}.safetensors" for epoch in kept]


def test_monitored_sets_are_evaluated_too(tmp_path):
    recorder = Recorder()
    data = tiny_data(BATCHES, sets={"valid": lambda: BATCHES[:2], "bulk": lambda: BATCHES[2:]})
    trainer(tmp_path, data=data, observer=recorder).run(STAGES[:1], fingerprint=FINGERPRINT)
    assert [record.set_name for record in recorder.evaluations] == ["valid", "bulk"] * 4
    assert not any(record.improved for record in recorder.evaluations[1::2])


def with_label_error(graph, value):
    energy = graph.labels["energy"].copy()
    energy[1] = value
    return graph.replace(labels={**graph.labels, "energy": energy})


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    bad = [*BATCHES, with_label_error(BATCHES[0], np.nan)]
    data = tiny_data(bad)
    position = next(index for index, graph in enumerate(data.training(0)) if graph is bad[-1])
    run = trainer(
        tmp_path,
        data=data,
        watched=WatchOptions(debug_log_grad_summary=True, wandb_watch_log_freq=100),
    )
    with pytest.raises(DivergedTrainingError) as caught:
        run.run(STAGES, fingerprint=FINGERPRINT)
    assert f"stage 'first', epoch 0, batch {position}: the loss is not finite" in str(caught.value)
    assert "not finite in the groups embedding, interactions_" in str(caught.value)
    saved = CheckpointStore(tmp_path, TAG).newest()
    assert saved.progress.batch == position
    assert all(np.all(np.isfinite(array)) for array in saved.arrays.values())


def test_a_validation_loss_that_is_not_finite_stops_the_run(tmp_path):
    data = tiny_data(BATCHES, sets={"valid": lambda: [with_label_error(BATCHES[0], np.nan)]})
    with pytest.raises(DivergedTrainingError, match="epoch 0: the loss of the set 'valid' is nan"):
        trainer(tmp_path, data=data).run(STAGES, fingerprint=FINGERPRINT)
    assert not [name for name in files(tmp_path) if "epoch-" in name]


def test_a_closer_look_changes_nothing(tmp_path, complete):
    recorder = Recorder()
    watched = WatchOptions(
        debug_log_grad_summary=True, wandb_watch="gradients", wandb_watch_log_freq=5
    )
    run = trainer(tmp_path, observer=recorder, watched=watched)
    run.run(STAGES, fingerprint=FINGERPRINT)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14),
        run.state.parameters,
        complete[0].state.parameters,
    )
    looked = [index for index, record in enumerate(recorder.steps) if record.watched is not None]
    assert looked == list(range(0, 32, 5))
    for index in looked:
        record = recorder.steps[index]
        assert record.watched.step == index
        norm = record.watched.numbers["grad/global_norm"]
        assert norm == pytest.approx(record.grad_norm_before_clip, rel=1e-12)
        sizes = {name: sum(counts) for name, (counts, _) in record.watched.histograms.items()}
        assert sizes == {f"gradients/{group}": n for group, n in group_sizes(tiny_model()).items()}
    first = recorder.steps[0].watched.numbers["param/global_norm"]
    assert first == pytest.approx(float(optax.tree.norm(tiny_model())), rel=1e-12)


def test_breakdown_lines(tmp_path, caplog):
    with caplog.at_level(logging.DEBUG, logger="mace_scf_jax"):
        trainer(tmp_path).run(STAGES[:1], fingerprint=FINGERPRINT)
    lines = [text for text in caplog.messages if text.startswith("loss breakdown: ")]
    assert len(lines) == 4 * (4 + 2)  # epochs x (training + validation batches)
    parts = lines[0].removeprefix("loss breakdown: ").split(", ")
    assert [part.split(": ")[0] for part in parts] == [*LOSS, ""]
    assert all(np.isfinite(float(part.split(": ")[1])) for part in parts[:-1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_interval": 0}, "eval_interval: expected a number of at least 1, found 0"),
        ({"patience": 0}, "patience: expected a number of at least 1, found 0"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ValidationOptions(**changes)


LBFGS = OptimiserSettings(optimizer="lbfgs")
STAGES_OF_TWO_LOSSES = (
    STAGES[0],
    Stage.read({"name": "second", "start": 4, "end": 7, "force_weight": 0.5}),
)


def one_batch():
    """Steps on the same structures in every epoch."""
    return tiny_data(BATCHES[:1], sets={"valid": lambda: BATCHES[:1]})


@pytest.fixture(scope="module")
def quasi_newton(tmp_path_factory):
    """A run with lbfgs: the trainer, its progress and what it recorded."""
    recorder = Recorder()
    folder = tmp_path_factory.mktemp("quasi_newton")
    run = trainer(folder, data=one_batch(), optimiser=LBFGS, observer=recorder)
    return run, run.run(STAGES_OF_TWO_LOSSES, fingerprint=FINGERPRINT), recorder


def test_lbfgs_lowers_the_loss_in_every_step(quasi_newton):
    recorder = quasi_newton[2]
    for stage in STAGES_OF_TWO_LOSSES:
        losses = [record.loss for record in recorder.steps if record.stage == stage.name]
        assert len(losses) == 4
        assert losses == sorted(losses, reverse=True)
    assert not any(record.grad_clip_applied for record in recorder.steps)


@pytest.mark.parametrize("step", [2, 4, 5, 7])
def test_a_resumed_run_with_lbfgs_ends_with_the_same_state(quasi_newton, tmp_path, step):
    options = {"data": one_batch(), "optimiser": LBFGS}
    killed = trainer(tmp_path, observer=KillAt(step), **options)
    with pytest.raises(Killed):
        killed.run(STAGES_OF_TWO_LOSSES, fingerprint=FINGERPRINT)
    resumed = trainer(tmp_path, **options)
    assert resumed.run(STAGES_OF_TWO_LOSSES, fingerprint=FINGERPRINT) == quasi_newton[1]
    assert_same(resumed.state, quasi_newton[0].state)


def test_lbfgs_is_told_without_learning_rates(tmp_path, caplog):
    lines = LogLines("auto", None, has_learning_rates=False)
    run = trainer(tmp_path, data=one_batch(), optimiser=LBFGS, observer=lines)
    with caplog.at_level(logging.INFO):
        run.run(STAGES_OF_TWO_LOSSES[:1], fingerprint=FINGERPRINT)
    assert "Epoch 3: loss=" in caplog.text
    assert "lr=" not in caplog.text
    assert "learning rate" not in caplog.text


def test_lbfgs_forgets_the_curvature_of_another_loss(quasi_newton, tmp_path):
    """The second stage on its own, from the parameters that the first one ends with."""
    first = trainer(tmp_path / "first", data=one_batch(), optimiser=LBFGS)
    first.run(STAGES_OF_TWO_LOSSES[:1], fingerprint=FINGERPRINT)
    second = trainer(
        tmp_path / "second",
        data=one_batch(),
        optimiser=LBFGS,
        parameters=first.state.parameters,
    )
    alone = STAGES_OF_TWO_LOSSES[1].model_copy(update={"start": 0, "end": 3})
    second.run([alone], fingerprint=FINGERPRINT)
    assert_same(second.state.parameters, quasi_newton[0].state.parameters)
