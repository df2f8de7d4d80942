"""Which inputs of a structure, such as charge and spin, are embedded beside the elements."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mace_scf_jax.data.errors import DataError

if TYPE_CHECKING:
    from mace_scf_jax.data.configuration import Configuration

KINDS = ("categorical", "continuous")
SOURCES = ("graph", "node")


@dataclasses.dataclass(frozen=True)
class EmbeddedInput:
    """An input that is embedded; names are those of the option ``embedding_specs`` of MACE.

    Raises:
        ValueError: an entry makes no sense.
    """

    name: str
    """Of the property."""
    type: str
    """``categorical``: a row of a table; ``continuous``: a small network of the value."""
    emb_dim: int
    """Width of the embedding."""
    per: str = "graph"
    """One value for a ``graph`` or for each ``node``."""
    in_dim: int = 1
    """Numbers that a continuous input consists of."""
    num_classes: int = 0
    """Rows of the table of a categorical input."""
    offset: int = 0
    """Added to the value of a categorical input to give its row."""
    use_bias: bool = True
    """Give the network of a continuous input biases."""

    def __post_init__(self) -> None:
        for entry, choices in (("type", KINDS), ("per", SOURCES)):
            value = getattr(self, entry)
            if value not in choices:
                raise ValueError(
                    f"embedding_specs, {self.name}, {entry}: expected {' or '.join(choices)}, "
                    f"found {value!r}"
                )
        sizes = {"emb_dim": self.emb_dim, "in_dim": self.in_dim}
        if self.is_categorical:
            sizes["num_classes"] = self.num_classes
        for entry, size in sizes.items():
            if size < 1:
                raise ValueError(
                    f"embedding_specs, {self.name}, {entry}: expected at least 1, found {size}"
                )

    def to_spec(self) -> dict[str, Any]:
        """Return entries of the option ``embedding_specs`` of MACE."""
        entries = dataclasses.asdict(self)
        unused = ("num_classes", "offset") if not self.is_categorical else ("use_bias",)
        return {key: value for key, value in entries.items() if key not in ("name", *unused)}

    @property
    def is_categorical(self) -> bool:
        """Whether values are rows of a table."""
        return self.type == "categorical"

    def check(self, configuration: Configuration) -> None:
        """Refuse a value that is not in the table.

        Raises:
            DataError: says which values are.
        """
        value = float(configuration.values[self.name])
        row = value + self.offset
        if self.is_categorical and (row != round(row) or not 0 <= row < self.num_classes):
            raise DataError(
                f"{configuration.location}: {self.name}: the model knows whole numbers from "
                f"{-self.offset} to {self.num_classes - 1 - self.offset}, found {value:g}"
            )


def embedded_inputs(
    specs: Mapping[str, Any] | Iterable[Any] | None,
) -> tuple[EmbeddedInput, ...]:
    """Inputs out of plain data.

    Args:
        specs: name -> entries, as in the option of MACE; or the inputs, also as plain data.

    Raises:
        ValueError: an entry is unknown, missing or makes no sense.
    """
    if specs is None:
        return ()
    if isinstance(specs, Mapping):
        specs = [{"name": name, **entries} for name, entries in specs.items()]
    return tuple(map(_embedded_input, specs))


def _embedded_input(entry: EmbeddedInput | Mapping[str, Any]) -> EmbeddedInput:
    if isinstance(entry, EmbeddedInput):
        return entry
    fields = dataclasses.fields(EmbeddedInput)
    required = {field.name for field in fields if field.default is dataclasses.MISSING}
    unknown = entry.keys() - {field.name for field in fields}
    missing = required - entry.keys()
    for what, names in (("unknown", unknown), ("no", missing)):
        if names:
            raise ValueError(
                f"embedding_specs, {entry.get('name')}: found {what} {', '.join(sorted(names))}"
            )
    return EmbeddedInput(**entry)
