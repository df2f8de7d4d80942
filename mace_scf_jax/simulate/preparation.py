"""Structures prepared for a model on the host: neighbours, reciprocal vectors, sizes of arrays."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import ase
import jax
import jax.numpy as jnp
import numpy as np

from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.sizes import BatchSizes, merge, required_sizes
from mace_scf_jax.data.structure import search_box
from mace_scf_jax.dispersion import with_pair_images
from mace_scf_jax.graph import PairImages
from mace_scf_jax.mesh import Mesh, common_mesh
from mace_scf_jax.predict.model import Model
from mace_scf_jax.predict.use import device_named
from mace_scf_jax.simulate.neighbours import Neighbours, images_needed

EXTRA_ROOM = 0.1
"""Room for more neighbours of an atom than there are at first, as a part of them: moving atoms that
outgrow it compile anew, and every step pays for it."""
MOST_WASTE = 2.0
"""Work in arrays, or points of a mesh, made for another state of the same atoms, such as a
denser one, relative to those made for the present one, up to which they are used."""

SHRINKAGE = 0.05
"""Relative change of a cell that the translations of a dispersion serve."""

Images = tuple[int, int, int]
Choose = Callable[[BatchSizes, Images], tuple[BatchSizes, Images]]


@dataclasses.dataclass(frozen=True, eq=False)
class Preparation:
    """Prepares structures for the energy function of a model, on the host.

    Inputs of the model are read from their ``info`` and ``arrays``.
    """

    model: Model
    skin: float
    """Å by which edges reach beyond the model's cutoff."""
    largest_strain: float
    """Relative change of the cell's vectors that reciprocal vectors or a mesh are to serve."""
    extra_capacity: float = EXTRA_ROOM
    """Room for more neighbours than there are, as a part of them."""

    def __call__(
        self,
        atoms: ase.Atoms,
        previous: Neighbours | None = None,
        *,
        extra_capacity: float | None = None,
    ) -> Neighbours:
        """The neighbours of a structure.

        Args:
            atoms: the structure.
            previous: of the same atoms. No array is smaller than there, so that what is compiled is
                used again, unless they are wastefully large.
            extra_capacity: in place of the usual one.

        Raises:
            DataError: the structure cannot be used, or ``previous`` has other atoms.
            BoundaryError: its periodicity does not fit the model's electrostatics.
        """

        def choose(needed: BatchSizes, images: Images) -> tuple[BatchSizes, Images]:
            sizes = needed.with_room(
                self.extra_capacity if extra_capacity is None else extra_capacity
            )
            if previous is None or previous.sizes.work() > MOST_WASTE * sizes.work():
                return sizes, images
            return merge((sizes, previous.sizes)), tuple(map(max, images, previous.images))

        made = prepare_neighbours(
            self.model,
            atoms,
            choose,
            skin=self.skin,
            largest_strain=self.largest_strain,
            mesh=None if previous is None else previous.graph.mesh,
            images_before=None if previous is None else previous.graph.images,
        )
        if previous is not None and not np.array_equal(made.graph.species, previous.graph.species):
            raise DataError("previous neighbours: found those of other atoms")
        return made


def prepare_neighbours(
    model: Model,
    atoms: ase.Atoms,
    choose: Choose,
    *,
    skin: float,
    largest_strain: float,
    mesh: Mesh | None = None,
    images_before: PairImages | None = None,
) -> Neighbours:
    """Find the neighbours and reciprocal vectors of a structure on the host.

    Args:
        model: what they are for.
        choose: from the sizes and images that are needed to those of the arrays.
        skin: as for `Preparation`.
        largest_strain: as for `Preparation`.
        mesh: of the same atoms before, that their mesh, if they have one, is not to be coarser than
            unless it is wastefully fine.
        images_before: translations of which the numbers are used again where they do.

    Raises:
        DataError: the structure cannot be used.
        BoundaryError: its periodicity does not fit the model's electrostatics.
    """
    structure = model.prepare(model.read(atoms), skin=skin, largest_strain=largest_strain)
    pbc = structure.configuration.pbc
    cutoff = model.settings.backbone.r_max
    box = search_box(structure.configuration.cell, pbc)
    sizes, images = choose(
        required_sizes([structure], "per_atom", padding=False),
        # Vectors may shrink by the strain before the reciprocal vectors have to be chosen anew.
        images_needed(box * (1.0 - largest_strain), pbc, cutoff + skin),
    )
    mesh = _mesh_in_use(mesh, structure.mesh)
    graph = jax.device_put(
        with_pair_images(
            collate([structure], sizes, dtype=model.dtype, labels=False, padding=False, mesh=mesh),
            model.settings.dispersion,
            shrinkage=max(SHRINKAGE, largest_strain),
            previous=images_before,
        ),
        None if model.device is None else device_named(model.device),
    )
    in_cell = mesh is not None or model.settings.kspace_cutoff is not None
    depends_on_cell = in_cell and not math.isinf(structure.repeat)
    return Neighbours(
        graph=graph,
        search_box=jnp.asarray(box, graph.cell.dtype),
        reciprocal_cell=graph.cell[0],
        overflow=jnp.asarray(False),
        cutoff=cutoff,
        skin=skin,
        largest_strain=largest_strain if depends_on_cell else None,
        images=images,
        tails=model.settings.tails,
    )


def _mesh_in_use(before: Mesh | None, needed: Mesh | None) -> Mesh | None:
    if before is None or needed is None:
        return needed
    shared = common_mesh((before, needed))
    return shared if shared.num_points <= MOST_WASTE * needed.num_points else needed
