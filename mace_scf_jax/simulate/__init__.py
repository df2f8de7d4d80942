"""Using trained models: predictions, evaluation of files, ASE, pure functions, simulations."""

from typing import TYPE_CHECKING

from mace_scf_jax.late import imported_late

if TYPE_CHECKING:
    from mace_scf_jax.maps.atomic_multipoles import AtomicMultipoles, multipoles_of_atoms
    from mace_scf_jax.maps.density_map import density_at
    from mace_scf_jax.maps.potential_map import (
        Potential,
        plane_grid,
        potential_at,
        predicted_multipoles,
        volume_grid,
        write_cube_file,
    )
    from mace_scf_jax.predict import (
        Committee,
        CommitteeError,
        CommitteePrediction,
        Model,
        NotConvergedError,
        NotConvergedWarning,
        ResponseScores,
        evaluate_committee_file,
        evaluate_file,
        load_committee,
        load_model,
        polarization_change,
        predict_response,
        rank,
        score_born_charges,
        uncertainty,
    )
    from mace_scf_jax.simulate.calculator import MACESCFCalculator
    from mace_scf_jax.simulate.committee_calculator import CommitteeCalculator
    from mace_scf_jax.simulate.committee_energy import (
        CommitteeEnergyFunction,
        committee_energy_function,
    )
    from mace_scf_jax.simulate.coulomb_calculator import CoulombCalculator
    from mace_scf_jax.simulate.functional import EnergyFunction, energy_function
    from mace_scf_jax.simulate.neighbours import Neighbours
    from mace_scf_jax.simulate.results import Results
    from mace_scf_jax.simulate.warm_start import StateNotUniqueWarning, WarmStart

__all__ = [
    "AtomicMultipoles",
    "Committee",
    "CommitteeCalculator",
    "CommitteeEnergyFunction",
    "CommitteeError",
    "CommitteePrediction",
    "CoulombCalculator",
    "EnergyFunction",
    "MACESCFCalculator",
    "Model",
    "Neighbours",
    "NotConvergedError",
    "NotConvergedWarning",
    "Potential",
    "ResponseScores",
    "Results",
    "StateNotUniqueWarning",
    "WarmStart",
    "committee_energy_function",
    "density_at",
    "energy_function",
    "evaluate_committee_file",
    "evaluate_file",
    "load_committee",
    "load_model",
    "multipoles_of_atoms",
    "plane_grid",
    "polarization_change",
    "potential_at",
    "predict_response",
    "predicted_multipoles",
    "rank",
    "score_born_charges",
    "uncertainty",
    "volume_grid",
    "write_cube_file",
]

__getattr__, __dir__ = imported_late(__name__, __file__)
