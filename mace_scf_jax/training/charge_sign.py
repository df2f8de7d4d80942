"""The sign of charges that energies and forces leave open, settled after training by a rule.

Charges q and -q have the same Coulomb energy. Where the data tell nothing else about them, chance
decides which of the two a training finds. The rule: electronegative elements are negative. With the
mean charge q_z of each element z over training structures, its electronegativity χ_z on Pauling's
scale, and its share of the atoms as its weight,

    cov(q_z, χ_z) ≤ 0,

where a Born charge, a third of its trace, counts in place of the charge if atoms have dipoles too
and nothing is solved for: dipoles may hold most of what an atom is charged with. Or else the
parameters are replaced by those of the opposite charges, which differ in the sign of
the last maps that charges are read with (`Family.mirror`). That they are the opposite charges, and
that energies and losses stay as they are, is looked at before. If not, the data tell the sign, by
total charges, fields or formal charges, or the family does not allow the change.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Array, Float

from mace_scf_jax.data.batching import BatchLoader
from mace_scf_jax.data.electronegativities import ELECTRONEGATIVITY
from mace_scf_jax.graph import Graph
from mace_scf_jax.messages import FILES_ONLY
from mace_scf_jax.models import ModelSettings, build
from mace_scf_jax.models.response import dipole_response
from mace_scf_jax.training.loop.devices import rows_of_all_processes
from mace_scf_jax.training.loop.schedule import Stage
from mace_scf_jax.training.loop.steps import scalars
from mace_scf_jax.training.loop.validation import Validator
from mace_scf_jax.training.losses import LOSSES
from mace_scf_jax.training.optimise.low_rank import merged
from mace_scf_jax.training.optimise.parameter_groups import Parameters, parameter_name

logger = logging.getLogger(__name__)

SILENT_LABELS = frozenset(
    {"energy", "forces", "stress", "virials", "polarizability", "total_charge", "molID"}
)
"""Labels that are the same for opposite charges; total charges if they are zero."""
BATCHES = 32
"""Training batches on which charges are measured."""
SAME_ENERGY = 1e-5
"""eV/atom."""
SAME = 1e-3
"""Relative to the largest charge, and to a term of the loss."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A model and the one of the opposite charges, on the same structures."""

    mean_charges: Mapping[int, float]
    """Of each element that occurs, by atomic number, in e."""
    shares: Mapping[int, float]
    """Of each of these among the atoms."""
    of_born: bool
    """Whether the mean charges are Born charges."""
    is_mirrored: bool
    """Whether the other has the opposite multipoles, the same energies and the same losses."""

    @property
    def covariance(self) -> float | None:
        """Of mean charges and electronegativities in e; None for fewer than two elements that have
        one."""
        known = [z for z in self.mean_charges if z in ELECTRONEGATIVITY]
        if len(known) < 2:
            return None
        weights = np.array([self.shares[z] for z in known])
        weights /= weights.sum()
        charges = np.array([self.mean_charges[z] for z in known])
        pull = np.array([ELECTRONEGATIVITY[z] for z in known])
        return float(weights @ ((charges - weights @ charges) * (pull - weights @ pull)))

    def describe(self) -> str:
        """Mean charges in words."""
        told = (f"{chemical_symbols[z]} {charge:+.3f}" for z, charge in self.mean_charges.items())
        kind = "Born charges" if self.of_born else "charges"
        return f"mean {kind} {', '.join(told)} e"


def labels_that_tell(stages: Sequence[Stage], labels: Mapping[str, int]) -> tuple[str, ...]:
    """Name the labels of losses that tell the sign of charges.

    Args:
        stages: of the run.
        labels: structures of the training set with a label, by its name.
    """
    read = {label for stage in stages for name in stage.loss for label in LOSSES[name].labels}
    return tuple(sorted(label for label in read - SILENT_LABELS if labels.get(label)))


def mirrored(settings: ModelSettings, parameters: Parameters) -> Parameters | None:
    """Return the parameters of the opposite charges; None for families that have none such."""
    if settings.of_family.mirror is None:
        return None
    pattern = re.compile(settings.of_family.mirror.replace("LAST", settings.backbone.last_map))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: -leaf if pattern.match(parameter_name(path)) else leaf, parameters
    )


def with_settled_sign(
    settings: ModelSettings,
    parameters: Parameters,
    loader: BatchLoader,
    *,
    stage: Stage,
    stages: Sequence[Stage],
    labels: Mapping[str, int],
    validator: Validator,
) -> Parameters:
    """Return the parameters, or those of the opposite charges if the rule wants them.

    Args:
        settings: of a model with charges.
        parameters: the best of a stage.
        loader: of the training set.
        stage: in which the model is used as in this one.
        stages: of the run.
        labels: structures of the training set with a label, by its name.
        validator: what predicts.
    """
    telling = labels_that_tell(stages, labels)
    if telling:
        logger.info(
            "Stage %s: sign of the charges as trained, by labels of %s",
            *(stage.name, ", ".join(telling)),
            extra=FILES_ONLY,
        )
        return parameters
    plain = merged(parameters)
    opposite = mirrored(settings, plain)
    found = compare(settings, (plain, opposite or plain), loader, stage, validator)
    covariance = found.covariance
    if covariance is None or covariance == 0.0:
        reason = "as trained, which no two elements of different charge tell"
    elif found.is_mirrored and covariance > 0.0:
        logger.info(
            "Stage %s: sign of the charges exchanged, so that electronegative elements are "
            "negative (before: %s); energies and forces stay as they are",
            *(stage.name, found.describe()),
        )
        return opposite or parameters
    elif found.is_mirrored:
        reason = "as trained, negative on electronegative elements"
    elif covariance > 0.0:
        reason = (
            "as trained, positive on electronegative elements; it cannot be exchanged without a "
            "change of energies or losses"
        )
    else:
        reason = "as trained, by data or family"
    logger.info("Stage %s: sign of the charges %s (%s)", stage.name, reason, found.describe())
    return parameters


def compare(
    settings: ModelSettings,
    pair: tuple[Parameters, Parameters],
    loader: BatchLoader,
    stage: Stage,
    validator: Validator,
) -> Comparison:
    """Compare a model with that of the opposite charges.

    Args:
        pair: parameters of both; twice the same if there is no other.
        loader: of structures, of which some batches all over the set are taken.
        stage: in which both are used, and whose losses are compared.
        validator: what predicts.
    """
    steps, mode = validator.steps, validator.modes(stage)
    weights = scalars(stage.loss, validator.dtype)
    indices = loader.batch_indices(0)
    spaced = indices[:: max(1, len(indices) // BATCHES)]
    sums = np.zeros((len(settings.elements), 2))
    deviations, losses_agree = np.zeros(3), True
    born = _isotropic_born_charges(settings)
    measured_sizes = None
    for graph in loader.batches(spaced):
        predictions = [steps.predict(mode, parameters, graph) for parameters in pair]
        one, two = (
            jax.device_get(steps.loss(it, graph, weights, stage.loss_options).terms)
            for it in predictions
        )
        losses_agree &= all(np.isclose(one[name], two[name], rtol=SAME, atol=1e-12) for name in one)
        for own, mirror, batch in steps.devices.parts((*predictions, graph)):
            real = np.asarray(batch.atom_mask)
            deviations = np.maximum(deviations, _deviations(own, mirror, batch))
            sizes = [np.shape(leaf) for leaf in jax.tree.leaves(batch)]
            measured_sizes = measured_sizes or sizes
            if born is None:
                charges = np.asarray(own["multipoles"])[real, 0]
            elif sizes == measured_sizes:  # one size, so that one function is compiled
                charges = np.asarray(born(jax.device_get(pair[0]), batch))[real]
            else:
                continue
            species = np.asarray(batch.species)[real]
            np.add.at(sums, species, np.stack([charges, np.ones_like(charges)], axis=1))
    sums = rows_of_all_processes(sums[None]).sum(axis=0)
    energy, multipole, largest = rows_of_all_processes(deviations[None]).max(axis=0)
    present = np.flatnonzero(sums[:, 1])
    return Comparison(
        {settings.elements[row]: float(sums[row, 0] / sums[row, 1]) for row in present},
        {settings.elements[row]: float(sums[row, 1] / sums[:, 1].sum()) for row in present},
        of_born=born is not None,
        is_mirrored=bool(losses_agree and energy < SAME_ENERGY and multipole <= SAME * largest),
    )


def _isotropic_born_charges(
    settings: ModelSettings,
) -> Callable[[Parameters, Graph], Float[Array, "atoms"]] | None:
    """Return the compiled function for a third of the traces in e; None where charges will do."""
    if settings.density.max_l == 0 or settings.of_family.is_self_consistent:
        return None
    module = build(settings)

    @jax.jit
    def charges(parameters: Parameters, graph: Graph) -> Float[Array, "atoms"]:
        of_atoms = dipole_response(module, parameters, graph).born_charges
        return jnp.trace(of_atoms, axis1=1, axis2=2) / 3.0

    return charges


def _deviations(own: Mapping[str, Any], mirror: Mapping[str, Any], batch: Any) -> np.ndarray:
    """Largest change of the energy in eV/atom; largest sum of both multipoles, and of one."""
    real, atoms = np.asarray(batch.graph_mask), np.asarray(batch.atom_mask)
    number = np.bincount(np.asarray(batch.atom_graph)[atoms], minlength=len(real))[real]
    change = np.abs(np.asarray(own["energy"])[real] - np.asarray(mirror["energy"])[real])
    one, two = (np.asarray(it["multipoles"])[atoms] for it in (own, mirror))
    return np.array(
        [
            np.max(change / np.maximum(number, 1), initial=0.0),
            np.max(np.abs(one + two), initial=0.0),
            np.max(np.abs(one), initial=0.0),
        ]
    )
