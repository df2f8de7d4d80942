"""Reading a configuration: a YAML file, with errors that name file and line, and names of options.

Some option names of the PyTorch reference are not options here; for each it is known what to say.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import yaml

from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.registry import unknown_name


class _StrictLoader(yaml.SafeLoader):
    """YAML loader that refuses a key given twice instead of dropping the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue
            line = key_node.start_mark.line + 1
            if key in lines:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} is given twice (first in line {lines[key]})",
                    problem_mark=key_node.start_mark,
                )
            lines[key] = line
        return super().construct_mapping(node, deep=deep)


def read_config_file(path: str | Path) -> dict[str, Any]:
    """The options in a YAML file.

    Args:
        path: file with a mapping of options.

    Returns:
        Values by option name, as YAML reads them.

    Raises:
        ConfigurationError: the file does not exist, cannot be read as YAML, gives a key twice, or
            does not hold a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise ConfigurationError(f"cannot read the configuration '{path}': {reason}") from None
    try:
        content = yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        problem = ", ".join(part for part in (error.context, error.problem) if part)
        raise ConfigurationError(f"{path}{line}: {problem}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigurationError(f"{path}: expected a mapping of options, found {found}")
    return {str(name): value for name, value in content.items()}


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
