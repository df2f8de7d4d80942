"""``mace-scf-jax preprocess``: prepare structures once, for data sets larger than memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mace_scf_jax.late import import_all
from mace_scf_jax.models.options import ElectrostaticsOptions
from mace_scf_jax.training.config.data_and_model import DataOptions
from mace_scf_jax.training.config.preprocessing import PreprocessOptions
from mace_scf_jax_cli import work
from mace_scf_jax_cli.train_arguments import Command, OwnArgument, parse_command, truth_value

if TYPE_CHECKING:
    from mace_scf_jax.data.preprocessing import preprocess
    from mace_scf_jax.training.records.reporting import ConsoleHandler, logging_to
    from mace_scf_jax.training.settings import preprocess_settings

logger = logging.getLogger("mace_scf_jax")

WHEN_INTERRUPTED = "interrupted; no output was written"
DESCRIPTION = """\
Read the training, validation and test files of a run (extended XYZ or XSF), find neighbours and
reciprocal vectors, and write everything that training needs to HDF5 files in DIR/train, DIR/valid
and DIR/test. A run then names DIR in place of each file, and needs little memory. Of models on
descriptors (ChebyshevANN, or backbone: chebyshev) the features of every atom are written, too, so
that runs with the same descriptor need not compute them; cache_features: false leaves them out.

Options are those of `mace-scf-jax train`, in a YAML file or on the command line. What matters is
heads, the files, model, r_max and the options listed here."""
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
ARGUMENTS = (
    OwnArgument(
        "output",
        ("-o", "--output"),
        {"metavar": "DIR", "type": Path, "required": True, "help": "new folder (required)"},
    ),
    OwnArgument(
        "derivatives",
        ("--derivatives",),
        {
            "metavar": "[true|false]",
            "type": truth_value,
            "default": False,
            "help": "store the derivatives of descriptors, too, for runs with forces: 24 F bytes "
            "for each pair of atoms that see each other, F features (default: false)",
        },
    ),
    OwnArgument(
        "workers",
        ("--workers",),
        {
            "metavar": "N",
            "type": int,
            "default": CORES,
            "help": "processes (default: the cores of this machine)",
        },
    ),
    OwnArgument(
        "shard_size",
        ("--shard_size",),
        {
            "metavar": "MB",
            "type": float,
            "default": 32.0,
            "help": "megabytes of text that one file is made from; each process needs about "
            "ten times as much memory (default: 32)",
        },
    ),
)
COMMAND = Command(
    "preprocess",
    DESCRIPTION,
    options=PreprocessOptions,
    topics=lambda: (DataOptions, ElectrostaticsOptions),
    own_arguments=ARGUMENTS,
)


def run(words: Sequence[str]) -> int:
    """Preprocess as the words after ``mace-scf-jax preprocess`` say; returns the exit status."""
    options, own = parse_command(words, COMMAND)
    import_all(__name__, __file__)
    settings = preprocess_settings(
        options,
        workers=own.workers,
        shard_megabytes=own.shard_size,
        derivatives=own.derivatives,
    )
    signs = work.begin()
    with (
        logging_to({ConsoleHandler(signs.console): options.log_level}),
        signs.bar("structures") as bar,
    ):
        for sentence in options.remarks:
            logger.info(sentence)
        folder = preprocess(settings, own.output, notify=bar.update)
    print(f"Wrote {folder}: train with " + _names(settings.data.files(), folder))
    return 0


def _names(files: dict[str, str], folder: Path) -> str:
    """The options that name what was written."""
    return " ".join(f"--{split}_file {folder}" for split in files)
