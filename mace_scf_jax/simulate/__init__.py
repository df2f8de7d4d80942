"""Using trained models: predictions, evaluation of files, ASE."""

from mace_scf_jax.simulate.calculator import MACESCFCalculator
from mace_scf_jax.simulate.evaluation import evaluate_file
from mace_scf_jax.simulate.model import Model, load_model
from mace_scf_jax.simulate.response import predict_response

__all__ = ["MACESCFCalculator", "Model", "evaluate_file", "load_model", "predict_response"]
