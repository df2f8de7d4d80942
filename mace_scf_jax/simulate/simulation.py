"""A structure in motion under the forces of a model."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import ase
import jax
import jax.numpy as jnp
import numpy as np
from ase import units
from jaxtyping import Array, Bool, Float, UInt

from mace_scf_jax.boundary import pbc_letters
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.predict.distances import DistanceWatch
from mace_scf_jax.simulate import dynamics
from mace_scf_jax.simulate.committee_energy import CommitteeEnergyFunction
from mace_scf_jax.simulate.constraints import mobile_coordinates
from mace_scf_jax.simulate.dynamics import Evaluation, EvaluationStatus, MotionState
from mace_scf_jax.simulate.functional import Context, EnergyFunction
from mace_scf_jax.simulate.neighbours import Neighbours
from mace_scf_jax.simulate.preparation import Preparation
from mace_scf_jax.simulate.results import Results
from mace_scf_jax.simulate.settings import SimulationError, SimulationSettings
from mace_scf_jax.simulate.stopping import FAILURES, SimulationStopped

_COMPILED = ("_evaluate_first", "_observe", "_advance")
_MOST_ATTEMPTS = 5
"""Times that the host prepares one step, with ever more room."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """All that a simulation goes on from, on the host."""

    positions: Float[np.ndarray, "atoms 3"]
    """Å, not wrapped into the cell."""
    momenta: Float[np.ndarray, "atoms 3"]
    """√(u eV), those of ASE."""
    cell: Float[np.ndarray, "3 3"]
    """Å; zero vectors where the structure has none."""
    key: UInt[np.ndarray, "words"]
    """State of the random numbers."""
    heat: float
    """Given by the thermostat so far, eV."""
    steps_done: int


class Simulation:
    """A structure in motion: the state on the device, and what the host does for it.

    Steps run in compiled loops. Neighbours are renewed within; only where they outgrow their
    arrays, or a cell its range, the host prepares the structure again. Self-consistent models start
    from the density of the step before. A copy by pickle goes on, and compiles for itself.
    """

    def __init__(
        self,
        energy_fn: EnergyFunction,
        prepare: Preparation,
        atoms: ase.Atoms,
        settings: SimulationSettings,
        *,
        seed: int = 0,
        snapshot: Snapshot | None = None,
        largest_uncertainty: float | None = None,
    ) -> None:
        """Prepare a simulation.

        Args:
            energy_fn: from `mace_scf_jax.energy_function`, or of a committee; with
                ``largest_strain`` for "npt".
            prepare: from there too.
            atoms: the structure. Without momenta they are drawn at the temperature. Its
                constraints are kept, if they are `FixAtoms` and `FixCartesian`.
            settings: how it moves.
            seed: of the random numbers.
            snapshot: where to go on instead of the start; of the same atoms.
            largest_uncertainty: of a committee, at which to stop: the largest norm of the standard
                deviation of a force, eV/Å. None to go on whatever it is.

        Raises:
            SimulationError: the structure does not suit the ensemble, there are neither momenta nor
                a temperature, or the initial energy cannot be used; or a largest uncertainty is
                given without a committee.
            DataError: the structure cannot be used.
        """
        if settings.ensemble == "npt" and not atoms.pbc.all():
            raise SimulationError(
                "constant pressure: expected a structure that is periodic in three directions, "
                f"found pbc {pbc_letters(atoms.pbc)}"
            )
        mobile = mobile_coordinates(atoms)
        if settings.ensemble == "npt" and mobile is not None:
            raise SimulationError("constant pressure: found fixed atoms, which the cell would move")
        _check_uncertainty(largest_uncertainty, energy_fn)
        self.energy_fn, self.prepare, self.settings = energy_fn, prepare, settings
        self.masses = jnp.asarray(atoms.get_masses())
        self.mobile = None if mobile is None else jnp.asarray(mobile)
        """1 for coordinates that move, 0 for those that are fixed; None if all move."""
        self.largest_uncertainty = largest_uncertainty
        self.preparations = 0
        """How often the host has prepared the structure."""
        self._distances = DistanceWatch(energy_fn.model.settings)
        self._atoms = without_labels(atoms, energy_fn.model.input_keys)
        if snapshot is None:
            snapshot = self._start(jax.random.key(seed))
        self.steps_done = snapshot.steps_done
        self._move_atoms(snapshot.positions, snapshot.cell)
        neighbours = self._prepared(None)
        if settings.ensemble == "npt" and neighbours.largest_strain == 0.0:
            raise SimulationError(
                "constant pressure: expected an energy function with largest_strain above 0, whose "
                "reciprocal vectors serve a range of cells"
            )
        positions, cell = jnp.asarray(snapshot.positions), self._cell(neighbours)
        evaluation = self._evaluate_first(
            self.energy_fn.parameters, positions, cell, Context(neighbours)
        )
        self.state = MotionState(
            positions=positions,
            momenta=jnp.asarray(snapshot.momenta),
            cell=cell,
            key=jax.random.wrap_key_data(jnp.asarray(snapshot.key)),
            heat=jnp.asarray(snapshot.heat, positions.dtype),
            evaluation=evaluation,
        )
        status = EvaluationStatus(int(evaluation.status))
        if status not in (EvaluationStatus.USABLE, EvaluationStatus.OUTGROWN):
            raise SimulationError(f"initial structure: {FAILURES[status]}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _COMPILED}

    @property
    def time(self) -> float:
        """Time simulated so far, ps."""
        return self.steps_done * self.settings.timestep / 1000.0

    @property
    def total_charge(self) -> float:
        """What the charges of the structure are to add up to, e."""
        return float(self.state.evaluation.context.neighbours.graph.total_charge[0])

    @property
    def degrees_of_freedom(self) -> int:
        """Those that share the temperature: without the motion of the whole if it is conserved."""
        if self.mobile is not None:
            return int(jnp.sum(self.mobile))
        count = 3 * len(self._atoms)
        conserved = self.settings.ensemble == "nve" and len(self._atoms) > 1
        return count - 3 if conserved else count

    def advance(self, num_steps: int) -> None:
        """Make steps.

        Raises:
            SimulationStopped: energies are not finite, atoms move too fast, multipoles do not
                converge, or members of a committee disagree too much. The state is that of the last
                good step.
        """
        remaining, attempts = num_steps, 0
        while remaining:
            self.state, done, status = self._advance(
                self.energy_fn.parameters, self.state, jnp.asarray(remaining)
            )
            remaining -= int(done)
            self.steps_done += int(done)
            attempts = 0 if int(done) else attempts + 1
            is_outgrown = int(status) == EvaluationStatus.OUTGROWN
            if remaining and (not is_outgrown or attempts > _MOST_ATTEMPTS):
                raise SimulationStopped(self.steps_done + 1, EvaluationStatus(int(status)))
            if remaining:
                self._prepare_again(attempts)

    def observe(self, *, stress: bool = False) -> Results:
        """What the model predicts for the present structure.

        Of atoms closer than the model is meant for it is warned once.
        """
        state, context = self.state, self.state.evaluation.context
        results = self._observe(
            state.positions,
            context.neighbours,
            cell=state.cell,
            stress=stress,
            start=context.start,
            parameters=self.energy_fn.parameters,
        )
        self._distances.look(results.further, f"step {self.steps_done}")
        return results

    def snapshot(self) -> Snapshot:
        """The present state on the host."""
        state = jax.device_get(dataclasses.replace(self.state, evaluation=None, key=None))
        self._move_atoms(state.positions, state.cell)
        return Snapshot(
            positions=np.asarray(state.positions),
            momenta=np.asarray(state.momenta),
            cell=np.array(self._atoms.cell),
            key=np.asarray(jax.random.key_data(self.state.key)),
            heat=float(state.heat),
            steps_done=self.steps_done,
        )

    def to_atoms(self) -> ase.Atoms:
        """The present structure with momenta."""
        snapshot = self.snapshot()
        atoms = self._atoms.copy()
        atoms.set_momenta(snapshot.momenta)
        return atoms

    def _start(self, key: Array) -> Snapshot:
        for_momenta, key = jax.random.split(key)
        if self._atoms.has("momenta"):
            momenta = self._atoms.get_momenta() * (1.0 if self.mobile is None else self.mobile)
        elif self.settings.temperature is not None:
            thermal_energy = jnp.asarray(units.kB * self.settings.temperature)
            momenta = dynamics.random_momenta(for_momenta, self.masses, thermal_energy, self.mobile)
        else:
            raise SimulationError(
                "found neither momenta in the structure nor a temperature to draw them at"
            )
        return Snapshot(
            positions=np.array(self._atoms.positions),
            momenta=np.array(momenta),
            cell=np.array(self._atoms.cell),
            key=np.asarray(jax.random.key_data(key)),
            heat=0.0,
            steps_done=0,
        )

    def _move_atoms(self, positions: np.ndarray, cell: np.ndarray) -> None:
        self._atoms.positions = positions
        if self._atoms.pbc.all():
            self._atoms.set_cell(cell)

    def _cell(self, neighbours: Neighbours) -> Float[Array, "3 3"]:
        """The cell; that of the electrostatics where the structure is not periodic throughout."""
        cell = self._atoms.cell if self._atoms.pbc.all() else neighbours.cell
        return jnp.asarray(np.asarray(cell), jnp.float64)

    def _prepared(
        self, previous: Neighbours | None, extra_capacity: float | None = None
    ) -> Neighbours:
        self.preparations += 1
        return self.prepare(self._atoms, previous, extra_capacity=extra_capacity)

    def _prepare_again(self, attempts: int) -> None:
        """Neighbours made on the host, with more room if what was made before did not suffice."""
        self.snapshot()
        evaluation = self.state.evaluation
        neighbours = self._prepared(
            evaluation.context.neighbours, 0.25 * 2**attempts if attempts else None
        )
        context = dataclasses.replace(evaluation.context, neighbours=neighbours)
        self.state = dataclasses.replace(
            self.state,
            cell=self._cell(neighbours),
            evaluation=dataclasses.replace(evaluation, context=context),
        )

    def _evaluate(
        self, parameters: Any, positions: Array, cell: Array, context: Context
    ) -> Evaluation:
        results, context = self.energy_fn.follow(
            positions, cell, context, stress=self.settings.ensemble == "npt", parameters=parameters
        )
        precision = positions.dtype
        is_finite = jnp.all(jnp.isfinite(positions)) & jnp.isfinite(results.energy)
        status = jnp.select(
            [
                ~jnp.all(jnp.isfinite(positions)),
                ~results.valid,
                ~results.converged,
                ~is_finite,
                self._is_uncertain(results),
            ],
            [
                EvaluationStatus.NOT_FINITE,
                EvaluationStatus.OUTGROWN,
                EvaluationStatus.NOT_CONVERGED,
                EvaluationStatus.NOT_FINITE,
                EvaluationStatus.UNCERTAIN,
            ],
            EvaluationStatus.USABLE,
        )
        return Evaluation(
            energy=results.energy.astype(precision),
            forces=results.forces.astype(precision),
            stress=None if results.stress is None else results.stress.astype(precision),
            status=status,
            context=context,
        )

    def _is_uncertain(self, results: Results) -> Bool[Array, ""]:
        """Whether the members of a committee disagree by more than is accepted."""
        if self.largest_uncertainty is None:
            return jnp.asarray(False)
        spread = jnp.linalg.norm(results.further["forces_std"], axis=-1)
        return jnp.max(spread) > self.largest_uncertainty

    @functools.cached_property
    def _evaluate_first(self) -> Callable[..., Evaluation]:
        return jax.jit(self._evaluate)

    @functools.cached_property
    def _observe(self) -> Callable[..., Results]:
        return jax.jit(self.energy_fn.results, static_argnames="stress")

    @functools.cached_property
    def _advance(self) -> Callable[..., tuple[MotionState, Array]]:
        @jax.jit
        def advance(parameters, state, num_steps):
            make_step = functools.partial(
                dynamics.step,
                evaluate=functools.partial(self._evaluate, parameters),
                masses=self.masses,
                timestep=jnp.asarray(self.settings.timestep * units.fs),
                thermostat=self.settings.thermostat,
                barostat=self.settings.barostat,
                mobile=self.mobile,
            )
            return dynamics.advance(state, num_steps, make_step)

        return advance


def _check_uncertainty(largest: float | None, energy_fn: EnergyFunction) -> None:
    """Refuse a largest uncertainty that makes no sense, or of a single model."""
    if largest is None:
        return
    if not largest > 0.0:
        raise SimulationError(f"largest uncertainty: found {largest}, expected a positive number")
    if not isinstance(energy_fn, CommitteeEnergyFunction):
        raise SimulationError("largest uncertainty: expected a committee, found a single model")


def without_labels(atoms: ase.Atoms, keys: KeySpecification) -> ase.Atoms:
    """A copy with nothing in it but atoms, what moves, and what a model reads.

    Args:
        keys: of what it reads.
    """
    kept = ase.Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    info = keys.stored_under("info")
    kept.info = {key: atoms.info[key] for key in info if key in atoms.info}
    for key in (*keys.stored_under("arrays"), "momenta", "masses"):
        if atoms.has(key):
            kept.set_array(key, atoms.get_array(key))
    kept.set_constraint(atoms.constraints)
    return kept
