"""Models of the PyTorch packages: import, export of weights, comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ase
import jax
import numpy as np
from jaxtyping import DTypeLike

from mace_scf_jax._version import __version__
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.dispersion.settings import refuse_dispersion
from mace_scf_jax.predict.model import Model
from mace_scf_jax.pytorch.configuration import (
    POLAR_MACE,
    TorchConfigurationError,
    configuration_from_settings,
    settings_from_configuration,
    state_constants,
)
from mace_scf_jax.pytorch.configuration_aenet import AENET_FAMILY
from mace_scf_jax.pytorch.files import read_torch_model
from mace_scf_jax.pytorch.heads import with_head
from mace_scf_jax.pytorch.module import FAMILIES_OF_MACE, TorchModel, TorchModelError
from mace_scf_jax.pytorch.reduced_products import in_basis_of_couplings
from mace_scf_jax.pytorch.weights import export_weights, import_parameters

CONFIGURATION = "pytorch_configuration"
"""Entry of the record of a model that holds the configuration it was imported with."""


class TemplateError(ValueError):
    """A state dict is not of the model whose weights are to be put into it."""


def import_model(
    source: str | Path | TorchModel,
    *,
    options: Mapping[str, Any] | None = None,
    dtype: DTypeLike = np.float64,
    trust: bool = False,
    head: str | None = None,
) -> Model:
    """A model of the PyTorch packages, with the same weights and the same predictions.

    Args:
        source: the model, or its file (see `mace_scf_jax.pytorch.files.read_torch_model`).
        options: entries of ``options`` in its configuration that are added or replaced.
        dtype: precision of the parameters.
        trust: read files of whole modules too: reading them runs code that is in the file.
        head: which one of several, whose model it becomes; None for the only one, or for the one
            called ``default``.

    Raises:
        TorchModelError: the file is missing or damaged, needs `trust`, or cannot be read without
            PyTorch.
        TorchConfigurationError: the configuration describes no model of this version, or it is not
            clear which head is meant.
        WeightImportError: the weights are not those of the configuration.
        ValueError: a setting makes no sense.
    """
    torch_model = (
        source if isinstance(source, TorchModel) else read_torch_model(source, trust=trust)
    )
    torch_model = in_basis_of_couplings(with_head(torch_model, head))
    configuration = dict(torch_model.configuration)
    if options and configuration.get("model") == AENET_FAMILY:
        raise TorchConfigurationError(
            "options: models of ænet-python tell everything, expected none"
        )
    configuration["options"] = {**configuration.get("options", {}), **(options or {})}
    settings = settings_from_configuration(configuration)
    parameters = import_parameters(torch_model.state, settings)
    record = {
        "imported_from": "PyTorch" if isinstance(source, TorchModel) else Path(source).name,
        CONFIGURATION: configuration,
        "version": __version__,
    }
    parameters = jax.tree.map(lambda values: np.array(values, dtype, order="C"), parameters)
    return Model(settings, parameters, record)


def export_torch_model(model: Model, *, template: TorchModel | None = None) -> TorchModel:
    """The weights of a model as a PyTorch state dict, with the configuration of its class.

    Args:
        template: a PyTorch model with the same configuration. All its arrays are kept; weights and
            constants are those of the model, in the precision of the template. Without one the
            state dict holds the weights alone, for ``load_state_dict(…, strict=False)`` of a module
            made with the configuration; weights that PyTorch models have and never use are zero.

    Raises:
        TorchConfigurationError: the PyTorch packages have no such model.
        TemplateError: the template is another model.
        DispersionError: the model has a dispersion.
    """
    refuse_dispersion(model.settings.dispersion, "a state dict of PyTorch")
    configuration = configuration_from_settings(model.settings)
    weights = export_weights(model.parameters, model.settings)
    if template is None:
        state = {
            name: np.where(np.isnan(values), np.zeros_like(values), values)
            for name, values in weights.items()
        }
        return TorchModel(configuration, state)
    constants, state = state_constants(model.settings), dict(template.state)
    for name, values in (constants | weights).items():
        if name not in state:
            raise TemplateError(f"template: found no {name!r}, which the model needs")
        if state[name].size != values.size:
            raise TemplateError(
                f"template: {name} has the shape {state[name].shape}, expected {values.shape}"
            )
        kept = state[name]
        new = values.reshape(kept.shape).astype(kept.dtype)
        if name in ("atomic_numbers", "r_max", "num_interactions") and np.any(new != kept):
            raise TemplateError(f"template: {name} is {kept}, expected {new}")
        state[name] = np.where(np.isnan(new), kept, new) if name in weights else new
    return TorchModel(template.configuration, state)


@dataclasses.dataclass(frozen=True)
class Parity:
    """Deviations from PyTorch for one structure."""

    formula: str
    num_atoms: int
    energy: float
    """Absolute deviation of the energy in eV."""
    forces: float
    """Largest deviation of a force component in eV/Å."""
    largest_force: float
    """Largest force component of PyTorch in eV/Å."""
    stress: float | None = None
    """Largest deviation of a stress component in eV/Å³; None where none is compared."""

    def passes(self, tolerance: float) -> bool:
        """Whether energy per atom (eV), forces and stress deviate by at most the tolerance."""
        derivatives = max(self.forces, self.stress or 0.0)
        return self.energy <= tolerance * self.num_atoms and derivatives <= tolerance


def compare_with_torch(
    model: Model, source: str | Path, structures: Sequence[ase.Atoms]
) -> list[Parity]:
    """Deviations of a model from the PyTorch module that it was imported from.

    Reading the module runs code that is in its file.

    Args:
        model: the imported model.
        source: file of the module (``torch.save`` of one of `FAMILIES_OF_MACE`).
        structures: to predict. Slabs are not compared for `PolarMACE`, which mace-torch puts into
            cells of its own.

    Raises:
        TorchModelError: PyTorch or mace-torch is absent, or the file holds something else.
        DataError: a structure cannot be used.
    """
    from mace_scf_jax.pytorch.module import torch_predictions

    configuration = model.record.get(CONFIGURATION, {})
    family = configuration.get("model", model.settings.family)
    if family not in FAMILIES_OF_MACE:
        raise TorchModelError(
            f"{source}: comparisons are made for {', '.join(FAMILIES_OF_MACE)}, found {family}"
        )
    mixed = [atoms.get_chemical_formula() for atoms in structures if 0 < sum(atoms.pbc) < 3]
    if mixed and family == POLAR_MACE:
        raise TorchModelError(
            f"{mixed[0]}: expected molecules and crystals, found a slab: mace-torch gives it a "
            f"cell of its own before {family} sees it"
        )
    predictions = model.predict(list(structures), stress=True)
    heads = configuration.get("options", {}).get("heads") or (None,)
    named = [_with_names_of_mace(model, atoms) for atoms in structures]
    expected = torch_predictions(Path(source), named, head=heads[0])
    return [
        Parity(
            formula=atoms.get_chemical_formula(),
            num_atoms=len(atoms),
            energy=float(np.abs(ours["energy"] - theirs["energy"])),
            forces=float(np.max(np.abs(ours["forces"] - theirs["forces"]))),
            largest_force=float(np.max(np.abs(theirs["forces"]))),
            stress=float(np.max(np.abs(ours["stress"] - theirs["stress"])))
            if "stress" in theirs
            else None,
        )
        for atoms, ours, theirs in zip(structures, predictions, expected, strict=True)
    ]


_NAMES_OF_MACE = {
    "total_charge": "charge",
    "total_spin": "spin",
    "external_field": "external_field",
}
"""Where the calculator of mace-torch reads inputs of a structure."""


def _with_names_of_mace(model: Model, atoms: ase.Atoms) -> ase.Atoms:
    """A structure with its inputs where mace-torch reads them."""
    named, values = atoms.copy(), from_atoms(atoms, keys=model.input_keys).values
    named.info |= {theirs: values[ours] for ours, theirs in _NAMES_OF_MACE.items()}
    return named
