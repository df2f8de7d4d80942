"""Control of a training run, and where it puts its files."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mace_scf_jax.options import ConfigurationError, DecidesWeights, OptionGroup
from mace_scf_jax.options.values import (
    FileName,
    FilePath,
    NamesOfModules,
    NoneInText,
    NumberOfDevices,
    WholeNumberFromZero,
    not_yet,
)


class RunOptions(OptionGroup):
    """Run control and files"""

    decide_weights = False

    plugins: NamesOfModules = Field(
        default=(),
        description="modules that add families, losses, solvers and so on; they are imported "
        "before anything else is read",
    )
    name: FileName = Field(description="name of the run; files are named <name>_run-<seed>")
    seed: Annotated[WholeNumberFromZero, DecidesWeights(True)] = Field(
        default=123, description="seed of initial weights and order of batches"
    )
    work_dir: FilePath = Field(
        default="./", validate_default=True, description="folder that receives all output"
    )
    log_dir: Annotated[FilePath | None, NoneInText] = Field(
        default=None, description="folder of the log files (default: <work_dir>/logs)"
    )
    checkpoints_dir: Annotated[FilePath | None, NoneInText] = Field(
        default=None, description="folder of the checkpoints (default: <work_dir>/checkpoints)"
    )
    results_dir: Annotated[FilePath | None, NoneInText] = Field(
        default=None, description="folder of the JSON lines (default: <work_dir>/results)"
    )
    model_dir: Annotated[FilePath | None, NoneInText] = Field(
        default=None, description="folder of the final model files (default: <work_dir>)"
    )
    device: Annotated[Literal["auto", "cpu", "cuda", "gpu", "tpu"], not_yet("mps", "xpu")] = Field(
        default="auto", description="where to compute; auto: the best device that JAX finds"
    )
    devices: NumberOfDevices = Field(
        default=1,
        description="devices that share the work on each batch, of every process; all: every one "
        "that JAX finds",
    )
    distributed: bool = Field(
        default=False,
        description="share the work with the other processes of the run, on one or several hosts",
    )
    default_dtype: Annotated[Literal["float32", "float64"], DecidesWeights(True)] = Field(
        default="float64", description="precision of weights and of everything computed"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO",
        description="least severe messages on the terminal and in the main log; the debug log "
        "holds all",
    )
    log_all_ranks: bool = Field(
        default=False,
        description="with distributed: a log and a debug log of every other process too, named "
        "<name>_run-<seed>_rank<number>",
    )
    dry_run: bool = Field(
        default=False,
        description="check options, data, labels and losses, build the model, and train nothing; "
        "no file is written",
    )
    restart_latest: bool = Field(
        default=True, description="continue from the newest checkpoint of this run, if any"
    )

    @property
    def tag(self) -> str:
        """Name of the run in file names: ``<name>_run-<seed>``."""
        return f"{self.name}_run-{self.seed}"


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Paths of the files of one run, named as by the PyTorch reference where it has them."""

    log: Path
    """Messages at the chosen level."""
    debug_log: Path
    """All messages."""
    results: Path
    """One JSON object per line: losses of steps, errors of evaluations."""
    history: Path
    """The history of the run as a table (CSV); the same with suffix ``.json``."""
    checkpoints: Path
    """Folder of the checkpoints."""
    models: Path
    """Folder of the final model files."""
    work: Path
    """Folder of everything else."""
    name: str
    """Name of the run, for model files."""

    @classmethod
    def of(cls, options: RunOptions) -> RunFiles:
        """Name the paths that the options ask for; nothing is created."""
        work = options.work_dir
        logs = options.log_dir or work / "logs"
        results = options.results_dir or work / "results"
        return cls(
            log=logs / f"{options.tag}.log",
            debug_log=logs / f"{options.tag}_debug.log",
            results=results / f"{options.tag}_train.txt",
            history=results / f"{options.tag}_history.csv",
            checkpoints=options.checkpoints_dir or work / "checkpoints",
            models=options.model_dir or work,
            work=work,
            name=options.name,
        )

    def logs(self, process: int) -> tuple[Path, Path]:
        """Log and debug log of one of the processes of a run; the first has those of the run.

        Args:
            process: its number, from 0.
        """
        if process == 0:
            return self.log, self.debug_log
        named = f"{self.log.stem}_rank{process}"
        return self.log.with_name(f"{named}.log"), self.log.with_name(f"{named}_debug.log")

    def model(self, stage: str) -> Path:
        """Final model file of a stage."""
        return self.models / f"{self.name}_{stage}.model.safetensors"

    def make_folders(self) -> None:
        """Create the folders that the files go to.

        Raises:
            ConfigurationError: one cannot be created or written to.
        """
        for option, folder in {
            "work_dir": self.work,
            "log_dir": self.log.parent,
            "results_dir": self.results.parent,
            "checkpoints_dir": self.checkpoints,
            "model_dir": self.models,
        }.items():
            make_folder(option, folder)


def make_folder(option: str, folder: Path) -> None:
    """Create a folder that files go to, if need be.

    Args:
        option: that names it.
        folder: its path.

    Raises:
        ConfigurationError: it cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "no permission to write"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise ConfigurationError(
            f"option '{option}': cannot put files into the folder '{folder}': {reason}"
        )
