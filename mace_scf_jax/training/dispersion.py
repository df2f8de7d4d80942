"""Training with dispersion: labels without it, which are what the model learns."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from mace_scf_jax.data.batching import batches_by_size
from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.structure import prepare
from mace_scf_jax.dispersion import DispersionSettings, dispersion_energy, with_pair_images
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.forces_and_stress import with_derivatives

logger = logging.getLogger("mace_scf_jax")

_EDGES = 1.0
"""Å; edges serve nothing here."""


def dispersion_of(options: Any, elements: tuple[int, ...]) -> DispersionSettings | None:
    """Return the dispersion that models of a run have; None without.

    Args:
        options: of the run.
        elements: atomic numbers that there have to be reference values for.

    Raises:
        ValueError: names elements without.
    """
    if options.dispersion is None:
        return None
    return DispersionSettings.of(
        options.dispersion,
        options.dispersion_functional,
        elements,
        cutoff=options.dispersion_cutoff,
    )


def labels_without_dispersion(
    options: Any,
) -> Callable[[Sequence[Configuration]], list[Configuration]] | None:
    """Return what takes the dispersion of a run off labels; None without.

    Args:
        options: of the run.
    """
    if options.dispersion is None:
        return None

    def without(configurations: Sequence[Configuration]) -> list[Configuration]:
        occurring = {int(z) for entry in configurations for z in entry.atomic_numbers}
        elements = tuple(sorted(occurring))
        settings = dispersion_of(options, elements)
        assert settings is not None
        found = without_dispersion(configurations, settings, elements)
        logger.info(
            "Dispersion, %s: taken off the labels of %d structures", settings.words, len(found)
        )
        return found

    return without


def without_dispersion(
    configurations: Sequence[Configuration],
    settings: DispersionSettings,
    elements: tuple[int, ...],
) -> list[Configuration]:
    """Return configurations whose energies, forces, stress and virials lack their dispersion.

    Args:
        elements: atomic numbers of all of them, ascending.
    """
    structures = [prepare(entry, elements=elements, cutoff=_EDGES) for entry in configurations]
    changed = list(configurations)
    for indices, graph in batches_by_size(structures):
        with_images = with_pair_images(graph, settings)
        found = jax.device_get(_derivatives(settings, elements, with_images))
        for own, index in enumerate(indices):
            atoms = graph.slots[own][graph.slot_mask[own]]
            parts = {name: found[name][own] for name in ("energy", "stress", "virials")}
            parts["forces"] = found["forces"][atoms]
            entry = configurations[index]
            values = dict(entry.values)
            for name in parts.keys() & entry.present:
                values[name] = values[name] - parts[name].reshape(np.shape(values[name]))
            changed[index] = dataclasses.replace(entry, values=values)
    return changed


@functools.partial(jax.jit, static_argnums=(0, 1))
def _derivatives(
    settings: DispersionSettings, elements: tuple[int, ...], graph: Graph
) -> dict[str, Array]:
    return with_derivatives(
        lambda moved: {"energy": dispersion_energy(settings, elements, moved)},
        graph,
        forces=True,
        stress=True,
    )
