"""Import of potentials of ænet, export of models for it, and comparison."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import ase
import jax
import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Array, DTypeLike, Float, Int

from mace_scf_jax.aenet.conversion import model_of, potentials_of
from mace_scf_jax.aenet.files import read_potential
from mace_scf_jax.aenet.plain import plain_energy
from mace_scf_jax.aenet.potential import AenetFileError, ElementPotential
from mace_scf_jax.aenet.text import write_text
from mace_scf_jax.backbones import ChebyshevSettings
from mace_scf_jax.backbones.chebyshev.networks import ElementNetworks
from mace_scf_jax.dispersion.settings import refuse_dispersion
from mace_scf_jax.files import write_whole
from mace_scf_jax.predict.committee import Committee
from mace_scf_jax.predict.model import Model

PREFIX = "potential"
_TRIALS = 32
"""Atoms of each element on which what was written is compared."""
_LARGEST_DEVIATION = 1e-9
"""eV per atom, relative to the largest energy of the networks if that is above 1 eV."""
_MANY_DEVIATIONS = 1e6
"""Ratio of mean and deviation of a feature above which rounding of the feature itself counts."""


def import_potential(paths: Sequence[str | Path], *, dtype: DTypeLike = np.float64) -> Model:
    """Return the model that files of ænet describe, one for each element.

    Energies, forces and stress are those of ænet. E0, S and e_0 are those of the file of each
    element.

    Args:
        paths: text (``.nn.ascii``) or binary files (``.nn``).
        dtype: precision of the parameters.

    Raises:
        AenetFileError: a file cannot be used, an element is missing or comes twice, or the files
            have different descriptors.
    """
    if not paths:
        raise AenetFileError("expected files of ænet, one for each element, found none")
    model = model_of([read_potential(path) for path in paths], dtype)
    names = ", ".join(Path(path).name for path in paths)
    return dataclasses.replace(model, record={"imported_from": names} | model.record)


@dataclasses.dataclass(frozen=True)
class EnergyDeviation:
    """How far the energy of a model is from that of the formulas."""

    formula: str
    num_atoms: int
    energy: float
    """Absolute deviation in eV."""

    def passes(self, tolerance: float) -> bool:
        """Return whether the deviation per atom in eV is at most the tolerance."""
        return self.energy <= tolerance * self.num_atoms


def compare_with_formulas(
    model: Model, paths: Sequence[str | Path], structures: Sequence[ase.Atoms]
) -> list[EnergyDeviation]:
    """Return deviations of a model from the files that it was imported from.

    The files are evaluated as their formulas stand, with a sum over all pairs of neighbours.

    Args:
        paths: the files.
        structures: to predict.

    Raises:
        AenetFileError: a file cannot be used.
        DataError: a structure cannot be used.
    """
    potentials = {each.element: each for each in map(read_potential, paths)}
    prepared = model.prepare_atoms(structures)
    predictions = model.predict(list(structures), forces=False)
    return [
        EnergyDeviation(
            formula=atoms.get_chemical_formula(),
            num_atoms=len(atoms),
            energy=abs(float(prediction["energy"]) - plain_energy(structure, potentials)),
        )
        for atoms, prediction, structure in zip(structures, predictions, prepared, strict=True)
    ]


def export_potential(model: Model, folder: str | Path, *, prefix: str = PREFIX) -> list[Path]:
    """Write a model as files ``<prefix>.<element>.nn.ascii`` of ænet.

    They are read again, and energies of atoms are compared with those of the model, before they get
    their names.

    Args:
        folder: made if there is none. Files of the same names are replaced.
        prefix: start of the names.

    Returns:
        The paths.

    Raises:
        AenetFileError: the family has charges, or what was written is not the model.
        DispersionError: the model has a dispersion.
        OSError: a file cannot be written.
    """
    refuse_dispersion(model.settings.dispersion, "ænet")
    folder, potentials = Path(folder), potentials_of(model)
    if not prefix or Path(prefix).name != prefix:
        raise AenetFileError(f"prefix: expected the start of a name of files, found {prefix!r}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{prefix}.{chemical_symbols[each.element]}.nn.ascii" for each in potentials]
    with contextlib.ExitStack() as stack:
        partial = [stack.enter_context(write_whole(path)) for path in paths]
        for path, potential in zip(partial, potentials, strict=True):
            write_text(path, potential)
        _check(model, [read_potential(path) for path in partial])
    return paths


def export_committee(
    committee: Committee, folder: str | Path, *, prefix: str = PREFIX
) -> list[Path]:
    """Write all members of a committee, each into a folder ``member_000``, ``member_001``, ….

    Args:
        folder, prefix: as for `export_potential`.

    Returns:
        The paths of all files.

    Raises:
        AenetFileError: as for `export_potential`.
    """
    return [
        path
        for number, member in enumerate(committee.members)
        for path in export_potential(member, Path(folder) / f"member_{number:03d}", prefix=prefix)
    ]


def _check(model: Model, written: Sequence[ElementPotential]) -> None:
    """Refuse files that do not describe the model.

    Raises:
        AenetFileError: descriptor, networks or energies differ.
    """
    backbone, read = model.settings.backbone, model_of(written).settings
    assert isinstance(backbone, ChebyshevSettings)
    assert isinstance(read.backbone, ChebyshevSettings)
    same = read.backbone.descriptor == backbone.descriptor and read.backbone.arch == backbone.arch
    if not same:
        raise AenetFileError("files of ænet: read back, descriptor or networks are not the model's")
    features, species = _trial_features(backbone)
    tolerance = _LARGEST_DEVIATION * _rounding(backbone)
    expected = _energies(model, features, species)
    for index, potential in enumerate(sorted(written, key=lambda each: each.element)):
        own = species == index
        isolated = model.settings.atomic_energies[index]
        largest = max(1.0, float(np.max(np.abs(expected[own] - isolated))))
        deviation = float(np.max(np.abs(potential.energies(features[own]) - expected[own])))
        if not deviation <= tolerance * largest:
            raise AenetFileError(
                f"files of ænet: read back, energies of {chemical_symbols[potential.element]} "
                f"deviate by {deviation:.1e} eV from those of the model, expected at most "
                f"{tolerance * largest:.0e} eV"
            )


def _rounding(backbone: ChebyshevSettings) -> float:
    """Factor by which normalisation makes the rounding of features larger, at least 1."""
    if backbone.features is None:
        return 1.0
    centre, scale = backbone.features.centre_and_scale()
    return max(1.0, float(np.max(np.abs(centre * scale))) / _MANY_DEVIATIONS)


def _trial_features(
    backbone: ChebyshevSettings,
) -> tuple[Float[np.ndarray, "atoms f"], Int[np.ndarray, "atoms"]]:
    """Features around those of the training set, and the index of the element of each atom."""
    species = np.repeat(np.arange(len(backbone.elements)), _TRIALS)
    drawn = np.random.default_rng(0).normal(size=(len(species), backbone.descriptor.size))
    if backbone.features is None:
        return drawn, species
    row = species if len(backbone.features.mean) > 1 else np.zeros_like(species)
    mean, std = np.array(backbone.features.mean), np.array(backbone.features.std)
    return mean[row] + std[row] * drawn, species


def _energies(
    model: Model, features: Float[np.ndarray, "atoms f"], species: Int[np.ndarray, "atoms"]
) -> Float[np.ndarray, "atoms"]:
    """Energies of atoms in eV by the networks of a model, in double precision."""
    backbone = model.settings.backbone
    assert isinstance(backbone, ChebyshevSettings)
    if backbone.features is not None:
        row = species if len(backbone.features.mean) > 1 else np.zeros_like(species)
        centre, scale = backbone.features.centre_and_scale()
        features = (features - centre[row]) * scale[row]
    networks = ElementNetworks(backbone.elements, backbone.arch)

    @jax.jit
    def outputs(parameters: dict, features: Array, species: Array) -> Array:
        return networks.apply({"params": parameters}, features, species)[:, 0]

    parameters = jax.tree.map(
        lambda leaf: np.asarray(leaf, np.float64), model.parameters["backbone"]["energy"]
    )
    values = np.asarray(outputs(parameters, features, species.astype(np.int32)))
    scaling, shift, isolated = (
        np.array(row)[species]
        for row in (backbone.E_scaling, backbone.E_shift, model.settings.atomic_energies)
    )
    return values / scaling + shift + isolated
