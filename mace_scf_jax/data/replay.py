"""Structures of a start model that are trained on beside those of the training file."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mace_scf_jax.data import checks
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.keys import KeySpecification
from mace_scf_jax.data.reading import ReadStructures, is_stored, read_located

logger = logging.getLogger("mace_scf_jax")


@dataclasses.dataclass(frozen=True)
class Replay:
    """Where structures to replay are, and what is made of them."""

    file: str | Path
    head: str
    """Head to which all of them belong."""
    samples: int | None = None
    """How many are drawn; None for all."""
    label: Callable[[ReadStructures, KeySpecification], None] | None = None
    """Writes labels under the keys of the head; None if the file has them."""

    def read(self, keys: KeySpecification, *, seed: int, charged: bool) -> ReadStructures:
        """Return the structures with labels and the name of their head.

        Args:
            keys: of all heads.
            seed: of the draw.
            charged: whether the model has charges, and reads their sum.

        Raises:
            DataError: the file cannot be read, has fewer structures than are to be drawn, or lacks
                labels under the keys of the head.
        """
        if is_stored(self.file):
            raise DataError(f"replay: {self.file}: expected structures, found preprocessed data")
        found, count = read_located(self.file), self.samples
        if count is not None:
            if count > len(found.atoms):
                raise DataError(
                    f"replay: samples: expected at most {len(found.atoms)}, the structures of "
                    f"{self.file}, found {count}"
                )
            rows = np.sort(np.random.default_rng(seed).permutation(len(found.atoms))[:count])
            found = ReadStructures(*([of_all[row] for row in rows] for of_all in found))
        (own,) = (head.keys for head in keys.heads if head.name == self.head)
        stored = checks.stored_keys(found.atoms)
        checks.warn_about_inputs(stored, own, str(self.file), charged=charged)
        if self.label is not None:
            self.label(found, own)
        else:
            try:
                checks.check_keys_occur(stored, own, str(self.file))
            except DataError as error:
                raise DataError(
                    f"replay: {error} The start model labels with labels: start"
                ) from None
        for atoms in found.atoms:
            atoms.info[keys.info_keys.get("head", "head")] = self.head
        logger.info("Replay: %d structures of %s", len(found.atoms), self.file)
        return found
