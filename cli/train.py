"""``mace-scf-jax train``: train a model from a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from mace_scf_jax_cli.train_arguments import parse_options

WHEN_INTERRUPTED = "interrupted; the same command continues from the last checkpoint"


def run(words: Sequence[str]) -> int:
    """Train as the words after ``mace-scf-jax train`` say; returns the exit status."""
    options = parse_options(words)
    from mace_scf_jax import runtime
    from mace_scf_jax.training.run import train  # slow to import, not needed to refuse options

    runtime.keep_freed_memory()
    train(options)
    return 0
