"""What a run writes down: logs, results, history, tracking."""

from mace_scf_jax.training.records.history import TrainingHistory
from mace_scf_jax.training.records.results_file import ResultLines, ResultsError, read_results
from mace_scf_jax.training.records.run_files import RunFiles, RunOptions
from mace_scf_jax.training.records.tracking import TrackingOptions

__all__ = [
    "ResultLines",
    "ResultsError",
    "RunFiles",
    "RunOptions",
    "TrackingOptions",
    "TrainingHistory",
    "read_results",
]
