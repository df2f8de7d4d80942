"""Tables: columns of arrays that share their rows, one row for each structure of a set."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int

from mace_scf_jax.data.errors import DataError

AnyTable = TypeVar("AnyTable", bound="Table")


class Table:
    """Base of frozen dataclasses whose fields are columns.

    A column is an array whose first axis counts the rows, a mapping from names to such arrays, or
    `Ragged`. A name that one of two mappings lacks stands for zeros when they are put together.
    Any other field belongs to the table as a whole. The first field is an array.
    """

    def __len__(self) -> int:
        return len(getattr(self, dataclasses.fields(self)[0].name))

    def take(self: AnyTable, rows: Sequence[int] | np.ndarray) -> AnyTable:
        """The table of some of the rows, given by their positions, in the order given."""
        rows = np.asarray(rows, dtype=np.int64)
        names = [field.name for field in dataclasses.fields(self)]
        return type(self)(**{name: _take(getattr(self, name), rows) for name in names})

    @classmethod
    def concatenate(cls: type[AnyTable], parts: Iterable[AnyTable]) -> AnyTable:
        """Put tables one after the other.

        Those that an iterator makes are let go column by column, so that hardly more is in memory
        than what they hold.

        Raises:
            DataError: if there are none.
        """
        tables = list(parts)
        if not tables:
            raise DataError("data set: found no structures")
        lengths = [len(table) for table in tables]
        names = [field.name for field in dataclasses.fields(cls)]
        columns = {name: [getattr(table, name) for table in tables] for name in names}
        tables.clear()
        return cls(**{name: _concatenate(columns.pop(name), lengths) for name in names})


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Columns with several entries in each row; the entries of a row follow one another."""

    counts: Int[np.ndarray, "rows"]
    """Number of entries of each row."""
    entries: Mapping[str, np.ndarray]
    """Arrays whose first axis counts all entries, by name."""

    def __getitem__(self, name: str) -> np.ndarray:
        """The entries of all rows in one column."""
        return self.entries[name]

    @functools.cached_property
    def first(self) -> Int[np.ndarray, "rows"]:
        """First entry of each row."""
        return np.cumsum(self.counts) - self.counts

    @functools.cached_property
    def total(self) -> int:
        """Number of entries of all rows."""
        return int(self.counts.sum())

    def replace(self, **entries: np.ndarray) -> Ragged:
        """The same rows with further or other columns."""
        return Ragged(self.counts, {**self.entries, **entries})

    def take(self, rows: Int[np.ndarray, "_"]) -> Ragged:
        """The entries of some of the rows, given by their positions, in the order given."""
        counts = self.counts[rows]
        ends = np.cumsum(counts)
        places = np.repeat(self.first[rows] - ends + counts, counts)
        places += np.arange(len(places))
        return Ragged(counts, _take(self.entries, places))


def _take(column: Any, rows: np.ndarray) -> Any:
    if isinstance(column, Mapping):
        return {name: values[rows] for name, values in column.items()}
    if isinstance(column, Ragged):
        return column.take(rows)
    return column[rows] if isinstance(column, np.ndarray) else column


def _concatenate(parts: list, lengths: Sequence[int]) -> Any:
    """One column of several tables with so many rows; the list of its parts is emptied."""
    first = parts[0]
    if isinstance(first, Ragged):
        counts, totals = [part.counts for part in parts], [part.total for part in parts]
        parts[:] = [part.entries for part in parts]
        return Ragged(np.concatenate(counts), _concatenate(parts, totals))
    if isinstance(first, Mapping):
        names = dict.fromkeys(itertools.chain.from_iterable(parts))
        named = {name: [part.get(name) for part in parts] for name in names}
        parts.clear()
        return {name: _filled(named.pop(name), lengths) for name in names}
    return np.concatenate(parts) if isinstance(first, np.ndarray) else first


def _filled(parts: Sequence[np.ndarray | None], lengths: Sequence[int]) -> np.ndarray:
    """Arrays one after the other, with so many rows of zeros for each one that is missing."""
    like = next(part for part in parts if part is not None)
    return np.concatenate(
        [
            np.zeros((length, *like.shape[1:]), like.dtype) if part is None else part
            for part, length in zip(parts, lengths, strict=True)
        ]
    )
