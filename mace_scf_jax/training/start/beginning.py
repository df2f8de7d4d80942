"""How a new model begins: charges that are small but not zero, energies and forces as before."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mace_scf_jax.data.configuration import Configuration
from mace_scf_jax.data.sets import ConfigurationSet
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import ModelSettings, build, evaluate
from mace_scf_jax.options import ConfigurationError
from mace_scf_jax.predict.model import Model
from mace_scf_jax.training.optimise.parameter_groups import Parameters, parameter_name
from mace_scf_jax.training.start.start_model import StartModel

logger = logging.getLogger(__name__)

BATCHES_MEASURED = 8
"""Training batches on which first charges are measured."""
STRUCTURES_COMPARED = 32
"""Training structures on which the new model is compared with the start model."""
DIGITS = 6
"""Of estimated energies in eV, which are to be the same whenever a run goes on."""
LARGEST_CHANGE = 1e-3
"""eV per atom: a larger change of the energies before the first step is warned of."""


def estimated_energies(
    start: StartModel, structures: ConfigurationSet
) -> tuple[dict[int, float], int]:
    """Energies of isolated atoms that bring the start model closest to the energies of the data.

    They are those of the start model plus the solution of smallest norm of the least-squares
    problem for what is missing, so that the interaction energies of the start model keep their
    meaning at another level of theory.

    Args:
        structures: of which those with an energy count.

    Returns:
        Energies in eV by atomic number, and the rank of the problem: where it is below the number
        of elements, the compositions do not tell all elements apart.

    Raises:
        ConfigurationError: no training structure has an energy.
    """
    labelled = np.flatnonzero(structures.catalogue.weights["energy"] > 0.0)
    if len(labelled) == 0:
        raise ConfigurationError(
            "option 'E0s': estimated needs training structures with an energy, found none; give "
            "'start', the energies of the start model"
        )
    members = structures.take(labelled)
    elements = members.catalogue.occurring_elements()
    counts = members.catalogue.counts_of(elements).astype(np.float64)
    predictions = start.predicted(list(members), forces=False)
    predicted = np.array([float(it["energy"]) for it in predictions])
    missing = members.catalogue.energy - predicted
    change, _, rank, _ = np.linalg.lstsq(counts, missing, rcond=None)
    energies = {
        z: round(start.atomic_energies[z] + float(by), DIGITS)
        for z, by in zip(elements, change, strict=True)
    }
    return energies, int(rank)


def with_small_charges(
    settings: ModelSettings, parameters: Parameters, batches: Iterable[Graph], *, charge: float
) -> Parameters:
    """Scale what multipoles are linear in, so that their root mean square is as given.

    What a structure has without them, formal charges or its total charge, does not count. Charges
    of zero would never change, because the Coulomb energy is quadratic in them.

    Args:
        settings: of a family with charges.
        batches: structures to measure the charges on.
        charge: root mean square in e, and of dipoles in e Å.
    """
    family, module = settings.of_family, build(settings)
    if family.silent is not None:
        parameters = _scaled(parameters, family.silent, 0.0)
    everything = "|".join(family.sources.values())
    if not everything:
        return parameters

    @jax.jit
    def squares(parameters: Parameters, graph: Graph) -> Array:
        multipoles, without = (
            evaluate(module, _scaled(parameters, everything, by), graph, forces=False)["multipoles"]
            for by in (1.0, 0.0)
        )
        return jnp.sum(
            jnp.where(graph.atom_mask[:, None], (multipoles - without) ** 2, 0.0), axis=0
        )

    found = [(squares(parameters, graph), np.sum(graph.atom_mask)) for graph in batches]
    mean = sum(np.asarray(it[0]) for it in found) / sum(it[1] for it in found)
    for degree, pattern in family.sources.items():
        width = float(np.sqrt(np.sum(mean[degree**2 : (degree + 1) ** 2])))
        if width > 0.0:
            what = f"multipoles of degree {degree}" if degree else "charges"
            logger.info(
                "Root mean square of %s: %.3g e Å^%d drawn, %.3g to start",
                what,
                width,
                degree,
                charge,
            )
            parameters = _scaled(parameters, pattern, charge / width)
    return parameters


def compare(
    start: StartModel,
    settings: ModelSettings,
    parameters: Parameters,
    configurations: Sequence[Configuration],
) -> tuple[float, float]:
    """Tell how far the new model is from the start model before the first step.

    Args:
        settings: of the new model.
        parameters: of the new model.
        configurations: structures to compare on.

    Returns:
        Largest difference of interaction energies in eV/atom, and of force components in eV/Å.
    """
    _, shift = start.scale_and_shift(settings.family)
    before = start.predicted(configurations)
    new = Model(settings, jax.tree.map(np.asarray, parameters))
    after = new.predict_structures([new.prepare(it) for it in configurations])
    energy = force = 0.0
    for one, other in zip(before, after, strict=True):
        atoms = len(one["forces"])
        change = float(other["interaction_energy"] - one["interaction_energy"]) / atoms + shift
        energy = max(energy, abs(change))
        force = max(force, float(np.max(np.abs(other["forces"] - one["forces"]))))
    logger.log(
        logging.WARNING if energy > LARGEST_CHANGE else logging.INFO,
        "Before the first step the new model differs from the start model by up to %.3g meV/atom "
        "and %.3g meV/Å (%d training structures)",
        1e3 * energy,
        1e3 * force,
        len(configurations),
    )
    return energy, force


def _scaled(parameters: Parameters, pattern: str, factor: float) -> Parameters:
    """The parameters with those of a pattern multiplied by a factor."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: factor * leaf if re.match(pattern, parameter_name(path)) else leaf,
        parameters,
    )
