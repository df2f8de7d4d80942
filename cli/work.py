"""What commands do before they compute, and what is over with them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mace_scf_jax.progress import Signs

_shown = contextlib.ExitStack()


def begin() -> Signs:
    """Prepare the process, and show from now on how far it is and that it compiles.

    Call it once options are known to be right, and before anything is computed.
    """
    from mace_scf_jax.progress import signs_of_life  # slow to import
    from mace_scf_jax.runtime import prepare_command

    prepare_command()
    return _shown.enter_context(signs_of_life())


def end() -> None:
    """Show nothing any more."""
    _shown.close()
