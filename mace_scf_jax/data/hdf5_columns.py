"""Columns of tables as datasets of an HDF5 group, and a digest of them."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np


def write_group(group: h5py.Group, columns: Mapping[str, Any]) -> None:
    """Write columns of a table, those of a mapping side by side in one dataset."""
    for name, column in columns.items():
        if isinstance(column, Mapping):
            parts = {key: values.reshape(len(values), -1) for key, values in column.items()}
            group[name] = np.concatenate(list(parts.values()), axis=1)
            widths = {key: part.shape[1] for key, part in parts.items()}
            group[name].attrs["columns"] = json.dumps(widths)
        else:
            dtype = h5py.string_dtype() if column.dtype == object else None
            group.create_dataset(name, data=column, dtype=dtype)


def read_group(group: h5py.Group) -> dict[str, Any]:
    """The columns that `write_group` wrote; equal texts are stored once."""
    found: dict[str, Any] = {}
    for name, item in group.items():
        if h5py.check_string_dtype(item.dtype) is not None:
            found[name] = np.fromiter(map(sys.intern, item.asstr()[()]), dtype=object)
        elif "columns" in item.attrs:
            values, start, found[name] = item[()], 0, {}
            for key, width in json.loads(item.attrs["columns"]).items():
                part = values[:, start : start + width]
                found[name][key] = np.ascontiguousarray(part[:, 0] if width == 1 else part)
                start += width
        else:
            found[name] = item[()]
    return found


def digest_of(groups: Mapping[str, Mapping[str, Any]]) -> str:
    """SHA-256 of the names and contents of all columns in some groups."""
    named: dict[str, np.ndarray] = {}
    for group, columns in groups.items():
        for name, column in columns.items():
            parts = column.items() if isinstance(column, Mapping) else [("", column)]
            named |= {f"{group}/{name}/{key}".rstrip("/"): values for key, values in parts}
    digest = hashlib.sha256()
    for name, values in sorted(named.items()):
        digest.update(name.encode())
        digest.update("\0".join(values).encode() if values.dtype == object else values.tobytes())
    return digest.hexdigest()
