"""Option names of the PyTorch reference that are not options here, and what to say about each."""

from __future__ import annotations

from collections.abc import Iterable

from mace_scf_jax.hints import unknown_name


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NO_EFFECT_FLAGS = _words("""
    compute_atomic_dipole disallow_random_padding_pt dont_include_pbc_corrections dry_run
    foundation_model_readout lbfgs multi_processed_test polarizable_charges
    return_electrostatic_potentials save_cpu stage_two swa
""")
"""Switches that the reference accepts and ignores, or that mean nothing here (potentials are always
returned)."""

NO_EFFECT = NO_EFFECT_FLAGS | _words("""
    apply_cutoff atomic_numbers dipole_weight downloads_dir edge_irreps
    embedding_specs enable_cueq enable_oeq energy_weight field_norm_factor filter_type_pt
    force_mh_ft_lr forces_weight foundation_filter_elements foundation_head foundation_model
    foundation_model_elements huber_delta keep_isolated_atoms launcher les_arguments loss
    max_num_epochs mean multiheads_finetuning num_samples_pt num_workers only_cueq pin_memory plot
    plot_frequency plot_interaction_e polarizability_weight pseudolabel_replay pt_train_file
    pt_valid_file
    real_pt_data_ratio_threshold skip_evaluate_heads stage_two_dipole_weight
    stage_two_energy_weight stage_two_forces_weight stage_two_lr stage_two_polarizability_weight
    stage_two_stress_weight stage_two_virials_weight start_stage_two start_swa std stress_weight
    subselect_pt swa_dipole_weight swa_energy_weight swa_forces_weight swa_lr
    swa_polarizability_weight swa_stress_weight swa_virials_weight use_agnostic_product
    use_embedding_readout use_last_readout_only use_reduced_cg use_so3 virials_weight weight_pt_head
""")
"""Names that are accepted with a warning: the reference parses and ignores them, or they steer
machinery (data loader processes, launchers, downloads) that does not exist here."""

NOT_AVAILABLE: dict[str, str] = {
    "statistics_file": "training from a statistics file",
    "test_dir": "testing on a folder of files",
}
"""Options of the method that this version refuses, with what they belong to."""

OTHER_NAMES = {"split_seed": "valid_set_seed"}
"""Plain names of options whose name in the reference says less."""

PROPERTY_KEY = "_key"


def canonical_name(spelled: str) -> str:
    """The name of an option that may be spelled with ``-`` or have a second name.

    Args:
        spelled: as the user wrote it.
    """
    name = spelled.replace("-", "_")
    return OTHER_NAMES.get(name, name)


def problem_with_name(name: str, known: Iterable[str]) -> str:
    """Sentence on a name that is neither an option nor one without effect.

    Args:
        name: option name with underscores, not among ``known``.
        known: the names of all options.
    """
    if name in NOT_AVAILABLE:
        return f"option {name!r} ({NOT_AVAILABLE[name]}) is not available in this version"
    if name.endswith(PROPERTY_KEY):
        return (
            f"unknown option {name!r}: the names of properties in the data files are given in "
            "'heads' (info_keys and arrays_keys)"
        )
    return unknown_name("option", name, known)
