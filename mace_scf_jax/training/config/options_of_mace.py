"""Options of MACE and MACE_SCF that are none here: what does the same, or why they are harmless.

No option is swallowed: what would change the model or its training is refused with the way here,
and what changes neither passes with a word in the log.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class OptionOfMACE:
    """An option that has no counterpart of the same name."""

    says: str
    """What to do instead; of harmless ones, why nothing changes."""
    harmless: bool = False
    """Whether every value may be given."""
    passes: tuple[str, ...] = ()
    """Values, in small letters, that ask for what is done anyway."""
    is_switch: bool = False
    """Whether it may stand on a command line without value."""

    def lets_pass(self, value: Any) -> bool:
        """Whether a value changes nothing; None means that the option is not used."""
        text = str(value).strip().lower()
        return self.harmless or text == "none" or text in self.passes


def _harmless(says: str, **settings: Any) -> OptionOfMACE:
    return OptionOfMACE(says, harmless=True, **settings)


def _switched_on(says: str, **settings: Any) -> OptionOfMACE:
    """An option that is refused unless it is switched off."""
    return OptionOfMACE(says, passes=("false", "0", "no"), **settings)


def _switched_off(says: str) -> OptionOfMACE:
    """An option that is refused unless it is switched on."""
    return OptionOfMACE(says, passes=("true", "1", "yes"))


_SCRATCH = OptionOfMACE("fine-tuning is `start_from`, with the file of one model and one head")
_LORA = OptionOfMACE("low-rank updates are `lora: {rank: 4, alpha: 1.0}`, beside `start_from`")
_REPLAY = OptionOfMACE(
    "data of the start model are `replay: {file, keys, samples, weight, labels}`, beside "
    "`start_from`"
)


def _of_replay(member: str, passes: tuple[str, ...] = ()) -> OptionOfMACE:
    return OptionOfMACE(f"this is `replay: {{{member}}}`, beside `start_from`", passes=passes)


_VARIANT = _switched_on("this variant of the network is not available; leave it out")
_STAGES = OptionOfMACE("the loss of each stage is given in 'train_schedule'")
_SECOND_STAGE = dataclasses.replace(_STAGES, passes=("false",), is_switch=True)
_MEASURED = OptionOfMACE(
    "scale and shift are measured on the training set: `scaling: std_scaling` or "
    "`rms_forces_scaling`"
)
_SPEED = _harmless("it concerns the speed of PyTorch alone")

OPTIONS_OF_MACE: dict[str, OptionOfMACE] = {
    # fine-tuning
    "foundation_model_kwargs": dataclasses.replace(_SCRATCH, passes=("{}",)),
    "foundation_model_elements": OptionOfMACE("this is `start_elements: all`", passes=("false",)),
    "foundation_model_readout": dataclasses.replace(_SCRATCH, passes=("true",), is_switch=True),
    "foundation_filter_elements": dataclasses.replace(_SCRATCH, passes=("true",)),
    "multiheads_finetuning": _switched_on(_REPLAY.says),
    "force_mh_ft_lr": _harmless("the learning rate that is given always wins"),
    "freeze": OptionOfMACE(
        "`freeze: [group, …]` of a stage; 1 to 4 are [embedding], 5 is [embedding, "
        "interactions_decay, interactions_no_decay], 6 adds products, 7 readouts",
        passes=("0",),
    ),
    "lora_rank": _LORA,
    "lora_alpha": _LORA,
    "pt_train_file": _of_replay("file: FILE, labels: file"),
    "pt_valid_file": OptionOfMACE("`valid_fraction` of the file of `replay` is validated on"),
    "num_samples_pt": _of_replay("samples: NUMBER"),
    "subselect_pt": OptionOfMACE(
        "the structures of `replay: {samples: NUMBER}` are drawn at random", passes=("random",)
    ),
    "filter_type_pt": OptionOfMACE(
        "the file of `replay` is used as it is: choose its structures", passes=("none",)
    ),
    "disallow_random_padding_pt": dataclasses.replace(_REPLAY, is_switch=True, passes=("false",)),
    "weight_pt_head": _of_replay("weight: NUMBER"),
    "real_pt_data_ratio_threshold": _of_replay("weight: NUMBER"),
    "pseudolabel_replay": _of_replay("labels: start", passes=("false",)),
    "pseudolabel_replay_compute_stress": OptionOfMACE(
        "with `compute_stress: true`, `replay: {labels: start}` has stresses too",
        passes=("false",),
    ),
    "skip_evaluate_heads": OptionOfMACE("all heads are always evaluated", passes=("pt_head",)),
    # data
    "atomic_numbers": OptionOfMACE(
        "the elements of a model are those of its training and validation structures"
    ),
    "keep_isolated_atoms": _switched_on(
        "isolated atoms give atomic energies and are not trained on; to train on them, give them "
        "another config_type, and the energies as `E0s`"
    ),
    "statistics_file": OptionOfMACE("statistics are measured on the training set"),
    "test_dir": OptionOfMACE("test structures are given in one file: `test_file`"),
    "multi_processed_test": _switched_on("test structures are given in one file: `test_file`"),
    "mean": _MEASURED,
    "std": _MEASURED,
    "head_key": OptionOfMACE(
        "the key is `head`; another one is mapped in `heads`: info_keys: {head: key}"
    ),
    "elec_temp_key": OptionOfMACE(
        "no model here reads electronic temperatures; map `elec_temp` in 'heads' to keep them"
    ),
    # network and charges
    "use_reduced_cg": _harmless("another basis of the same polynomials, chosen here by itself"),
    "use_so3": _VARIANT,
    "les_arguments": OptionOfMACE(
        "latent charges are those of `model: LocalSplitCharges` (or LocalCharges), trained on "
        "energies and forces alone: docs/how_to/energies_and_forces.md"
    ),
    "field_si": _switched_on("this is `include_field_si`"),
    "add_local_electron_energy": OptionOfMACE("this is `include_local_electron_energy`"),
    "field_norm_factor": OptionOfMACE("this is `field_feature_norms`", passes=("1", "1.0")),
    "return_electrostatic_potentials": _harmless("potentials are always predicted"),
    "compute_atomic_dipole": _switched_on(
        "dipoles of atoms are predicted by families with `atomic_multipoles_max_l: 1`"
    ),
    "dont_include_pbc_corrections": _switched_on(
        "corrections follow from the boundary condition: `electrostatic_pbc_method`"
    ),
    "polarizable_charges": _switched_on(
        "charges that answer a field are those of `model: FixedPoint`, `PolarMACE` or `MACEQEq`"
    ),
    # loss and optimisation
    **{
        name: _STAGES
        for name in (
            "loss",
            "huber_delta",
            *(
                f"{stage}{label}_weight"
                for stage in ("", "swa_", "stage_two_")
                for label in (
                    "energy",
                    "forces",
                    "virials",
                    "stress",
                    "dipole",
                    "polarizability",
                )
            ),
            *("start_swa", "start_stage_two", "swa_lr", "stage_two_lr"),
        )
    },
    "swa": _SECOND_STAGE,
    "stage_two": _SECOND_STAGE,
    "lbfgs": _switched_on("this is `optimizer: lbfgs`, for the whole run", is_switch=True),
    "lr_params_factors": OptionOfMACE(
        "learning rates of parameter groups are `<parameter group>_lr` of a stage"
    ),
    "beta1_schedulefree": OptionOfMACE("this is `beta`, of every optimizer"),
    "beta2_schedulefree": OptionOfMACE("this is `beta_two`, of every optimizer"),
    # machine and files
    "enable_cueq": _SPEED,
    "only_cueq": _SPEED,
    "enable_oeq": _SPEED,
    "num_workers": _SPEED,
    "pin_memory": _SPEED,
    "save_cpu": _harmless("model files belong to no device", is_switch=True),
    "downloads_dir": _harmless("nothing is downloaded"),
    "launcher": OptionOfMACE(
        "processes are found by themselves: docs/how_to/devices.md",
        passes=("none", "slurm", "mpi"),
    ),
    "plot": _harmless("pictures are drawn by `mace-scf-jax plot`"),
    "plot_frequency": _harmless("pictures are drawn by `mace-scf-jax plot`"),
    "plot_interaction_e": _harmless("pictures are drawn by `mace-scf-jax plot`"),
}
"""What is to be said about each option, by its name."""

SWITCHES = frozenset(name for name, option in OPTIONS_OF_MACE.items() if option.is_switch)
"""Those that may stand on a command line without value."""


def judge(values: Mapping[str, Any], *, has_schedule: bool) -> tuple[list[str], list[str]]:
    """Sort options of MACE into refused and harmless ones.

    Args:
        values: by name; names that are not in the table are passed over.
        has_schedule: whether ``train_schedule`` is given too.

    Returns:
        A sentence on each problem, and a sentence on each option that changes nothing.
    """
    problems: list[str] = []
    remarks: list[str] = []
    of_stages: list[str] = []
    for name, value in values.items():
        option = OPTIONS_OF_MACE.get(name)
        if option is None:
            continue
        if option.lets_pass(value):
            why = option.says if option.harmless else f"{value} is what is done here"
            remarks.append(f"Option '{name}' of MACE changes nothing: {why}")
        elif option in (_STAGES, _SECOND_STAGE):
            of_stages.append(name)
        else:
            problems.append(f"option '{name}' of MACE: {option.says}")
    if of_stages:
        problems.append(
            f"options of MACE {', '.join(map(repr, of_stages))}: {_STAGES.says}; "
            + (
                "change it there, or on the command line: --train_schedule.<stage>.loss.forces 10"
                if has_schedule
                else f"theirs is {equivalent_schedule(values)}"
            )
        )
    return problems, remarks


_NEEDED = "option {!r} is required"
_LATENT = "charges, latent ones too, are those of `model: LocalCharges` or LocalSplitCharges"
_DIPOLES = "dipoles are those of `model: LocalCharges` with `atomic_multipoles_max_l: 1`"
_MODELS = {
    "AtomicDipolesMACE": _DIPOLES,
    "EnergyDipolesMACE": _DIPOLES,
    "AtomicDielectricMACE": "polarizabilities are those of LocalSplitCharges and FixedPoint",
    "MACELES": _LATENT,
    "PolarMACE": "charges that answer their own field are those of `model: FixedPoint`",
}
"""Models of MACE that are none here, and which do the same."""


def with_ways(problems: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """Add to problems that users of MACE meet first what to write.

    Args:
        problems: sentences.
        values: options that were given, by name.
    """
    keys, schedule = _NEEDED.format("heads"), _NEEDED.format("train_schedule")
    ways = {
        keys: "the keys of the data files, such as --energy_key REF_energy --forces_key REF_forces "
        "(all of them: `mace-scf-jax config --defaults`)",
        schedule: "epochs, learning rate and loss of each stage (on the command line "
        "--train_schedule '{…}'); what mace_run_train would do is " + equivalent_schedule(values),
    }
    told = [problem for problem in problems if "'train_schedule'; theirs is" in problem]
    model = _MODELS.get(str(values.get("model")), "")
    ways |= {problem: model for problem in problems if model and "option 'model'" in problem}
    return [
        f"{problem}: {ways[problem]}" if problem in ways else problem
        for problem in problems
        if not (told and problem == schedule)
    ]


_TERMS = {
    "weighted": ("energy", "forces"),
    "ef": ("energy", "forces"),
    "forces_only": ("forces",),
    "virials": ("energy", "forces", "virials"),
    "stress": ("energy", "forces", "stress"),
    "dipole": ("dipole",),
    "dipole_polar": ("dipole", "polarizability"),
    "energy_forces_dipole": ("energy", "forces", "dipole"),
}
"""Labels in each loss of MACE that has a counterpart; others are shown as the nearest one."""
_NEAREST = {"huber": "stress", "universal": "stress", "l1l2energyforces": "weighted"}
_LOSS_TERMS = {"energy": "energy_per_atom", "dipole": "dipole_per_atom"}
_WEIGHTS = {"energy": 1.0, "forces": 100.0}
_WEIGHTS_STAGE_TWO = {"energy": 1000.0, "forces": 100.0, "virials": 10.0, "stress": 10.0}
_EPOCHS, _LR, _LR_STAGE_TWO = 2048, 0.01, 0.001
"""Defaults of mace_run_train 0.3.16."""


def equivalent_schedule(values: Mapping[str, Any]) -> str:
    """The schedule that options of mace_run_train describe, on one line of YAML.

    Losses of absolute errors (huber, universal, l1l2energyforces) are shown as the nearest one of
    squared errors, and the text says so.

    Args:
        values: by name.
    """
    given = {name.replace("stage_two", "swa"): value for name, value in values.items()}
    loss = str(given.get("loss", "weighted"))
    labels = _TERMS.get(_NEAREST.get(loss, loss), _TERMS["weighted"])
    epochs = int(_number(given.get("max_num_epochs"), _EPOCHS))
    has_second = "swa" in given and not _SECOND_STAGE.lets_pass(given["swa"])
    later = int(_number(given.get("start_swa"), max(1, epochs // 4 * 3)))
    start = later if has_second else epochs

    def stage(name: str, first: int, last: int, lr: float, prefix: str, defaults: Mapping) -> dict:
        weights = {
            _LOSS_TERMS.get(label, label): _number(
                given.get(f"{prefix}{label}_weight"), defaults.get(label, 1.0)
            )
            for label in labels
        }
        return {"name": name, "start": first, "end": last, "lr": lr, "loss": weights}

    stages = {0: stage("one", 0, start - 1, _number(given.get("lr"), _LR), "", _WEIGHTS)}
    if has_second:
        lr = _number(given.get("swa_lr"), _LR_STAGE_TWO)
        stages[1] = stage("two", start, epochs - 1, lr, "swa_", _WEIGHTS_STAGE_TWO)
    text = f"train_schedule: {json.dumps(stages)}".replace('"', "")
    if loss in _NEAREST:
        text += f" (of squared errors; there is no loss like {loss!r} here)"
    return text


def _number(value: Any, default: float) -> float:
    """A number as it was written; the default for what is none, which is told elsewhere."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return default
