"""A trained model, ready to predict, alone or as one of several."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Unpack

import ase
import jax
import numpy as np

from mace_scf_jax.data.batching import IndexedBatch, batches_by_size
from mace_scf_jax.data.cells import coulomb_cell
from mace_scf_jax.data.configuration import Configuration, from_atoms
from mace_scf_jax.data.errors import NO_FILE, DataError, Location
from mace_scf_jax.data.keys import KeySpecification, keys_in_use, specification
from mace_scf_jax.data.properties import GRAPH_INPUTS
from mace_scf_jax.data.reading import ReadStructures, to_configurations
from mace_scf_jax.data.structure import Structure, prepare
from mace_scf_jax.dispersion import with_pair_images
from mace_scf_jax.electrostatics import (
    BoundaryError,
    SummationMethod,
    check_pbc,
    check_slab_cell,
    choose_mesh,
    choose_open_mesh,
)
from mace_scf_jax.graph import Graph
from mace_scf_jax.models import (
    DirectStep,
    InitialDensity,
    InitialFermiLevel,
    ModelSettings,
    SelfConsistency,
    build,
    check_inputs,
    evaluate,
    required_inputs,
)
from mace_scf_jax.models.description import headline
from mace_scf_jax.models.model_file import load_model_file, save_model
from mace_scf_jax.models.one_head import (
    parameters_of_head,
    place_of_head,
    settings_of_head,
)
from mace_scf_jax.predict.distances import DistanceWatch
from mace_scf_jax.predict.prediction import Prediction
from mace_scf_jax.predict.predictor import Predictor
from mace_scf_jax.predict.suitability import warn_about
from mace_scf_jax.predict.surplus import warn_of_field
from mace_scf_jax.predict.use import (
    DISPERSION_OPTIONS,
    SURPLUS,
    Options,
    cast,
    check_head,
    device_named,
    refuse_unknown,
    with_dispersion,
    with_electrostatics,
)
from mace_scf_jax.runtime import refuse_wrong_numbers

REFERENCE_MULTIPOLES = "atomic_multipoles"
"""Name of the label that multipoles may start from."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Model(Predictor[Prediction]):
    """A model with its parameters."""

    settings: ModelSettings
    parameters: dict[str, Any]
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    """How the model was made."""
    scf: SelfConsistency | DirectStep | None = None
    """How the multipoles of a self-consistent model are solved for; None for the default, which is
    the given total charge, the automatic choice of a solver, and a search that starts from the
    local multipoles and the Fermi level offset of the model. `DirectStep` for predictions that
    start and end at the reference multipoles of the data. Other models have none."""
    given_keys: KeySpecification | None = None
    """Keys of inputs and labels in place of those of the training, name by name."""
    device: str | None = None
    """Name of the device that computes; None for the default one of JAX."""

    def __post_init__(self) -> None:
        if not self.is_self_consistent and self.scf is not None:
            raise ValueError(
                f"scf: expected no settings of a self-consistent cycle for a model of the family "
                f"{self.settings.family}, found some"
            )
        if self.is_self_consistent and self.scf is None:
            object.__setattr__(self, "scf", self.settings.of_family.solve.default)
        if self.device is not None:
            placed = jax.device_put(self.parameters, device_named(self.device))
            object.__setattr__(self, "parameters", placed)

    def __repr__(self) -> str:
        """One line; `mace-scf-jax info` shows all that a model file holds."""
        return headline(self.settings, self.parameters, self.record)

    def __setstate__(self, fields: dict[str, Any]) -> None:
        """Make a copy from what `__getstate__` gave."""
        self.__init__(**fields)

    def __getstate__(self) -> dict[str, Any]:
        """What copies have: all but the compiled function."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def members(self) -> tuple[Model]:
        """The model itself."""
        return (self,)

    @property
    def names(self) -> tuple[str]:
        """Nothing, because there is only one."""
        return ("",)

    def combine(self, predictions: Sequence[Prediction]) -> Prediction:
        """The outputs as they are."""
        return predictions[0]

    def separate(self, predicted: Prediction) -> Sequence[Prediction]:
        """The outputs as they are."""
        return (predicted,)

    @property
    def is_self_consistent(self) -> bool:
        """Whether the multipoles of the model answer the potential that they cause."""
        return self.settings.of_family.is_self_consistent

    @property
    def keeps_total_charge(self) -> bool:
        """Whether charges are to add up to the total charge of the structure, unlike at constant
        Fermi level."""
        charged = self.settings.electrostatics is not None
        return charged and (self.scf is None or getattr(self.scf, "constant_charge", False))

    @property
    def dtype(self) -> np.dtype:
        """Precision of the parameters, in which the model computes."""
        return np.dtype(jax.tree.leaves(self.parameters)[0].dtype)

    @functools.cached_property
    def _told(self) -> set[type[Warning]]:
        """Kinds of warnings about structures that there were."""
        return set()

    @functools.cached_property
    def distances(self) -> DistanceWatch:
        """What warns of atoms that are too close."""
        return DistanceWatch(self.settings)

    @functools.cached_property
    def keys(self) -> KeySpecification:
        """Where inputs and labels are found: by given keys, then by those of the training."""
        return keys_in_use(self.record.get("heads"), self.given_keys)

    @functools.cached_property
    def input_keys(self) -> KeySpecification:
        """Where all that the model reads of a structure is found."""
        labels = (REFERENCE_MULTIPOLES,) if self.reads_labels else ()
        return self.keys.only((*GRAPH_INPUTS, *required_inputs(self.settings), *labels))

    def read(self, atoms: ase.Atoms, location: Location = NO_FILE) -> Configuration:
        """What the model reads of a structure.

        Args:
            location: of the structure, for messages.

        Raises:
            DataError: the structure cannot be used.
        """
        density = self.settings.electrostatics
        return from_atoms(
            atoms,
            keys=self.input_keys,
            multipoles_max_l=0 if density is None else density.max_l,
            location=location,
        )

    def read_labelled(self, read: ReadStructures) -> list[Configuration]:
        """What the model reads of structures of a file, with their labels.

        Raises:
            DataError: a structure cannot be used.
        """
        density = self.settings.electrostatics
        max_l = 0 if density is None else density.max_l
        return to_configurations(read, self.keys, multipoles_max_l=max_l)

    def using(self, **options: Unpack[Options]) -> Model:
        """The same model, used in another way; see `Predictor.using`."""
        refuse_unknown("options of a model", options)
        given = {name: value for name, value in options.items() if value is not None}
        if (head := given.pop("head", None)) is not None:
            if self.settings.heads:
                return self.of_head(head).using(**given)
            check_head(head, self.record.get("heads"))
        if "dtype" in given:
            given["parameters"] = cast(self.parameters, given.pop("dtype"))
        if "keys" in given:
            given["given_keys"] = specification(given.pop("keys"))
        electrostatics = ("sums", "mesh_accuracy", "pbc_handling", "eps_infty", "keep_neutral")
        changes = {name: given.pop(name) for name in electrostatics if name in given}
        if changes:
            given["settings"] = with_electrostatics(self.settings, **changes)
        of_dispersion = {name: given.pop(name) for name in DISPERSION_OPTIONS if name in given}
        if of_dispersion:
            given["settings"] = with_dispersion(
                given.get("settings", self.settings), **of_dispersion
            )
        surplus = given.pop("surplus", None)
        used = dataclasses.replace(self, **given) if given else self
        return used if surplus is None else used.with_surplus(surplus)

    @functools.cached_property
    def evaluate(self) -> Callable[..., dict[str, jax.Array]]:
        """Compiled ``evaluate(parameters, graph, start=None, forces=True, stress=False,
        further=())``.

        The outputs of one batch. ``start``, an `SCFState`, is where a self-consistent model starts
        to solve; `SCFState.of` makes the one of the next geometry of the outputs.
        """
        return _compiled(self.settings, self.scf)

    def prepare(
        self, configuration: Configuration, *, skin: float = 0.0, largest_strain: float = 0.0
    ) -> Structure:
        """Edges and reciprocal vectors, or the mesh, of a structure.

        Args:
            skin: length in Å by which edges may be longer than the model's cutoff.
            largest_strain: range of cells that reciprocal vectors or mesh serve, as for
                `mace_scf_jax.data.reciprocal.half_space_indices`.

        Raises:
            DataError: it has an element that the model lacks, lacks an input that the model needs
                (such as the Fermi level where that is to be kept), or has coinciding atoms or no
                volume along a periodic direction.
            BoundaryError: its periodicity is not one that the model's electrostatics treats, or it
                is a slab that does not lie in the xy plane where that matters.
            MeshError: a mesh is asked for, and the boundary is open or the accuracy out of reach.
        """
        if self.settings.electrostatics is not None:
            try:
                boundary = self.settings.electrostatics.boundary
                check_pbc(configuration.pbc, boundary)
                check_slab_cell(configuration.cell, configuration.pbc, boundary)
            except BoundaryError as error:
                raise BoundaryError(f"{configuration.location}: {error}") from None
        check_inputs(self.settings, configuration)
        self._check_initial_state(configuration)
        warn_of_field(self.settings, configuration)
        warn_about(self.settings, configuration, self._told)
        mesh = open_mesh = None
        if self.settings.electrostatics is not None:
            cell, repeat = coulomb_cell(
                configuration.positions,
                configuration.cell,
                configuration.pbc,
                self.settings.tails,
            )
            if math.isinf(repeat):
                open_mesh = choose_open_mesh(self.settings.electrostatics, configuration.positions)
            else:
                mesh = choose_mesh(
                    self.settings.electrostatics,
                    cell,
                    configuration.num_atoms,
                    largest_strain=largest_strain,
                )
        return prepare(
            configuration,
            elements=self.settings.elements,
            cutoff=self.settings.backbone.r_max + skin,
            kspace_cutoff=self.settings.kspace_cutoff,
            tails=self.settings.tails,
            largest_strain=largest_strain,
            mesh=mesh,
            open_mesh=open_mesh,
        )

    def batches(
        self, structures: Sequence[Structure], *, batch_size: int = 64, labels: bool = False
    ) -> Iterator[IndexedBatch]:
        """Batches of prepared structures in the model's precision."""
        found = batches_by_size(
            structures, batch_size=batch_size, layout="per_atom", dtype=self.dtype, labels=labels
        )
        for indices, graph in found:
            yield IndexedBatch(indices, with_pair_images(graph, self.settings.dispersion))

    def inputs_of(self, graph: Graph) -> Graph:
        """A batch without the labels that the model does not read."""
        read = (REFERENCE_MULTIPOLES,) if self.reads_labels else ()
        return graph.replace(labels={name: graph.labels[name] for name in read}, weights={})

    def with_sums(
        self, sums: SummationMethod | str | None, *, mesh_accuracy: float | None = None
    ) -> Model:
        """The same model with its electrostatic sums done in another way; see `using`."""
        return self.using(sums=sums, mesh_accuracy=mesh_accuracy)

    def with_surplus(self, place: str) -> Model:
        """The same model with another meaning of predicted charge beyond the total charge.

        Args:
            place: ``origin``, the dipole is about the origin, as in models from before there was a
                choice; ``centre``, that of the surplus is about the centre of the atoms; or
                ``uniform``, all atoms give up the same, so that none is left.

        Raises:
            ValueError: there is no such place, or the charges of the family add up to the total
                charge already.
        """
        if place not in SURPLUS:
            raise ValueError(f"surplus: expected {', '.join(SURPLUS)}, found {place!r}")
        own = self.settings.own.with_surplus(uniform=place == "uniform")
        density = dataclasses.replace(self.settings.density, surplus_at_centre=place != "origin")
        settings = dataclasses.replace(self.settings, electrostatics=density, own=own)
        return dataclasses.replace(self, settings=settings)

    def of_head(self, name: str) -> Model:
        """Return the model of one of several heads, which is one like any other.

        Args:
            name: of the head.

        Raises:
            ValueError: there is no such head.
        """
        place = place_of_head(self.settings.heads, name)
        keys = self.record.get("heads", {}).get(name)
        record = self.record
        if keys is not None:
            own = {member: keys[member] for member in ("info_keys", "arrays_keys")}
            record = {**record, "heads": {name: own}}
        return dataclasses.replace(
            self,
            settings=settings_of_head(self.settings, place),
            parameters=parameters_of_head(self.parameters, self.settings, place),
            record=record,
        )

    def save(self, path: str | Path) -> None:
        """Write a model file."""
        save_model(path, self.parameters, self.settings, self.record)

    @property
    def reads_labels(self) -> bool:
        """Whether multipoles start from the reference multipoles of a batch."""
        if self.scf is None or isinstance(self.scf, DirectStep):
            return self.scf is not None
        return self.scf.initial_density is InitialDensity.FROM_DATA

    def _check_initial_state(self, configuration: Configuration) -> None:
        """Refuse a structure without what the self-consistent cycle is to start from or keep."""
        if self.scf is None:
            return
        reasons = {}
        if isinstance(self.scf, DirectStep):
            reasons = dict.fromkeys((REFERENCE_MULTIPOLES, "fermi_level"), "the mode direct")
        else:
            if self.reads_labels:
                reasons[REFERENCE_MULTIPOLES] = "initial_density: from_data"
            keeps_level = not self.scf.constant_charge
            if keeps_level and self.scf.initial_fermi_level is InitialFermiLevel.FROM_DATA:
                reasons["fermi_level"] = (
                    "constant_charge: false, which keeps the Fermi level of the data"
                )
        for name, reason in reasons.items():
            if name not in configuration.present:
                raise DataError(
                    f"{configuration.location}: expected {name} for {reason}, found none"
                )


@functools.lru_cache(maxsize=16)
def _compiled(
    settings: ModelSettings, scf: SelfConsistency | DirectStep | None
) -> Callable[..., dict[str, jax.Array]]:
    """The compiled function of all models with the same settings, whatever their parameters."""
    module = build(settings)

    @functools.partial(jax.jit, static_argnames=("forces", "stress", "further"))
    def compiled(parameters, graph, start=None, *, forces=True, stress=False, further=()):
        outputs = evaluate(
            module, parameters, graph, how=scf, start=start, forces=forces, stress=stress
        )
        described = settings.backbone.describe(graph) if further else {}
        return outputs | {name: described[name] for name in further}

    return compiled


def load_model(path: Model | str | Path, **options: Unpack[Options]) -> Model:
    """A model, ready to be used as options say.

    Args:
        path: a file written by training or `Model.save`; or a model.
        options: how the model is used, see `Options`.

    Raises:
        ModelFileError: the file is missing, damaged or written by a newer version.
        TypeError: there is no such option.
        ValueError: the settings of the file describe no model of this version, or an option makes
            no sense for the model.
        UnsupportedJaxError: the installed JAX computes wrong numbers.
    """
    refuse_unknown("load_model", options)
    refuse_wrong_numbers()
    if isinstance(path, Model):
        return path.using(**options)
    content = load_model_file(path)
    settings = ModelSettings.of_file(content)
    return Model(settings, content.parameters, content.record).using(**options)
