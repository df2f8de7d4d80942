"""``mace-scf-jax train``: train a model, or a committee of them, from a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from mace_scf_jax.options.error import ConfigurationError
from mace_scf_jax_cli import work
from mace_scf_jax_cli.train_arguments import TRAIN, parse_command

WHEN_INTERRUPTED = "interrupted; the same command continues from the last checkpoint"


def run(words: Sequence[str]) -> int:
    """Train as the words after ``mace-scf-jax train`` say; returns the exit status."""
    options, own = parse_command(words, TRAIN)
    if own.committee is None and own.committee_parallel != 1:
        raise ConfigurationError("option 'committee_parallel': needs --committee N, found none")
    work.begin()
    if own.committee is None:
        from mace_scf_jax.training.run import train

        train(options)
    else:
        from mace_scf_jax.training.committee import train_committee

        train_committee(options, size=own.committee, parallel=own.committee_parallel)
    return 0
