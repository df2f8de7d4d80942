"""Models from PyTorch and for PyTorch, and checks against reference numbers made with it.

All knowledge of the PyTorch packages (names, layouts, quirks) is here; nothing below the command
line imports it.
"""

from mace_scf_jax.pytorch.exchange import (
    Parity,
    TemplateError,
    compare_with_torch,
    export_torch_model,
    import_model,
)

__all__ = ["Parity", "TemplateError", "compare_with_torch", "export_torch_model", "import_model"]
