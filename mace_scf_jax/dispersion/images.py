"""Lattice translations within the cutoff of a dispersion, chosen on the host."""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Bool, Float, Int

from mace_scf_jax.data.sizes import round_up
from mace_scf_jax.data.structure import search_box
from mace_scf_jax.dispersion.settings import DispersionSettings
from mace_scf_jax.graph import Graph, PairImages


def with_pair_images(
    graph: Graph,
    settings: DispersionSettings | None,
    *,
    shrinkage: float = 0.0,
    previous: PairImages | None = None,
) -> Graph:
    """A batch with the lattice translations that its dispersion is summed over.

    Args:
        graph: on the host.
        settings: None where there is no dispersion: the batch stays as it is.
        shrinkage: relative change by which lengths may become shorter before translations have to
            be chosen anew.
        previous: whose sizes are used again where they do.
    """
    if settings is None:
        return graph
    pbc = np.asarray(graph.pbc)
    boxes = np.stack([search_box(*each) for each in zip(np.asarray(graph.cell), pbc, strict=True)])
    chosen = [
        translations_within(box, periodic, settings.cutoff * (1.0 + shrinkage))
        if real
        else np.zeros((0, 3), np.int32)
        for box, periodic, real in zip(boxes, pbc, graph.graph_mask, strict=True)
    ]
    kinds = np.unique(np.asarray(graph.species)[np.asarray(graph.atom_mask)])
    size, room = round_up(max(map(len, chosen))), 1 << (len(kinds) - 1).bit_length()
    if previous is not None:
        before = previous.translations.shape[1]
        size = before if size <= before <= _MOST_WASTE * size else size
        room = max(room, len(previous.kinds))
    translations = np.zeros((len(chosen), size, 3), np.int32)
    mask = np.zeros((len(chosen), size), bool)
    for index, found in enumerate(chosen):
        translations[index, : len(found)] = found
        mask[index, : len(found)] = True
    return graph.replace(
        images=PairImages(
            translations=translations,
            mask=mask,
            kinds=np.pad(kinds, (0, room - len(kinds)), constant_values=-1).astype(np.int32),
            cell=boxes,
            reach=settings.cutoff,
            shrinkage=shrinkage,
        )
    )


_MOST_WASTE = 2.0


def translations_within(
    box: Float[np.ndarray, "3 3"], pbc: Bool[np.ndarray, "3"], reach: float
) -> Int[np.ndarray, "images 3"]:
    """Lattice translations by which two atoms of one cell may come within a distance.

    A few more may be among them: of a translation n, the smallest distance of two planes of the
    lattice, (|n| - 1) h, and of any two atoms, |n A| less the longest diagonal, are looked at.

    Args:
        box: lattice vectors as rows, Å; any along open directions that are normal to the others.
        pbc: periodic directions.
        reach: Å.
    """
    spacings = 1.0 / np.linalg.norm(np.linalg.inv(box), axis=0)
    most = np.where(pbc, np.ceil(reach / spacings), 0).astype(int)
    numbers = np.stack(
        np.meshgrid(*(np.arange(-each, each + 1) for each in most), indexing="ij"), axis=-1
    ).reshape(-1, 3)
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=3))) * pbc
    diagonal = np.linalg.norm(corners @ box, axis=1).max()
    between_planes = np.max((np.abs(numbers) - 1) * spacings * pbc, axis=1, initial=0.0)
    lengths = np.linalg.norm(numbers @ box, axis=1)
    return numbers[(between_planes < reach) & (lengths - diagonal < reach)].astype(np.int32)
