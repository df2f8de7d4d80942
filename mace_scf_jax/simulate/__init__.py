"""Using trained models: predictions, evaluation of files, ASE, pure functions, simulations."""

from mace_scf_jax.simulate.atomic_multipoles import AtomicMultipoles, multipoles_of_atoms
from mace_scf_jax.simulate.calculator import MACESCFCalculator
from mace_scf_jax.simulate.convergence import NotConvergedError, NotConvergedWarning
from mace_scf_jax.simulate.coulomb_calculator import CoulombCalculator
from mace_scf_jax.simulate.evaluation import evaluate_file
from mace_scf_jax.simulate.functional import EnergyFunction, energy_function
from mace_scf_jax.simulate.model import Model, load_model
from mace_scf_jax.simulate.neighbours import Neighbours
from mace_scf_jax.simulate.potential_map import (
    Potential,
    plane_grid,
    potential_at,
    predicted_multipoles,
    volume_grid,
    write_potential_cube,
)
from mace_scf_jax.simulate.response import predict_response
from mace_scf_jax.simulate.results import Results
from mace_scf_jax.simulate.warm_start import StateNotUniqueWarning, WarmStart

__all__ = [
    "AtomicMultipoles",
    "CoulombCalculator",
    "EnergyFunction",
    "MACESCFCalculator",
    "Model",
    "Neighbours",
    "NotConvergedError",
    "NotConvergedWarning",
    "Potential",
    "Results",
    "StateNotUniqueWarning",
    "WarmStart",
    "energy_function",
    "evaluate_file",
    "load_model",
    "multipoles_of_atoms",
    "plane_grid",
    "potential_at",
    "predict_response",
    "predicted_multipoles",
    "volume_grid",
    "write_potential_cube",
]
