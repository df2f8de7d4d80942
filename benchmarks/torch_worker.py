"""One measurement of the PyTorch packages in a process of their own; prints a JSON object.

Runs in an environment with mace-torch and graph_longrange. ``ScaleShiftMACE`` is the model of
mace-torch as it is. ``LocalCharges`` puts its parts together as MACE_SCF does: multipoles from a
linear map of the features of both layers, and their Ewald energy from graph_longrange.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings

os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
warnings.filterwarnings("ignore")

import numpy as np
import settings as sizes
import torch
from e3nn import o3
from graph_longrange.energy import GTOElectrostaticEnergy
from graph_longrange.kspace import compute_k_vectors_flat
from mace import data, modules
from mace.tools import AtomicNumberTable, torch_geometric
from timing import peak_memory_mb, time_calls
from water import water_box


def build_backbone() -> torch.nn.Module:
    hidden = o3.Irreps(f"{sizes.CHANNELS}x0e + {sizes.CHANNELS}x1o")
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    return modules.ScaleShiftMACE(
        r_max=sizes.R_MAX,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=sizes.MAX_ELL,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=sizes.NUM_INTERACTIONS,
        num_elements=len(sizes.ELEMENTS),
        hidden_irreps=hidden,
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.array(sizes.ATOMIC_ENERGIES),
        avg_num_neighbors=sizes.AVERAGE_NEIGHBOURS,
        atomic_numbers=list(sizes.ELEMENTS),
        correlation=sizes.CORRELATION,
        gate=torch.nn.functional.silu,
        radial_MLP=list(sizes.RADIAL_MLP),
        radial_type="bessel",
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )


class LocalCharges(torch.nn.Module):
    """MACE features, multipoles by a linear map, their Coulomb energy."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_backbone()
        # mace-torch keeps only scalars in the last layer: a little less work than LocalCharges has
        features = f"{sizes.CHANNELS}x0e + {sizes.CHANNELS}x1o + {sizes.CHANNELS}x0e"
        self.multipoles = o3.Linear(features, "1x0e + 1x1o")
        self.cutoff = sizes.KSPACE_CUTOFF_FACTOR * 2.25 * 2**0.3 / sizes.SMEARING_WIDTH
        self.coulomb = GTOElectrostaticEnergy(
            density_max_l=1,
            density_smearing_width=sizes.SMEARING_WIDTH,
            kspace_cutoff=self.cutoff,
            pbc_handling="pbc",
        )

    def forward(self, batch, training: bool) -> dict[str, torch.Tensor]:
        inputs = batch.to_dict()
        inputs["positions"].requires_grad_(True)
        out = self.backbone(inputs, training=training, compute_force=False)
        cell = inputs["cell"].view(-1, 3, 3)
        reciprocal = 2 * torch.pi * torch.linalg.inv(cell.transpose(-1, -2))
        vectors, norm2, owner, zero = compute_k_vectors_flat(self.cutoff, cell, reciprocal)
        coulomb = self.coulomb(
            k_vectors=vectors,
            k_norm2=norm2,
            k_vector_batch=owner,
            k0_mask=zero,
            source_feats=self.multipoles(out["node_feats"]),
            node_positions=inputs["positions"],
            batch=inputs["batch"],
            volume=torch.linalg.det(cell),
            pbc=torch.ones(len(cell), 3, dtype=torch.bool),
        )
        energy = out["energy"] + coulomb.reshape(-1)
        (gradient,) = torch.autograd.grad(
            energy.sum(), inputs["positions"], create_graph=training, retain_graph=training
        )
        return {"energy": energy, "forces": -gradient}


class ScaleShiftMACE(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = build_backbone()

    def forward(self, batch, training: bool) -> dict[str, torch.Tensor]:
        return self.backbone(batch.to_dict(), training=training, compute_force=True)


def batch_of(structures):
    table = AtomicNumberTable(list(sizes.ELEMENTS))
    graphs = [
        data.AtomicData.from_config(
            data.config_from_atoms(atoms), z_table=table, cutoff=sizes.R_MAX
        )
        for atoms in structures
    ]
    loader = torch_geometric.dataloader.DataLoader(graphs, batch_size=len(graphs), shuffle=False)
    return next(iter(loader))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("evaluation", "training"))
    parser.add_argument("--family", default="LocalCharges")
    parser.add_argument("--atoms", type=int, default=24)
    given = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)

    model = {"LocalCharges": LocalCharges, "ScaleShiftMACE": ScaleShiftMACE}[given.family]()
    if given.task == "evaluation":
        batch = batch_of([water_box(given.atoms)])
        result = time_calls(lambda: model(batch, training=False))
    else:
        count, atoms = sizes.TRAINING_BATCH
        batch = batch_of([water_box(atoms, seed=seed) for seed in range(count)])
        energies, forces = torch.zeros(count), torch.zeros(count * atoms, 3)

        def step():
            model.zero_grad(set_to_none=True)
            out = model(batch, training=True)
            loss = torch.mean(((out["energy"] - energies) / atoms) ** 2)
            loss = loss + 10.0 * torch.mean((out["forces"] - forces) ** 2)
            loss.backward()

        result = time_calls(step)
    print(
        json.dumps(
            {
                **result,
                "peak_memory_mb": peak_memory_mb(),
                "edges": int(batch.edge_index.shape[1]),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
