"""The items of a potential file of ænet, in their order, whatever they are stored as."""

from __future__ import annotations

import itertools
from typing import NoReturn, Protocol, runtime_checkable

import numpy as np
from ase.data import atomic_numbers
from jaxtyping import Float

from mace_scf_jax.aenet.potential import (
    AenetFileError,
    ElementPotential,
    FeatureRange,
    Layer,
    TrainingSummary,
)
from mace_scf_jax.backbones import Descriptor
from mace_scf_jax.backbones.chebyshev.networks import ACTIVATIONS, Architecture

BASIS = "Chebyshev"
PARAMETERS = 4
"""Numbers that a file has for each feature: R_r, n_r, R_a, n_a for the first, 0 for all others."""
_ROUNDING = 1e-6
"""Å by which a cutoff that is written twice may differ."""


@runtime_checkable
class Items(Protocol):
    """Reads one item after the other.

    Every method takes the number and name of the item, for messages, and raises `AenetFileError`
    if the file holds something else.
    """

    path: str

    def integers(self, item: int, name: str, count: int) -> list[int]:
        """Return whole numbers."""

    def floats(self, item: int, name: str, count: int) -> Float[np.ndarray, "count"]:
        """Return finite numbers."""

    def words(self, item: int, name: str, count: int) -> list[str]:
        """Return texts without spaces."""

    def text(self, item: int, name: str) -> str:
        """Return a text with spaces."""

    def flag(self, item: int, name: str) -> bool:
        """Return a truth value."""

    def end(self) -> None:
        """Refuse a file that goes on."""


def refuse(path: str, item: int, name: str, problem: str) -> NoReturn:
    """Say what is wrong with an item.

    Raises:
        AenetFileError: always.
    """
    raise AenetFileError(f"{path}: item {item}, {name}: {problem}")


def read_items(items: Items) -> ElementPotential:
    """Read a potential.

    Raises:
        AenetFileError: an item is missing, contradicts another, or has no counterpart here.
    """
    architecture, layers = _network(items)
    description = items.text(10, "description")
    (element,) = _elements(items, 11, "element of the centre", 1)
    descriptor, size = _descriptor(items, element)
    if size != len(layers[0][0]):
        refuse(
            items.path, 17, "features", f"expected {len(layers[0][0])} as in item 5, found {size}"
        )
    features = _features(items, size)
    name = items.text(27, "training set")
    items.flag(28, "normalised")
    (scaling,) = items.floats(29, "energy scaling", 1).tolist()
    if not scaling > 0.0:
        refuse(items.path, 29, "energy scaling", f"expected a number above 0, found {scaling:g}")
    (shift,) = items.floats(30, "energy shift", 1).tolist()
    known = _elements(items, 32, "species", _count(items, 31, "number of species"))
    energies = items.floats(33, "atomic energies", len(known)).tolist()
    if element not in known:
        refuse(items.path, 32, "species", "expected the element of item 11 among them")
    atoms = _count(items, 34, "number of atoms", least=0)
    structures = _count(items, 35, "number of structures", least=0)
    least, largest, mean = items.floats(36, "energies per atom", 3).tolist()
    items.end()
    return ElementPotential(
        source=items.path,
        description=description,
        element=element,
        descriptor=descriptor,
        architecture=architecture,
        layers=layers,
        features=features,
        E_scaling=scaling,
        E_shift=shift,
        atomic_energies=dict(zip(known, energies, strict=True)),
        training=TrainingSummary(name, atoms, structures, (least, largest, mean)),
    )


def _count(items: Items, item: int, name: str, *, least: int = 1) -> int:
    (count,) = items.integers(item, name, 1)
    if count < least:
        refuse(items.path, item, name, f"expected at least {least}, found {count}")
    return count


def _expect(items: Items, item: int, name: str, found: object, expected: object) -> None:
    if found != expected:
        refuse(items.path, item, name, f"expected {expected}, found {found}")


def _elements(items: Items, item: int, name: str, count: int) -> list[int]:
    """Atomic numbers of distinct symbols."""
    symbols = items.words(item, name, count)
    unknown = [symbol for symbol in symbols if atomic_numbers.get(symbol, 0) == 0]
    if unknown:
        refuse(items.path, item, name, f"expected symbols of elements, found {unknown[0]!r}")
    if len(set(symbols)) < len(symbols):
        refuse(items.path, item, name, f"expected different elements, found {' '.join(symbols)}")
    return [atomic_numbers[symbol] for symbol in symbols]


def layer_offsets(nodes: list[int]) -> tuple[list[int], list[int]]:
    """Return where weights and values of each layer begin; the last are those of the output.

    Args:
        nodes: of all layers, input and output among them.
    """
    weights = [(inputs + 1) * outputs for inputs, outputs in itertools.pairwise(nodes)]
    values = [inputs + 1 for inputs in nodes[:-1]]
    return _sums(weights), _sums(values)


def _sums(sizes: list[int]) -> list[int]:
    return list(itertools.accumulate(sizes, initial=0))


def _network(items: Items) -> tuple[Architecture, tuple[Layer, ...]]:
    """Items 1 to 9."""
    number = _count(items, 1, "number of layers", least=3)
    widest, num_weights, num_values = (
        _count(items, item, name)
        for item, name in ((2, "widest layer"), (3, "number of weights"), (4, "number of values"))
    )
    nodes = items.integers(5, "nodes", number)
    if min(nodes) < 1:
        refuse(items.path, 5, "nodes", f"expected at least 1 in every layer, found {min(nodes)}")
    _expect(items, 5, "nodes of the last layer", nodes[-1], 1)
    weights_from, values_from = layer_offsets(nodes)
    _expect(items, 2, "widest layer", widest, max(nodes))
    _expect(items, 3, "number of weights", num_weights, weights_from[-1])
    _expect(items, 4, "number of values", num_values, values_from[-1] + 1)
    codes = items.integers(6, "activations", number - 1)
    _expect(items, 6, "activation of the last layer", codes[-1], 0)
    names = list(ACTIVATIONS)
    for code in codes:
        if not 0 <= code < len(names):
            known = ", ".join(f"{index} ({name})" for index, name in enumerate(names))
            refuse(items.path, 6, "activations", f"expected {known}, found {code}")
    for item, name, expected in (
        (7, "offsets of weights", weights_from),
        (8, "offsets of values", values_from),
    ):
        _expect(items, item, name, items.integers(item, name, number), expected)
    weights = items.floats(9, "weights", num_weights)
    layers = []
    for (first, end), inputs in zip(itertools.pairwise(weights_from), nodes[:-1], strict=True):
        matrix = weights[first:end].reshape(inputs + 1, -1)
        layers.append((matrix[:-1], matrix[-1]))
    hidden = zip(nodes[1:-1], codes, strict=False)
    return tuple((size, names[code]) for size, code in hidden), tuple(layers)


def _descriptor(items: Items, element: int) -> tuple[Descriptor, int]:
    """Items 12 to 21: the descriptor, and the number of features."""
    species = _elements(items, 13, "species", _count(items, 12, "number of species"))
    if element not in species:
        refuse(items.path, 13, "species", "expected the element of item 11 among them")
    (smallest,) = items.floats(14, "smallest distance", 1).tolist()
    (largest,) = items.floats(15, "largest distance", 1).tolist()
    (basis,) = items.words(16, "basis", 1)
    _expect(items, 16, "basis", basis, BASIS)
    size = _count(items, 17, "features")
    _expect(items, 18, "parameters of a feature", *items.integers(18, "parameters", 1), PARAMETERS)
    items.integers(19, "kinds of features", size)
    values = items.floats(20, "parameters", PARAMETERS * size)[:PARAMETERS].tolist()
    items.integers(21, "species of features", 2 * size)
    rad_cutoff, rad_order, ang_cutoff, ang_order = values
    if not (rad_order.is_integer() and ang_order.is_integer()):
        refuse(items.path, 20, "parameters", f"expected whole orders, found {values}")
    try:
        descriptor = Descriptor(
            species=tuple(species),
            rad_order=int(rad_order),
            rad_cutoff=rad_cutoff,
            ang_order=int(ang_order),
            ang_cutoff=ang_cutoff,
            min_cutoff=smallest,
        )
    except ValueError as error:
        refuse(items.path, 20, "parameters", str(error))
    if abs(descriptor.cutoff - largest) > _ROUNDING:
        refuse(
            items.path,
            15,
            "largest distance",
            f"expected {descriptor.cutoff:g} Å, the larger radius of item 20, found {largest:g} Å",
        )
    if descriptor.size != size:
        refuse(
            items.path,
            17,
            "features",
            f"expected {descriptor.size} for {len(species)} species and the orders "
            f"{descriptor.rad_order} and {descriptor.ang_order} of item 20, found {size}",
        )
    return descriptor, size


def _features(items: Items, size: int) -> FeatureRange:
    """Items 22 to 26."""
    atoms = _count(items, 22, "atoms behind the statistics", least=0)
    names = ("smallest features", "largest features", "mean features", "mean squared features")
    values = [items.floats(23 + index, name, size) for index, name in enumerate(names)]
    return FeatureRange(*values, atoms=atoms)
