"""One measurement of graph_longrange in a process of its own; prints a JSON object.

Runs in an environment with torch and graph_longrange. As in its models, wavevectors are found
anew in every call.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os

os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")

import electrostatics_case as case
import numpy as np
import torch
from graph_longrange.energy import GTOElectrostaticEnergy
from graph_longrange.features import GTOElectrostaticFeatures
from graph_longrange.kspace import compute_k_vectors_flat
from timing import peak_memory_mb, time_calls


def build(task: str) -> torch.nn.Module:
    if task.startswith("energy"):
        return GTOElectrostaticEnergy(
            density_max_l=case.MAX_L,
            density_smearing_width=case.SMEARING_WIDTH,
            kspace_cutoff=case.KSPACE_CUTOFF,
            pbc_handling="pbc",
        )
    return GTOElectrostaticFeatures(
        density_max_l=case.MAX_L,
        density_smearing_width=case.SMEARING_WIDTH,
        feature_max_l=case.FEATURE_MAX_L,
        feature_smearing_widths=list(case.FEATURE_WIDTHS),
        include_self_interaction=False,
        kspace_cutoff=case.KSPACE_CUTOFF,
        pbc_handling="pbc",
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=case.TASKS)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--atoms", type=int, default=192)
    given = parser.parse_args()
    torch.set_default_dtype(torch.float64)

    boxes, multipoles = case.structures(given.count, given.atoms)
    module = build(given.task)
    wants_gradient = given.task.endswith("gradient")
    sources = torch.tensor(multipoles, requires_grad=wants_gradient)
    positions = torch.tensor(
        np.concatenate([box.positions for box in boxes]), requires_grad=wants_gradient
    )
    cell = torch.tensor(np.stack([box.cell.array for box in boxes]))
    reciprocal = 2 * torch.pi * torch.linalg.inv(cell.transpose(-1, -2))
    batch = torch.repeat_interleave(torch.arange(len(boxes)), len(boxes[0]))

    def values():
        vectors, norm2, owner, zero = compute_k_vectors_flat(case.KSPACE_CUTOFF, cell, reciprocal)
        return module(
            k_vectors=vectors,
            k_norm2=norm2,
            k_vector_batch=owner,
            k0_mask=zero,
            source_feats=sources,
            node_positions=positions,
            batch=batch,
            volume=torch.linalg.det(cell),
            pbc=torch.ones(len(boxes), 3, dtype=torch.bool),
        )

    def without_gradient():
        with torch.no_grad():
            return values()

    def with_gradient():
        found = values()
        total = found.sum() if given.task.startswith("energy") else (found * found).sum()
        return torch.autograd.grad(total, (positions, sources))

    result = time_calls(with_gradient if wants_gradient else without_gradient)
    print(
        json.dumps(
            {
                **result,
                "peak_memory_mb": peak_memory_mb(),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "graph_longrange": importlib.metadata.version("graph_longrange"),
            }
        )
    )


if __name__ == "__main__":
    main()
