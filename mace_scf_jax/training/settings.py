"""What the options of a run mean for its data, its optimiser and its preprocessing."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool

from mace_scf_jax.backbones import BACKBONES
from mace_scf_jax.data.datasets import DataSettings
from mace_scf_jax.data.preprocessing import PreprocessSettings
from mace_scf_jax.electrostatics import ElectrostaticsSettings
from mace_scf_jax.models.electrostatics import electrostatics_settings, multipoles_max_l
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.options.values import energies_of_isolated_atoms
from mace_scf_jax.parameter_group import WEIGHT_DECAY
from mace_scf_jax.training.config.options import TrainOptions
from mace_scf_jax.training.config.preprocessing import PreprocessOptions
from mace_scf_jax.training.dispersion import labels_without_dispersion
from mace_scf_jax.training.loop.options import WatchOptions
from mace_scf_jax.training.optimise.optimiser import OptimiserSettings
from mace_scf_jax.training.optimise.options import OptimiserOptions, SchedulerOptions
from mace_scf_jax.training.start.replay import replay_of
from mace_scf_jax.training.start.start_model import ESTIMATED, START, StartModel


def optimiser_settings(options: TrainOptions) -> OptimiserSettings:
    """Complete the options of the optimiser by the decays of a family's parameter groups."""
    decays = {
        group.name: getattr(options, group.decay)
        for group in options.family.groups.values()
        if group.decay not in (None, WEIGHT_DECAY)
    }
    given = OptimiserOptions.of(options).model_dump()
    return OptimiserSettings(**given, group_weight_decays=decays)


def scheduler_options(options: TrainOptions) -> SchedulerOptions | None:
    """Select the options of the learning-rate scheduler; schedulefree and lbfgs use none."""
    without = options.optimizer == "schedulefree" or not options.has_learning_rates
    return None if without else SchedulerOptions.of(options)


def watch_options(options: TrainOptions) -> WatchOptions:
    """Select what to look at more closely; histograms go to Weights & Biases alone."""
    watched = WatchOptions.of(options)
    return watched if options.wandb else watched.model_copy(update={"wandb_watch": "off"})


def data_settings(options: TrainOptions) -> DataSettings:
    """Tell which files the options name, and how to read them."""
    given = options.values_for(DataSettings) | {"valid_set_seed": options.split_seed}
    del given["replay"]  # the option, of which a setting is made
    if not options.family.is_charged:
        given["electrostatic_pbc_method"] = None
    keys, start = options.keys, StartModel.of(options)
    if keys.heads and options.dispersion is not None:
        raise ConfigurationError(
            "option 'dispersion': the levels of theory of several heads may need different ones; "
            "train on one head"
        )
    if start is not None:
        if options.E0s in (None, START, ESTIMATED):
            given["E0s"] = start.atomic_energies
        of_heads = [
            dataclasses.replace(head, E0s=start.atomic_energies)
            if word in (START, ESTIMATED)
            else head
            for head, word in zip(keys.heads, words_for_energies(options), strict=False)
        ]
        keys = dataclasses.replace(keys, heads=tuple(of_heads))
    max_l = multipoles_max_l(options.family, options)
    replay = None if start is None else replay_of(options, start)
    return DataSettings(
        **given,
        keys=keys,
        multipoles_max_l=max_l,
        replay=replay,
        less=labels_without_dispersion(options),
        tells_energies=start is None,
    )


def words_for_energies(options: TrainOptions) -> tuple[Any, ...]:
    """Return the energies of isolated atoms of each head as the options give them; or of all."""
    return tuple(
        options.E0s if head.E0s is None else energies_of_isolated_atoms(head.E0s)
        for head in options.keys.heads
    ) or (options.E0s,)


def electrostatics_of(
    options: TrainOptions, start: StartModel | None, *, pbc: Bool[np.ndarray, "structures 3"]
) -> ElectrostaticsSettings | None:
    """Return the electrostatics of the new model; None for families without charges.

    Args:
        options: of the run.
        start: decides them, if it is of the same family.
        pbc: periodicity along x, y, z of all structures, for the boundary condition ``auto``.
    """
    asked = electrostatics_settings(options.family, options, pbc=pbc)
    return asked if start is None else start.electrostatics(options.model, asked)


def preprocess_settings(
    options: PreprocessOptions, *, workers: int, shard_megabytes: float, derivatives: bool = False
) -> PreprocessSettings:
    """What to compute for runs with the given options.

    Reciprocal vectors are stored if the model family has charges; with the boundary condition
    ``auto`` they are those of periodic structures, which a run on molecules alone does not read.

    Args:
        options: of the runs.
        workers: number of processes.
        shard_megabytes: size of the text that one file is made from.
        derivatives: whether to store derivatives of features, too.

    Raises:
        ConfigurationError: a dry run is asked for, which only training has; or derivatives of
            features that the backbone does not have or is not to store.
        DataError: for numbers that are not positive.
    """
    if options.dry_run:
        raise ConfigurationError(
            "option 'dry_run': is of training; preprocessing writes what it reads"
        )
    if options.keys.heads:
        raise ConfigurationError(
            f"option 'heads': preprocessed data have one head, found {len(options.keys.heads)}; "
            "train on the files of structures"
        )
    if options.dispersion is not None:
        raise ConfigurationError(
            "option 'dispersion': is taken off labels when a run reads files of structures; leave "
            "it out here, and train on these files"
        )
    features_of = BACKBONES[options.backbone].settings.features_of(options)
    if derivatives and features_of is None:
        raise ConfigurationError(
            "--derivatives: expected a model on descriptors (ChebyshevANN, or backbone: chebyshev) "
            f"with cache_features auto or true, found the model {options.model} with the backbone "
            f"{options.backbone}"
        )
    start, periodic = StartModel.of(options), np.ones((1, 3), bool)
    electrostatics = electrostatics_of(options, start, pbc=periodic)
    return PreprocessSettings(
        data=data_settings(options),
        cutoff=options.cutoff,
        kspace_cutoff=None if electrostatics is None else electrostatics.indices_cutoff,
        tails=None if electrostatics is None else electrostatics.tails,
        features_of=features_of,
        derivatives=derivatives,
        workers=workers,
        shard_megabytes=shard_megabytes,
    )
