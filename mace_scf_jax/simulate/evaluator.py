"""A model evaluated for one structure after another, most of them the one before a little moved."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import ase
import jax
import numpy as np

from mace_scf_jax.data.cells import repeat_length
from mace_scf_jax.data.sizes import BatchSizes, merge
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import ModelSettings, SCFState, SelfConsistency
from mace_scf_jax.models.meaning import undefined
from mace_scf_jax.models.outputs import ends_of_searches
from mace_scf_jax.predict.model import Model, Prediction
from mace_scf_jax.predict.prediction import state_of_batch
from mace_scf_jax.scf.status import SolverStatus
from mace_scf_jax.simulate.functional import Context, EnergyFunction
from mace_scf_jax.simulate.geometry import Geometry
from mace_scf_jax.simulate.neighbours import LEAST_BOX, Neighbours
from mace_scf_jax.simulate.preparation import (
    EXTRA_ROOM,
    MOST_WASTE,
    Images,
    prepare_neighbours,
)

SKIN = 0.5
"""Å by which edges reach beyond the cutoff."""
MORE_ROOM = 0.4
"""Room for more neighbours, as a part of them, once atoms or a changing cell have outgrown theirs;
for reciprocal vectors too."""
LARGEST_STRAIN = 0.2
"""Change of the cell that one set of reciprocal vectors serves where energies are to be smooth."""
MOST_WASTE_OF_OTHERS = 1.5
"""Work in arrays that were made for another structure, relative to arrays of its own, up to which
they are used rather than compiling anew."""
_STEP = 1.25
"""Ratio of the numbers of atoms of arrays for structures of different sizes."""


class Evaluator:
    """Evaluates a model for geometry after geometry, with a list of neighbours that outlives steps.

    Numbers are those of a fresh preparation: the list is renewed on the device, and all else that
    depends on atoms, cell, periodicity and inputs is prepared again when they change.

    Args:
        smooth: make energies smooth functions of cell and positions: reciprocal vectors are
            chosen once for cells within `LARGEST_STRAIN`, and the box of a structure without
            periodic directions, or the repeat of a slab, stays while it is large enough.
    """

    def __init__(self, model: Model, *, smooth: bool = False) -> None:
        self.model = model
        self.smooth = smooth
        self.num_padded_atoms = 0
        """Atoms that there is room for in the arrays of the latest structure."""
        self.total_charge = 0.0
        """Of the latest structure, e."""
        self._program = _compile(model.settings, model.scf)
        self._rooms: list[tuple[BatchSizes, Images]] = []
        self._geometry: Geometry | None = None
        self._neighbours: Neighbours | None = None
        self._layout: Graph | None = None
        self._atoms_before: int | None = None
        """Padded atoms that the memory of the search before is of."""
        self._meaningless: set[str] = set()
        """Outputs that mean nothing for the structure."""
        self._ends: tuple[str, ...] | None = None
        """Outputs that tell how a search ended."""

    def __reduce__(self) -> tuple[Callable[..., Evaluator], tuple[Model]]:
        """Copies have the model and the settings, and prepare and compile for themselves."""
        return functools.partial(Evaluator, smooth=self.smooth), (self.model,)

    def evaluate(
        self,
        atoms: ase.Atoms,
        geometry: Geometry,
        start: Mapping[str, Any] | None = None,
        *,
        stress: bool = False,
    ) -> Prediction:
        """The prediction for a structure.

        Args:
            geometry: what the model reads of it.
            start: multipoles, Fermi level and perhaps the memory of former searches (as
                ``scf_memory``) by name, from which a self-consistent model starts.

        Returns:
            As `Model.predict` does, without virials; and ``valid``, ``converged`` and
            ``scf_memory``.

        Raises:
            DataError: the structure cannot be used, or ``start`` is of other atoms.
            BoundaryError: its periodicity does not fit the model's electrostatics.
        """
        if not self._serves(geometry):
            self._prepare(atoms, geometry)
        found = self._follow(geometry, start, stress=stress)
        if not (found["valid"] and np.isfinite(found["energy"])):
            self._prepare(atoms, geometry)  # which refuses what no energy is defined for
            found = self._follow(geometry, start, stress=stress)
        return found

    def _serves(self, geometry: Geometry) -> bool:
        """Whether all that is prepared, but perhaps the edges, serves a geometry."""
        prepared = self._geometry
        if prepared is None or not prepared.same_system(geometry):
            return False
        if self._neighbours.largest_strain is None:  # neither reciprocal vectors nor mesh
            return True
        if not self.smooth:
            same_cell = np.array_equal(prepared.cell, geometry.cell)
            return same_cell and self._has_repeat_of(geometry)
        if geometry.pbc.any():
            return bool(geometry.pbc.all()) or np.array_equal(prepared.cell, geometry.cell)
        return bool(np.all(prepared.cell.diagonal() >= LEAST_BOX * geometry.cell.diagonal()))

    def _has_repeat_of(self, geometry: Geometry) -> bool:
        """Whether a slab is repeated as it would be if it were prepared now."""
        tails = self._neighbours.tails
        if tails is None or geometry.pbc.all():
            return True
        if not np.isfinite(geometry.positions).all():
            return False  # to be refused
        repeat = repeat_length(geometry.positions, geometry.cell, geometry.pbc, tails)
        return bool(self._layout.repeat[0] == repeat)

    def _prepare(self, atoms: ase.Atoms, geometry: Geometry) -> None:
        before = self._geometry
        known = before is not None and before.same_system(geometry)
        breathes = known and not np.array_equal(before.cell, geometry.cell)
        self._geometry = None
        self._neighbours = prepare_neighbours(
            self.model,
            atoms,
            functools.partial(self._choose, known, breathes),
            skin=SKIN,
            largest_strain=LARGEST_STRAIN if self.smooth and geometry.pbc.all() else 0.0,
            mesh=self._neighbours.graph.mesh if known else None,
            images_before=None if self._neighbours is None else self._neighbours.graph.images,
        )
        self._layout = jax.device_get(self._neighbours.graph)
        self.num_padded_atoms = self._layout.num_atoms
        self.total_charge = float(self._layout.total_charge[0])
        self._geometry = geometry
        masks = undefined(self.model.settings, geometry.pbc, geometry.cell)
        self._meaningless = {name for name, mask in masks.items() if mask.all()}

    def _choose(
        self, known: bool, breathes: bool, needed: BatchSizes, images: Images
    ) -> tuple[BatchSizes, Images]:
        """Lengths of arrays: those in use if they do, so that little has to be compiled."""
        if known:
            waves = MORE_ROOM if breathes else 0.0
            roomy = needed.with_room(MORE_ROOM, kvectors=waves)
            most = MOST_WASTE * roomy.work()
            sizes, used = self._neighbours.sizes, self._neighbours.images
            if sizes.work() <= most:
                images = tuple(map(max, images, used))
                if sizes.holds(needed) and images == used:
                    return sizes, images
                roomy = merge((sizes, needed)).with_room(MORE_ROOM, kvectors=waves)
        else:
            roomy = needed.with_room(EXTRA_ROOM)
            most = MOST_WASTE_OF_OTHERS * roomy.work()
        for sizes, used in self._rooms:
            if used == images and sizes.holds(needed) and sizes.work() <= most:
                return sizes, images
        if self._rooms and not known:  # structures of different sizes come along
            power = math.ceil(round(math.log(needed.atoms, _STEP), 9))
            roomy = roomy.with_atoms(math.ceil(_STEP**power))
        self._rooms.append((roomy, images))
        return roomy, images

    def _follow(
        self, geometry: Geometry, start: Mapping[str, Any] | None, *, stress: bool
    ) -> Prediction:
        num_atoms = len(geometry.positions)
        positions = np.zeros((self.num_padded_atoms, 3))
        positions[:num_atoms] = geometry.positions
        keeps_box = self.smooth and not geometry.pbc.any()
        outputs, context = self._program(
            self.model.parameters,
            positions,
            (self._geometry if keeps_box else geometry).cell,
            Context(self._neighbours, self._state(start)),
            stress=stress,
        )
        self._neighbours = context.neighbours
        self._atoms_before = self.num_padded_atoms
        of_atoms, found = jax.device_get(outputs)
        if self._ends is None:  # once: a step is to do little on the host
            self._ends = tuple(end.name for end in ends_of_searches(found))
        found |= {name: values[:num_atoms] for name, values in of_atoms.items()}
        found |= {name: SolverStatus(found[name]) for name in self._ends}
        for name in self._meaningless & found.keys():
            del found[name]
        return found | {"scf_memory": None if context.start is None else context.start.memory}

    def _state(self, start: Mapping[str, Any] | None) -> SCFState | None:
        if start is None:
            return None
        memory = start.get("scf_memory")
        if memory is None or self._atoms_before != self.num_padded_atoms:
            state = state_of_batch([start], self._layout)
            return state.with_memory(self._layout, self.model.scf)
        given = start["multipoles"]
        multipoles = np.zeros((self.num_padded_atoms, given.shape[1]), given.dtype)
        multipoles[: len(given)] = given
        return SCFState(multipoles, np.asarray(start["fermi_level"], given.dtype)[None], memory)


@functools.lru_cache(maxsize=16)
def _compile(settings: ModelSettings, scf: SelfConsistency | None) -> Callable[..., Any]:
    """The compiled step of all models with the same settings, whatever their parameters."""
    energy_fn = EnergyFunction(Model(settings, parameters={}, scf=scf))

    @functools.partial(jax.jit, static_argnames="stress")
    def follow(parameters, positions, cell, context, *, stress):
        results, context = energy_fn.follow(
            positions, cell, context, stress=stress, parameters=parameters
        )
        return results.by_name(), context

    return follow
