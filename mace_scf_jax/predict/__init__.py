"""Trained models in use: predictions, committees, evaluation of files, errors, StableHLO."""

from typing import TYPE_CHECKING

from mace_scf_jax.late import imported_late

if TYPE_CHECKING:
    from mace_scf_jax.predict.committee import Committee, CommitteeError, load_committee
    from mace_scf_jax.predict.convergence import NotConvergedError, NotConvergedWarning
    from mace_scf_jax.predict.evaluation import evaluate_committee_file, evaluate_file
    from mace_scf_jax.predict.model import Model, load_model
    from mace_scf_jax.predict.prediction import Prediction
    from mace_scf_jax.predict.response import polarization_change, predict_response
    from mace_scf_jax.predict.response_scores import ResponseScores, score_born_charges
    from mace_scf_jax.predict.spread import CommitteePrediction, rank, uncertainty
    from mace_scf_jax.predict.stablehlo import export_stablehlo
    from mace_scf_jax.predict.suitability import BoundaryWarning, UnusedInputWarning
    from mace_scf_jax.predict.use import Options

__all__ = [
    "BoundaryWarning",
    "Committee",
    "CommitteeError",
    "CommitteePrediction",
    "Model",
    "NotConvergedError",
    "NotConvergedWarning",
    "Options",
    "Prediction",
    "ResponseScores",
    "UnusedInputWarning",
    "evaluate_committee_file",
    "evaluate_file",
    "export_stablehlo",
    "load_committee",
    "load_model",
    "polarization_change",
    "predict_response",
    "rank",
    "score_born_charges",
    "uncertainty",
]

__getattr__, __dir__ = imported_late(__name__, __file__)
