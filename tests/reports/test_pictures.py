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
from mace_scf_jax.reports.style import save
from mace_scf_jax.reports.training_run import RunError, find_run


def lines_of(axes) -> dict:
    return {line.get_label(): line for line in axes.get_lines()}


def test_learning_curves_show_losses_errors_and_rates(folder):
    figure = learning_curves(find_run(folder))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["Loss", "Energy", "Forces", "Learning rate"]
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
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as panels that leave no room
        save(figure, tmp_path / "single.png")


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
