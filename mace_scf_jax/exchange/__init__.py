"""Models from other programs and for other programs."""

from mace_scf_jax.exchange.parity import Parity, compare_with_torch
from mace_scf_jax.exchange.stablehlo import ExportedModel, export_stablehlo
from mace_scf_jax.exchange.torch_models import (
    TemplateError,
    export_torch_model,
    import_model,
)

__all__ = [
    "ExportedModel",
    "Parity",
    "TemplateError",
    "compare_with_torch",
    "export_stablehlo",
    "export_torch_model",
    "import_model",
]
