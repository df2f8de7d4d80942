"""One HDF5 file of prepared structures: its format, writing and reading.

::

    attributes        format, format_version, description (JSON), shard, shards, digest
    catalogue/…       one dataset per member of the `Catalogue`
    sizes/…           one dataset per member of the `StructureSizes`
    places/…          checksum of each structure, and where its reciprocal indices start
    structures        [structures, columns] float64: properties of whole structures
    atoms             [atoms, columns] float64: positions and real properties of atoms
    atom_integers     [atoms, columns] int32: atomic numbers and integer properties of atoms
    edges             [edges, 5] int32: sender, receiver, cell shift
    k_indices         [k-vectors, 3] int32; structures in equal cells share theirs
    features/values     [atoms, F] float64: raw features, where they were asked for
    features/pairs      [pairs, 2] int32: sender and receiver of pairs of different atoms
    features/by_vector  [pairs, 3 F] float64, features/by_cell [atoms, 9 F] float64: derivatives
    features/sizes/…, features/places/…  as above, for pairs

Structures follow one another in every table, so a structure is four short contiguous reads. The
attribute ``columns`` of a dataset says how many columns belong to what. Properties that no
structure has are left out. The digest covers catalogue, sizes and places, that of ``features`` the
sizes and places there; the checksums cover the rest, structure by structure. Versions that know no
features read these files without them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Int

from mace_scf_jax.data.catalogue import Catalogue
from mace_scf_jax.data.description import Description
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.data.hdf5_columns import digest_of, read_group, write_group
from mace_scf_jax.data.properties import PROPERTIES, Shape
from mace_scf_jax.data.shard_tables import (
    DERIVATIVES,
    FEATURES,
    TABLES,
    TYPES,
    VALUES,
    Columns,
    checksum_of,
    columns_of,
    parts_of,
    shared_indices,
    tables_of,
)
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.stack import stack
from mace_scf_jax.data.structure import Structure
from mace_scf_jax.files import flush

FORMAT = "mace-scf-jax structures"
FORMAT_VERSION = 1
INDEX = ("catalogue", "sizes", "places")

AGAIN = "run `mace-scf-jax preprocess` again"


@dataclasses.dataclass(frozen=True)
class ShardIndex:
    """Where the structures of a shard are."""

    path: Path
    description: Description
    number: int
    shards: int
    sizes: StructureSizes
    places: Mapping[str, Int[np.ndarray, "structures"]]
    """First row of each structure in the tables ``atoms``, ``edges`` and ``k_indices``, and
    ``checksum``, the CRC-32 of its rows in all tables, one after the other; with features also in
    ``pairs``, and checksums of the features."""
    columns: Columns
    """Columns of its tables."""
    pairs: StructureSizes | None = None
    """Sizes with pairs of atoms for edges; None where there are no derivatives of features."""
    num_features: int = 0
    """Features of an atom; 0 where there are none."""


def write_shard(
    path: Path,
    structures: Sequence[Structure],
    description: Description,
    *,
    number: int = 0,
    shards: int = 1,
) -> None:
    """Write one shard, and wait until it is on the disk.

    Args:
        path: new file.
        structures: at least one.
        description: what they were prepared for.
        number: of this shard, from 0.
        shards: number of shards of the data set.

    Raises:
        DataError: if a structure has a property that this format does not hold.
    """
    catalogue = Catalogue.of([entry.configuration for entry in structures])
    _refuse_grids(catalogue)
    numbers = [entry.configuration.atomic_numbers for entry in structures]
    stacked = stack(structures).with_atoms(atomic_numbers=np.concatenate(numbers))
    sizes = StructureSizes.of(stacked)
    columns = columns_of(catalogue, description.multipoles_max_l)
    k_indices, k_starts = shared_indices(stacked.k_indices)
    tables = tables_of(stacked, columns) | {"k_indices": k_indices}
    places = {"atoms": stacked.atoms.first, "edges": stacked.edges.first, "k_indices": k_starts}
    places["checksum"] = np.array(
        [
            checksum_of(tables[name][part] for name, part in parts_of(sizes, places, row).items())
            for row in range(len(structures))
        ],
        dtype=np.uint32,
    )
    groups = {"catalogue": _columns(catalogue), "sizes": vars(sizes), "places": places}
    with h5py.File(path, "w-", libver="v110") as file:
        for group, members in groups.items():
            write_group(file.create_group(group), members)
        for name, values in tables.items():
            file[name] = values
            if name in columns:
                file[name].attrs["columns"] = json.dumps(columns[name])
        file.attrs.update(
            format=FORMAT,
            format_version=FORMAT_VERSION,
            shard=number,
            shards=shards,
            digest=digest_of(groups),
        )
        describe(file, description)
    flush(path)


def describe(file: h5py.File, description: Description) -> None:
    """Write into a shard what its structures were prepared for."""
    file.attrs["description"] = json.dumps(description.to_dict())


def read_index(path: Path) -> tuple[ShardIndex, Catalogue]:
    """Open a shard, check that it is whole and of this format, and read what it tells of itself.

    Returns:
        Where the structures are, and their catalogue.

    Raises:
        DataError: if it is not an HDF5 file of this format and version, or damaged.
    """
    with opened(path) as file:
        try:
            groups = {group: read_group(file[group]) for group in INDEX}
            attributes = dict(file.attrs)
            digest = str(attributes["digest"])
            described = json.loads(attributes["description"])
            description = Description.from_dict(described)
            if any(name not in file for name in tables_in(description)):
                raise KeyError("a table is missing")
            columns = {name: json.loads(file[name].attrs["columns"]) for name in TYPES}
            of_features, num_features = {"sizes": {}, "places": {}}, 0
            if description.features is not None:
                of_features = {group: read_group(file[FEATURES][group]) for group in of_features}
                num_features = file[VALUES].shape[1]
                digest_of_features = str(file[FEATURES].attrs["digest"])
        except (KeyError, OSError, ValueError) as error:
            raise DataError(f"{path}: damaged ({error}); {AGAIN}") from None
    is_whole = digest_of(groups) == digest
    if description.features is not None:
        is_whole &= digest_of(of_features) == digest_of_features
    if not is_whole:
        raise DataError(f"{path}: damaged (its index does not have the digest it should); {AGAIN}")
    catalogue = _catalogue(groups["catalogue"])
    sizes = StructureSizes(**({"repeat": np.zeros(len(catalogue))} | groups["sizes"]))
    index = ShardIndex(
        path=path,
        description=description,
        number=int(attributes["shard"]),
        shards=int(attributes["shards"]),
        sizes=sizes,
        places=groups["places"] | of_features["places"],
        columns=columns,
        pairs=dataclasses.replace(sizes, **of_features["sizes"])
        if description.derivatives
        else None,
        num_features=num_features,
    )
    return index, catalogue


def tables_in(description: Description) -> tuple[str, ...]:
    """The tables of a shard with such a description."""
    further = () if description.features is None else (VALUES,)
    return TABLES + further + (DERIVATIVES if description.derivatives else ())


def _refuse_grids(catalogue: Catalogue) -> None:
    """Refuse properties on grids, of a size of their own in every structure."""
    for name, present in catalogue.present.items():
        if PROPERTIES[name].shape is Shape.GRID and present.any():
            raise DataError(
                f"{catalogue.location(int(np.argmax(present)))}: found {name}, which preprocessed "
                f"files do not hold; map `{name}: none`"
            )


def _columns(catalogue: Catalogue) -> dict[str, Any]:
    """Columns of a catalogue as a file holds them: the counts of all elements are one array."""
    elements = sorted(catalogue.element_counts)
    counts = catalogue.counts_of(elements)
    return vars(catalogue) | {"elements": np.array(elements), "element_counts": counts}


def _catalogue(columns: Mapping[str, Any]) -> Catalogue:
    """The catalogue of which `_columns` gave the columns."""
    counts = np.ascontiguousarray(columns["element_counts"].T)
    by_element = dict(zip(columns["elements"].tolist(), counts, strict=True))
    return Catalogue(
        **{name: column for name, column in columns.items() if name != "elements"}
        | {"element_counts": by_element}
    )


def opened(path: Path) -> h5py.File:
    """A file opened for reading, if it is HDF5 of this format and version.

    Raises:
        DataError: otherwise.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(
            f"{path}: not readable as HDF5, perhaps cut short ({error}); {AGAIN}"
        ) from None
    found = file.attrs.get("format")
    version = file.attrs.get("format_version")
    if found == FORMAT and version == FORMAT_VERSION:
        return file
    file.close()
    if found != FORMAT:
        raise DataError(f"{path}: HDF5, but not written by `mace-scf-jax preprocess`")
    raise DataError(
        f"{path}: found format version {version}, expected {FORMAT_VERSION}, the one that this "
        f"version of mace-scf-jax reads; {AGAIN}"
    )
