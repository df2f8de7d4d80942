"""Raw features of descriptors for structures, as arrays and as a file for other programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from mace_scf_jax.backbones import BackboneSettings, ChebyshevSettings, Descriptor
from mace_scf_jax.backbones.chebyshev.functions import descriptors
from mace_scf_jax.data.batching import batches_by_size
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.structure import prepare_all
from mace_scf_jax.files import write_whole
from mace_scf_jax.graph import Graph
from mace_scf_jax.predict.predictor import Notify


@dataclasses.dataclass(frozen=True)
class DescribedStructures:
    """Raw features of all atoms of several structures, one structure after the other."""

    descriptor: Descriptor
    features: Float[np.ndarray, "atoms f"]
    """In the order of `Descriptor.feature_names`; not normalised."""
    numbers: Int[np.ndarray, "atoms"]
    """Atomic numbers."""
    structure: Int[np.ndarray, "atoms"]
    """Position of the structure that each atom belongs to."""

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` archive, all or nothing: arrays, names, species and a JSON text."""
        with write_whole(path) as partial, partial.open("wb") as file:
            np.savez(
                file,
                features=self.features,
                numbers=self.numbers,
                structure=self.structure,
                names=np.array(self.descriptor.feature_names),
                species=np.array(self.descriptor.symbols),
                descriptor=json.dumps(dataclasses.asdict(self.descriptor)),
            )


def descriptor_of(backbone: BackboneSettings) -> Descriptor:
    """Return the descriptor of a model.

    Raises:
        ValueError: its backbone has none.
    """
    if not isinstance(backbone, ChebyshevSettings):
        raise ValueError(
            f"descriptors: expected a model with the backbone {ChebyshevSettings.name}, found "
            f"{backbone.name}"
        )
    return backbone.descriptor


def describe(
    descriptor: Descriptor,
    configurations: Sequence[Configuration],
    *,
    batch_size: int = 64,
    notify: Notify | None = None,
) -> DescribedStructures:
    """Compute the raw features of the atoms of structures, in double precision.

    Args:
        batch_size: most structures computed at once.
        notify: called with the number of structures that are done, and of all.

    Raises:
        DataError: a structure has an element that is no species, or coinciding atoms.
    """
    elements = tuple(sorted(descriptor.species))
    structures = prepare_all(configurations, elements=elements, cutoff=descriptor.cutoff)
    compute: Callable[[Graph], Array] = jax.jit(
        lambda graph: descriptors(graph, descriptor, elements)
    )
    found: list[np.ndarray] = [np.zeros((0, descriptor.size)) for _ in structures]
    done = 0
    for indices, graph in batches_by_size(structures, batch_size=batch_size, layout="per_atom"):
        values = np.asarray(compute(graph))
        for place, index in enumerate(indices):
            found[index] = values[graph.slots[place][graph.slot_mask[place]]]
        done += len(indices)
        if notify is not None:
            notify(done, len(structures))
    atoms = [len(values) for values in found]
    return DescribedStructures(
        descriptor,
        features=np.concatenate(found),
        numbers=np.concatenate([entry.atomic_numbers for entry in configurations]),
        structure=np.repeat(np.arange(len(found)), atoms),
    )
