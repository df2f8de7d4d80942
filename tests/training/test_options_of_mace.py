"""Options of mace_run_train and MACE_SCF: options here, refused with the way, or harmless."""

import pytest
from train_options import VALID, options, problems

from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.config.options_of_mace import OPTIONS_OF_MACE, equivalent_schedule
from mace_scf_jax.training.config.reading import canonical_name
from mace_scf_jax.training.loop.schedule import read_schedule

MACE_RUN_TRAIN = """
    name seed work_dir log_dir model_dir checkpoints_dir results_dir downloads_dir device
    default_dtype distributed launcher log_level plot plot_frequency plot_interaction_e
    error_table model r_max radial_type num_radial_basis num_cutoff_basis pair_repulsion
    distance_transform apply_cutoff use_last_readout_only use_embedding_readout interaction
    interaction_first max_ell correlation use_reduced_cg use_so3 use_agnostic_product
    num_interactions MLP_irreps radial_MLP hidden_irreps edge_irreps use_edge_irreps_first
    num_channels max_L gate kspace_cutoff_factor atomic_multipoles_max_l
    atomic_multipoles_smearing_width field_feature_max_l field_feature_widths field_feature_norms
    num_recursion_steps field_si include_electrostatic_self_interaction add_local_electron_energy
    quadrupole_feature_corrections return_electrostatic_potentials field_norm_factor
    fixedpoint_update_config field_readout_config scaling avg_num_neighbors
    compute_avg_num_neighbors compute_stress compute_forces compute_polarizability
    compute_atomic_dipole train_file valid_file valid_fraction test_file test_dir
    multi_processed_test num_workers pin_memory atomic_numbers mean std statistics_file
    les_arguments E0s pseudolabel_replay pseudolabel_replay_compute_stress
    foundation_filter_elements heads multiheads_finetuning foundation_head weight_pt_head
    real_pt_data_ratio_threshold num_samples_pt force_mh_ft_lr subselect_pt filter_type_pt
    disallow_random_padding_pt pt_train_file pt_valid_file foundation_model_elements
    keep_isolated_atoms lora lora_rank lora_alpha energy_key forces_key virials_key stress_key
    dipole_key polarizability_key head_key charges_key elec_temp_key total_spin_key
    total_charge_key embedding_specs skip_evaluate_heads loss forces_weight swa_forces_weight
    stage_two_forces_weight energy_weight swa_energy_weight stage_two_energy_weight virials_weight
    swa_virials_weight stage_two_virials_weight stress_weight swa_stress_weight
    stage_two_stress_weight dipole_weight swa_dipole_weight stage_two_dipole_weight
    swa_polarizability_weight stage_two_polarizability_weight polarizability_weight
    config_type_weights huber_delta optimizer beta beta1_schedulefree beta2_schedulefree
    batch_size valid_batch_size lr swa_lr stage_two_lr weight_decay lr_params_factors freeze
    amsgrad scheduler lr_factor scheduler_patience lr_scheduler_gamma swa stage_two start_swa
    start_stage_two lbfgs ema ema_decay max_num_epochs patience foundation_model
    foundation_model_kwargs foundation_model_readout eval_interval keep_checkpoints
    save_all_checkpoints restart_latest save_cpu clip_grad dry_run enable_cueq only_cueq
    enable_oeq wandb wandb_dir wandb_project wandb_entity wandb_name wandb_log_hypers
"""
"""Options of mace_run_train of mace-torch 0.3.16."""
MACE_SCF = """
    allow_low_density_pbc atom_density_scaling atomic_formal_charges beta_two
    debug_log_grad_summary default_hardness electrostatic_pbc_method fermi_level_offset
    field_block_weight_decay fixedpoint_initial_charge_head_scale formal_charges_from_data
    include_field_si include_local_electron_energy local_charges_weight_decay log_all_ranks
    log_on_test_sets low_density_pbc_max_volume_per_atom override_pbc_checks oxidation_state_mixer
    oxidation_state_range qeq_charges read_enegs read_hardness scf_convergence_summary
    skip_scf_convergence_summary static_bond_transfer_block train_hardness
    use_linear_final_readout use_linear_local_charges valid_set_seed wandb_watch
    wandb_watch_log_freq
    dont_include_pbc_corrections polarizable_charges
"""
"""Further options of the script run_train of MACE_SCF."""
ALL = sorted({canonical_name(name) for name in (MACE_RUN_TRAIN + MACE_SCF).split()})
HARMLESS = {
    "downloads_dir",
    "enable_cueq",
    "enable_oeq",
    "force_mh_ft_lr",
    "num_workers",
    "only_cueq",
    "pin_memory",
    "plot",
    "plot_frequency",
    "plot_interaction_e",
    "return_electrostatic_potentials",
    "save_cpu",
    "use_reduced_cg",
}
"""What changes neither the model nor its training, whatever the value."""


@pytest.mark.parametrize("name", ALL)
def test_no_option_is_swallowed(name):
    """Implemented, or in the table: refused with advice, or harmless with a reason."""
    if name in TrainOptions.model_fields:
        assert name not in OPTIONS_OF_MACE
        return
    if name not in OPTIONS_OF_MACE:
        given = options(**{name: "key_of_the_file", "heads": ...})
        assert "key_of_the_file" in (
            *given.keys.info_keys.values(),
            *given.keys.arrays_keys.values(),
        )
        return
    option = OPTIONS_OF_MACE[name]
    assert option.harmless is (name in HARMLESS)
    if option.harmless:
        (remark,) = options(**{name: "anything"}).remarks
        assert remark == f"Option '{name}' of MACE changes nothing: {option.says}"
    else:
        (problem,) = problems(**{name: "7.5"})
        assert repr(name) in problem
        assert option.says in problem
        for value in (*option.passes, None):
            (remark,) = options(**{name: value}).remarks
            assert f"{value} is what is done here" in remark


def test_the_table_holds_nothing_else():
    assert set(OPTIONS_OF_MACE) <= set(ALL)


def test_a_loss_of_mace_is_refused_with_the_schedule_that_equals_it():
    (problem,) = problems(loss="stress", swa=True, max_num_epochs=100, train_schedule=...)[:1]
    assert (
        "'loss', 'swa': the loss of each stage is given in 'train_schedule'; theirs is" in problem
    )
    (problem,) = problems(forces_weight=10)
    assert "--train_schedule.<stage>.loss.forces 10" in problem


def test_what_is_missing_first_is_told_with_what_to_write():
    keys, schedule = problems(heads=..., train_schedule=..., max_num_epochs=20, lr="0.005")
    assert "such as --energy_key REF_energy --forces_key REF_forces" in keys
    assert "{name: one, start: 0, end: 19, lr: 0.005, " in schedule
    (model,) = problems(model="EnergyDipolesMACE")
    assert model.endswith("`model: LocalCharges` with `atomic_multipoles_max_l: 1`")
    assert len(problems(train_schedule=..., lr="slow")) == 2


@pytest.mark.parametrize(
    ("given", "stages"),
    [
        ({}, [(0, 2047, 0.01, {"energy_per_atom": 1.0, "forces": 100.0})]),
        (
            {"max_num_epochs": 40, "forces_weight": "10", "lr": 0.005},
            [(0, 39, 0.005, {"energy_per_atom": 1.0, "forces": 10.0})],
        ),
        (
            {"loss": "stress", "stage_two": True, "start_swa": 30, "max_num_epochs": 40},
            [
                (0, 29, 0.01, {"energy_per_atom": 1.0, "forces": 100.0, "stress": 1.0}),
                (30, 39, 0.001, {"energy_per_atom": 1000.0, "forces": 100.0, "stress": 10.0}),
            ],
        ),
        (
            {"loss": "virials", "swa": "True", "swa_lr": 2e-4, "max_num_epochs": 8},
            [
                (0, 5, 0.01, {"energy_per_atom": 1.0, "forces": 100.0, "virials": 1.0}),
                (6, 7, 2e-4, {"energy_per_atom": 1000.0, "forces": 100.0, "virials": 10.0}),
            ],
        ),
        ({"loss": "dipole", "dipole_weight": 3}, [(0, 2047, 0.01, {"dipole_per_atom": 3.0})]),
    ],
)
def test_the_schedule_that_options_of_mace_describe(given, stages):
    text = equivalent_schedule(given).removeprefix("train_schedule: ")
    found = read_schedule(
        options(train_schedule=text, compute_stress=True).model_dump()["train_schedule"]
    )
    assert [(it.start, it.end, it.lr, dict(it.loss)) for it in found] == stages


def test_losses_of_absolute_errors_have_no_equal():
    assert "there is no loss like 'huber' here" in equivalent_schedule({"loss": "huber"})


def test_keys_of_mace_make_the_head():
    given = options(heads=..., energy_key="E", forces_key="F", **{"total-charge-key": "Q"})
    assert given.keys.key_of("energy") == "E"
    assert given.keys.key_of("forces") == "F"
    assert given.keys.key_of("total_charge") == "Q"
    (problem,) = problems(heads=..., enrgy_key="E")[:1]
    assert problem == "unknown property 'enrgy'; did you mean 'energy'?"


def test_fine_tuning_is_refused_and_not_replaced_by_training_from_scratch():
    (problem,) = problems(foundation_model="small")
    assert problem.startswith("option 'start_from': ")
    assert VALID["name"] == options(foundation_model=None).name
