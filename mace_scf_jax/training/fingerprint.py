"""What must be the same where a run is resumed."""

from __future__ import annotations

from typing import Any

from mace_scf_jax.data.datasets import DataSets
from mace_scf_jax.models import ModelSettings
from mace_scf_jax.options import OptionGroup
from mace_scf_jax.training.config.options import TrainOptions, matters_to, topics


def fingerprint(options: TrainOptions, settings: ModelSettings, data: DataSets) -> dict[str, Any]:
    """What must be the same when the run is resumed, besides the schedule."""
    deciding = [
        name
        for topic in topics()
        for name in topic.deciding_weights()
        if matters_to(name, family=options.model, backbone=options.backbone)
    ]
    return {
        "options": {name: _plain(getattr(options, name)) for name in deciding},
        "model": _deciding_settings(settings),
        "training_data": data.train.catalogue.content_digest(),
        "validation_data": data.valid.catalogue.content_digest(),
    }


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, OptionGroup) else value


def _deciding_settings(settings: ModelSettings) -> dict[str, Any]:
    """The settings of a model as runs of earlier versions saved them, where they say the same."""
    model = settings.to_dict()
    if model["electrostatics"] is not None:
        density = model["electrostatics"]
        del density["surplus_at_centre"]
        for name, unused in _WITHOUT_EFFECT.items():
            if density[name] == unused:
                del density[name]
    left_out = _OF_IMPORTS if settings.own.conserves_charge else _OF_IMPORTS | _OF_CONSERVATION
    if not model.get("read_like_energies"):
        left_out |= {"read_like_energies"}
    return {name: value for name, value in model.items() if name not in left_out}


_OF_IMPORTS = {"charge_scale"}
"""Settings that only imported models have."""
_WITHOUT_EFFECT = {"eps_infty": 1.0, "keep_neutral": False}
"""Values of settings of the electrostatics that earlier versions did not have."""
_OF_CONSERVATION = {"conserve_charge", "element_charges", "free_charges"}
"""Settings of LocalCharges from before there was a choice."""
