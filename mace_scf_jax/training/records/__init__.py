"""What a run writes down: logs, results, history, tracking."""

from typing import TYPE_CHECKING

from mace_scf_jax.late import imported_late

if TYPE_CHECKING:
    from mace_scf_jax.training.records.history import TrainingHistory
    from mace_scf_jax.training.records.options import TrackingOptions
    from mace_scf_jax.training.records.results_file import ResultLines, ResultsError, read_results
    from mace_scf_jax.training.records.run_files import RunFiles, RunOptions

__all__ = [
    "ResultLines",
    "ResultsError",
    "RunFiles",
    "RunOptions",
    "TrackingOptions",
    "TrainingHistory",
    "read_results",
]

__getattr__, __dir__ = imported_late(__name__, __file__)
