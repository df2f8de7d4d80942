"""What pictures show; how they look is for the eye."""

import json
import warnings

import numpy as np
import pytest
from imaginary_run import STEPS_PER_EPOCH, make_run

from mace_scf_jax.reports.learning_curves import learning_curves
from mace_scf_jax.reports.loss_balance import loss_balance, loss_terms, running_mean
from mace_scf_jax.reports.pictures import draw
from mace_scf_jax.reports.scf_convergence import scf_convergence
from mace_scf_jax.reports.style import logarithmic, panels, save
from mace_scf_jax.reports.training_run import RunError, find_run
from mace_scf_jax.training.optimise.parameter_groups import parameter_groups


def lines_of(axes) -> dict:
    return {line.get_label(): line for line in axes.get_lines()}


def panel_of(figure, title: str):
    (found,) = [axes for axes in figure.axes if axes.get_title(loc="left") == title]
    return found


def save_strictly(figure, folder) -> None:
    """Lay the picture out and save it; a warning, such as of panels without room, is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(figure, folder / "strict.png")


def test_learning_curves_show_losses_errors_and_rates(folder):
    figure = learning_curves(find_run(folder))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["Loss", "Energy per atom", "Forces", "Learning rate"]
    forces = figure.axes[2]
    assert forces.get_ylabel() == "RMSE / (meV/Å)"
    assert forces.get_yscale() == "log"
    np.testing.assert_allclose(
        lines_of(forces)["validation"].get_ydata(), 500.0 / np.array([1, 2, 3, 4])
    )
    assert "ice_Default" in lines_of(forces)
    assert set(lines_of(figure.axes[3])) == {"all other groups", "embedding"}


def test_a_range_of_epochs_can_be_chosen(folder):
    run = find_run(folder)
    figure = learning_curves(run, min_epoch=2, max_epoch=5)
    np.testing.assert_array_equal(lines_of(figure.axes[0])["validation"].get_xdata(), [2, 3])
    assert figure.axes[0].get_xlim() == (1.5, 5.5)
    (coarse, fine) = loss_terms(run, min_epoch=3, max_epoch=4)
    assert len(coarse.position) == len(fine.position) == STEPS_PER_EPOCH
    assert 3.0 < coarse.position[0] < coarse.position[-1] < 4.0
    for picture in (learning_curves, loss_balance):
        with pytest.raises(RunError, match=r"epoch.* 90 .*the run has\s+0 to 7"):
            picture(run, min_epoch=90)


def test_running_means_have_no_lag():
    ramp = np.arange(7.0)
    np.testing.assert_allclose(running_mean(ramp, 3), [0.5, 1, 2, 3, 4, 5, 5.5])
    np.testing.assert_array_equal(running_mean(ramp, 1), ramp)
    np.testing.assert_allclose(running_mean(ramp, 99), 3.0)


def test_single_steps_are_points_beside_their_means(folder):
    above = loss_balance(find_run(folder)).axes[0]
    points, means = above.get_lines()[2:4]  # of the second term, which is random
    assert points.get_marker() == "."
    assert points.get_markersize() >= 3.0
    assert points.get_alpha() >= 0.5
    np.testing.assert_allclose(
        means.get_ydata()[2:-2], np.convolve(points.get_ydata(), np.full(5, 0.2), "valid")
    )


def test_the_shares_of_the_loss_add_up(folder):
    below = loss_balance(find_run(folder)).axes[1]
    tops = [polygon.get_paths()[0].vertices[:, 1].max() for polygon in below.collections]
    assert tops[-1] == pytest.approx(100.0)
    assert tops[0] < 100.0


def test_convergence_is_drawn_where_something_was_solved_for(folder, tmp_path):
    without = draw(find_run(folder), with_parity=False)
    assert [picture.name for picture in without.drawn] == ["learning_curves", "loss_balance"]
    assert without.left_out == (
        "SCF convergence: nothing is solved self-consistently (LocalCharges)",
    )
    run = find_run(make_run(tmp_path / "solved", scf=True))
    assert draw(run, with_parity=False).drawn[-1].name == "scf_convergence"
    above, below = scf_convergence(run, max_epoch=3).axes
    assert above.get_ylabel() == "out of steps / %"
    assert set(lines_of(above)) == {"training", "validation", "ice_Default"}
    np.testing.assert_allclose(lines_of(above)["training"].get_ydata(), [10.0] * 4)
    np.testing.assert_allclose(lines_of(below)["training"].get_ydata(), [12.0] * 4)


def test_equal_curves_and_curves_at_zero_can_be_seen(tmp_path):
    def solved(record):
        counts = record.get("scf", {}) | {"max_steps": 0}
        return record | {"scf": counts} if "scf" in record else record

    figure = scf_convergence(find_run(make_run(tmp_path / "run", solved, scf=True)))
    for axes in figure.axes:
        training, validation, test = axes.get_lines()
        assert training.get_linewidth() > 2.0 * validation.get_linewidth()
        assert training.get_zorder() <= validation.get_zorder()
        assert validation.get_linestyle() == "-"
        assert test.get_linestyle() == "--"
    low, high = figure.axes[0].get_ylim()
    assert low < 0.0
    assert high >= 10.0
    save_strictly(figure, tmp_path)


def test_parity_plots_are_left_out_with_the_reason(folder):
    pictures = draw(find_run(folder))
    assert any(
        reason.startswith("parity plots: ") and "no such model file" in reason
        for reason in pictures.left_out
    )


def test_errors_of_what_is_given_are_not_drawn_and_single_epochs_are_marked(tmp_path):
    run = make_run(tmp_path / "run")
    (path,) = run.glob("results/*.txt")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    first = [record | {"rmse_fermi_level": 0.0} for record in records if record["epoch"] == 0]
    path.write_text("".join(json.dumps(record) + "\n" for record in first))
    figure = learning_curves(find_run(run))
    assert "Fermi level" not in [axes.get_title(loc="left") for axes in figure.axes]
    assert lines_of(figure.axes[1])["validation"].get_marker() == "."
    save_strictly(figure, tmp_path)


def test_errors_of_a_stage_that_are_round_off_are_told_and_not_drawn(tmp_path):
    def charge(record):
        error = 0.1 if record["stage"] == "coarse" else 9e-17
        return record | {"rmse_total_charge": error, "rmse_fermi_level": 1e-16}

    figure = learning_curves(find_run(make_run(tmp_path / "run", charge)))
    panel = panel_of(figure, "Total charge")
    low, high = panel.get_ylim()
    assert 50.0 < low < 100.0 < high < 200.0
    np.testing.assert_array_equal(lines_of(panel)["epoch that a stage keeps"].get_xdata(), [3])
    assert "below\n1e-13" in [text.get_text() for text in panel.texts]
    assert "Fermi level" not in [axes.get_title(loc="left") for axes in figure.axes]
    save_strictly(figure, tmp_path)


def test_epochs_without_those_that_stages_keep_leave_room_for_panels(folder, tmp_path):
    save_strictly(learning_curves(find_run(folder), max_epoch=2), tmp_path)


@pytest.mark.parametrize("values", [[0.3, 0.29999999999999977], [3.0], [1.0, 1.3]])
def test_logarithmic_axes_have_a_least_range(values, tmp_path):
    figure, (axes,) = panels(1)
    axes.plot(values)
    logarithmic(axes)
    low, high = axes.get_ylim()
    assert high / low > 1.499
    assert low < min(values) <= max(values) < high
    ticks = axes.get_yticks()
    assert np.sum((ticks >= low) & (ticks <= high)) >= 3
    save_strictly(figure, tmp_path)


def test_an_axis_without_positive_values_stays_linear(tmp_path):
    figure, (axes,) = panels(1)
    axes.plot([0.0, 0.0])
    logarithmic(axes)
    assert axes.get_yscale() == "linear"
    save_strictly(figure, tmp_path)


def test_legends_cover_no_panel(tmp_path):
    rates = {"lr": 0.01} | {f"{name}_lr": 0.001 for name in parameter_groups()}

    def several(record):
        return record | {"learning_rates": rates} if "learning_rates" in record else record

    figure = learning_curves(find_run(make_run(tmp_path / "run", several)))
    save_strictly(figure, tmp_path)
    renderer = figure.canvas.get_renderer()
    above, below = figure.legends
    assert [entry.get_text() for entry in above.get_texts()] == [
        "training (loss only)",
        "validation",
        "ice_Default",
        "epoch that a stage keeps",
    ]
    assert len(below.get_texts()) == len(rates)
    for axes in figure.axes:
        panel = axes.get_tightbbox(renderer)
        assert axes.get_legend() is None
        assert panel.height > 200.0
        for legend in (above, below):
            extent = legend.get_window_extent(renderer)
            assert 0.0 <= extent.x0 < extent.x1 <= figure.bbox.x1
            assert not extent.overlaps(panel)


def test_terms_that_vanish_do_not_stretch_the_axis(tmp_path):
    run = make_run(tmp_path / "run")
    (path,) = run.glob("results/*.txt")
    text = path.read_text().replace('"forces": 2.0', '"forces": 1e-31')
    path.write_text(text)
    low, high = loss_balance(find_run(run)).axes[0].get_ylim()
    assert 1e-8 < low / high < 1.0


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_pictures_are_files(folder, tmp_path, suffix):
    path = save(loss_balance(find_run(folder)), tmp_path / f"balance.{suffix}")
    assert path.read_bytes().startswith({"png": b"\x89PNG", "pdf": b"%PDF"}[suffix])
