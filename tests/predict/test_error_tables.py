import pytest

from mace_scf_jax.predict.error_tables import (
    DEFAULT_ERROR_TABLE,
    ERROR_TABLES,
    epoch_line,
    final_table,
    labels_without_metric,
)

METRICS = {
    "rmse_e_per_atom": 0.01842,
    "rmse_f": 0.10753,
    "mae_f": 0.0811,
    "rel_rmse_f": 12.345,
    "rmse_dma": 0.0474,
    "rmse_mu_per_atom": 0.0891,
}
FINAL_TABLES_OF_THE_REFERENCE = {
    "PerAtomRMSE",
    "DensityCoefficientsRMSE",
    "DensityEnergyRMSE",
    "DipoleRMSE",
    "DensityDipoleRMSE",
    "EnergyDensityDipoleRMSE",
    "EnergyDipolePotentialsRMSE",
}
EPOCH_LINES_OF_THE_REFERENCE = {
    "TotalRMSE",
    "PerAtomMAE",
    "TotalMAE",
    "EnergyDipoleRMSE",
    "PerAtomRMSEstressvirials",
}


def test_every_name_of_the_reference_is_known():
    named = FINAL_TABLES_OF_THE_REFERENCE | EPOCH_LINES_OF_THE_REFERENCE
    assert set(ERROR_TABLES) == named | {DEFAULT_ERROR_TABLE}


def test_the_default_shows_what_there_is():
    sets = {"train": METRICS, "bulk": {"rmse_e_per_atom": 0.01, "rmse_total_charge": 0.9}}
    heading, units, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in final_table("auto", sets).splitlines()
        if line.startswith("|")
    ]
    errors = ["RMSE E", "RMSE F", "MAE F", "RMSE DMA", "RMSE dipole", "RMSE total charge"]
    assert heading == ["", *errors]
    assert units[-1] == "me"
    assert rows[-1] == ["bulk", "10.00", *4 * ["not found"], "900.00"]
    assert epoch_line("auto", 1, 0.5, {"rmse_stress": 0.002}).endswith("RMSE_stress=2.0 meV / A^3")
    assert labels_without_metric("auto", {}) == ()


def test_epoch_line():
    assert epoch_line("PerAtomRMSE", 3, 1.23456, METRICS) == (
        "Epoch 3: loss=1.2346, RMSE_E_per_atom=18.4 meV / atom, RMSE_F=107.5 meV / A"
    )


def test_epoch_line_leaves_out_what_there_is_not():
    line = epoch_line("EnergyDensityDipoleRMSE", 0, 1.0, METRICS)
    assert line.endswith("RMSE_MU_per_atom=89.10 me A / atom")
    missing = labels_without_metric("EnergyDensityDipoleRMSE", METRICS)
    assert missing == ("RMSE_polarizability_per_atom",)


def test_final_table():
    sets = {name: METRICS for name in ("zinc_Default", "bulk_Default", "valid", "train")}
    sets["bulk_Default"] = {"rmse_f": 0.2}
    lines = final_table("PerAtomRMSE", sets).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = [row for row in cells if len(row) == 4]
    assert rows == [
        ["", "RMSE E", "RMSE F", "relative F RMSE"],
        ["set", "meV / atom", "meV / A", "%"],
        ["train", "18.42", "107.53", "12.35"],
        ["valid", "18.42", "107.53", "12.35"],
        ["bulk_Default", "not found", "200.00", "not found"],
        ["zinc_Default", "18.42", "107.53", "12.35"],
    ]


def test_errors_by_config_type_are_called_so():
    assert "config_type" in final_table("PerAtomRMSE", {"all": METRICS, "bulk": METRICS})


@pytest.mark.parametrize("name", sorted(set(ERROR_TABLES) - {DEFAULT_ERROR_TABLE}))
def test_every_table_can_be_printed(name):
    lines = final_table(name, {"train": METRICS}).splitlines()
    assert len({len(line) for line in lines}) == 1
    line = epoch_line(name, 1, 0.5, METRICS)
    missing = labels_without_metric(name, METRICS)
    shown = line.count("=") - 1
    assert line.startswith("Epoch 1: loss=0.5000")
    assert shown + len(missing) == len(ERROR_TABLES[name].epoch_line)


def test_charge_beyond_the_total_charge_is_in_every_table_that_has_any():
    surplus = METRICS | {"rmse_total_charge": 0.9}
    for table in ERROR_TABLES:
        assert epoch_line(table, 0, 1.0, surplus).endswith("RMSE_Q=900.0 me")
        assert "RMSE total charge" in final_table(table, {"train": METRICS, "valid": surplus})
        conserved = METRICS | {"rmse_total_charge": 1e-9}
        assert "RMSE_Q" not in epoch_line(table, 0, 1.0, conserved)
        assert "total charge" not in final_table(table, {"valid": conserved})
