"""What predicts structures in batches: a model, or several together."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack

import ase
import jax
import numpy as np

from mace_scf_jax.data.errors import DataError, Location
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.graph import Graph
from mace_scf_jax.models.meaning import meaningful
from mace_scf_jax.predict.convergence import NotConverged, check_policy, report_convergence
from mace_scf_jax.predict.prediction import Prediction, split_outputs, state_of_batch
from mace_scf_jax.predict.surplus import warn_of_surplus
from mace_scf_jax.predict.use import OF_MODULES, Options, check_further, no_attribute

if TYPE_CHECKING:
    from mace_scf_jax.predict.model import Model

P = TypeVar("P")
"""What is predicted for a structure."""

Observer = Callable[[np.ndarray, Graph, Sequence[Mapping[str, np.ndarray]]], None]
"""Sees positions of structures, the batch of them with labels, and outputs of every member."""

Notify = Callable[[int, int], None]
"""Told how many structures are done, and of how many."""


class Predictor(abc.ABC, Generic[P]):
    """Members that predict the same structures; a model is its own and only member."""

    members: tuple[Model, ...]
    names: tuple[str, ...]
    """What messages call each member; empty where there is one."""

    @abc.abstractmethod
    def combine(self, predictions: Sequence[Prediction]) -> P:
        """What is predicted from the outputs of every member, of a structure or of a batch."""

    @abc.abstractmethod
    def separate(self, predicted: P) -> Sequence[Prediction]:
        """The outputs of every member that were combined."""

    @abc.abstractmethod
    def using(self, **options: Unpack[Options]) -> Predictor[P]:
        """The same, used in another way.

        Args:
            options: see `Options`.

        Raises:
            TypeError: there is no such option.
            ValueError: there is no such way, or the model does not have it.
        """

    def __getattr__(self, name: str) -> Any:
        """Refuse an attribute that there is not.

        Raises:
            AttributeError: says what there is in place of those of PyTorch's modules.
        """
        raise no_attribute(self, name, OF_MODULES)

    def __call__(self, *arguments: Any, **named: Any) -> None:
        """Refuse to be called as PyTorch's modules are.

        Raises:
            TypeError: says what to do instead.
        """
        raise TypeError(f"{type(self).__name__}: it is not called; .predict(atoms) computes")

    @property
    def first(self) -> Model:
        """The first member, which stands for what all members have in common."""
        return self.members[0]

    def prepare_atoms(self, atoms: Sequence[ase.Atoms]) -> list[Structure]:
        """Structures with edges and reciprocal vectors.

        Args:
            atoms: structures; the inputs of the model are read from their ``info`` and ``arrays``.

        Raises:
            DataError: a structure cannot be used.
            BoundaryError: a structure's periodicity does not fit the model's electrostatics.
        """
        return [
            self.first.prepare(self.first.read(entry, Location(None, index)))
            for index, entry in enumerate(atoms)
        ]

    def predict(
        self,
        atoms: ase.Atoms | Sequence[ase.Atoms],
        *,
        forces: bool = True,
        stress: bool = False,
        batch_size: int = 64,
        start: P | Sequence[P] | None = None,
        not_converged: NotConverged = "warn",
        further: Sequence[str] = (),
        **options: Unpack[Options],
    ) -> P | list[P]:
        """Predict one structure or several.

        Args:
            atoms: structures; the inputs of the model are read from their ``info`` and ``arrays``.
            stress: whether to compute stress and virials.
            batch_size: most structures evaluated together.
            start: earlier predictions of structures of the same atoms, from whose ``multipoles``
                and ``fermi_level`` a self-consistent model starts to solve.
            not_converged: what to do about structures whose multipoles were not found.
            further: names of outputs that are given only if asked for, such as "descriptors".
            options: how the model is used, see `Options`.

        Returns:
            A prediction for each structure; a single one for a single structure.

        Raises:
            DataError: a structure cannot be used, or what it is to start from is of other atoms.
            BoundaryError: a structure's periodicity does not fit the model's electrostatics.
            NotConvergedError: a structure did not converge, and ``not_converged`` is "raise".
            ValueError: the model does not have a further output.
        """
        is_single, used = isinstance(atoms, ase.Atoms), self.using(**options)
        predictions = used.predict_structures(
            used.prepare_atoms([atoms] if is_single else atoms),
            forces=forces,
            stress=stress,
            batch_size=batch_size,
            start=[start] if is_single and start is not None else start,
            not_converged=not_converged,
            further=further,
        )
        return predictions[0] if is_single else predictions

    def predict_structures(
        self,
        structures: Sequence[Structure],
        *,
        forces: bool = True,
        stress: bool = False,
        batch_size: int = 64,
        start: Sequence[P] | None = None,
        not_converged: NotConverged = "warn",
        further: Sequence[str] = (),
        observe: Observer | None = None,
        notify: Notify | None = None,
    ) -> list[P]:
        """Predict prepared structures, in batches of similar size; see `predict`.

        Args:
            observe: is called with every batch and its outputs.
            notify: is called after every batch.
        """
        check_policy(not_converged)
        for model in self.members:
            check_further(model.settings, further)
        if start is not None and len(start) != len(structures):
            raise DataError(
                f"start: expected one prediction for each of {len(structures)} structures, found "
                f"{len(start)}"
            )
        own: list[Sequence[Prediction]] = [() for _ in structures]
        done = 0
        labels = observe is not None or any(model.reads_labels for model in self.members)
        for indices, graph in self.first.batches(structures, batch_size=batch_size, labels=labels):
            starts = [None] * len(self.members)
            if start is not None:
                by_structure = [self.separate(start[index]) for index in indices]
                starts = [state_of_batch(parts, graph) for parts in zip(*by_structure, strict=True)]
            outputs = [
                jax.device_get(
                    model.evaluate(
                        model.parameters,
                        model.inputs_of(graph),
                        state,
                        forces=forces,
                        stress=stress,
                        further=tuple(further),
                    )
                )
                for model, state in zip(self.members, starts, strict=True)
            ]
            if observe is not None:
                observe(indices, graph, outputs)
            done += len(indices)
            if notify is not None:
                notify(done, len(structures))
            parts = zip(*(split_outputs(values, graph) for values in outputs), strict=True)
            for index, predictions in zip(indices, parts, strict=True):
                geometry = structures[index].configuration
                own[index] = [
                    meaningful(model.settings, prediction, geometry.pbc, geometry.cell)
                    for model, prediction in zip(self.members, predictions, strict=True)
                ]
        locations = [entry.configuration.location for entry in structures]
        for name, predictions in zip(self.names, zip(*own, strict=True), strict=False):
            report_convergence(predictions, locations, not_converged=not_converged, of=name)
        for model, name, predictions in zip(
            self.members, self.names, zip(*own, strict=True), strict=False
        ):
            if model.keeps_total_charge:
                warn_of_surplus(predictions, structures, of=name)
        self.first.distances.look_at_all([predictions[0] for predictions in own], structures)
        return [self.combine(predictions) for predictions in own]
