"""Train LocalCharges with PyTorch on one split of the example; prints its errors as JSON.

Runs in an environment with torch, mace-torch and graph_longrange, one thread. The model is put
together from their blocks as MACE_SCF does: given the weights of a model that MACE_SCF trained, it
has the same energies and forces to the last digit. Schedule, losses and optimiser are those of the
PyTorch run that the data set describes: no averaging, the last weights count.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from pathlib import Path

os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
warnings.filterwarnings("ignore")

import ase.io
import numpy as np
import torch
from ase.neighborlist import neighbor_list
from e3nn import o3
from graph_longrange.energy import GTOElectrostaticEnergy
from graph_longrange.kspace import compute_k_vectors_flat
from mace import modules
from mace.modules import blocks
from mace.tools.scatter import scatter_sum

ELEMENTS = (1, 8, 11, 17)
R_MAX, MAX_ELL, CHANNELS, LAYERS = 5.0, 2, 16, 2
AVERAGE_NEIGHBOURS = 7.5
SMEARING_WIDTH = 1.5
KSPACE_CUTOFF = 2.3083957750217183
"""1/Å; the reference's default for this width."""
BATCH_SIZE, CLIP, WEIGHT_DECAY = 8, 10.0, 5e-7
FIRST = {"energy": 1.0, "forces": 100.0, "multipoles": 100.0, "dipole": 1.0, "charge": 10.0}
STAGES = ((36, 0.01, FIRST), (24, 0.001, {**FIRST, "energy": 1000.0, "dipole": 10.0}))
"""Epochs, learning rate and weights of the loss."""


class LocalCharges(torch.nn.Module):
    """MACE whose layers all keep their vectors, multipoles by linear maps, their Coulomb energy."""

    def __init__(self, atomic_energies: np.ndarray) -> None:
        super().__init__()
        hidden = o3.Irreps(f"{CHANNELS}x0e + {CHANNELS}x1o")
        scalars, species = o3.Irreps(f"{CHANNELS}x0e"), o3.Irreps(f"{len(ELEMENTS)}x0e")
        harmonics = o3.Irreps.spherical_harmonics(MAX_ELL)
        messages = (harmonics * CHANNELS).sort()[0].simplify()
        interaction = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]

        self.atomic_energies_fn = blocks.AtomicEnergiesBlock(atomic_energies)
        self.node_embedding = blocks.LinearNodeEmbeddingBlock(species, scalars)
        self.radial_embedding = blocks.RadialEmbeddingBlock(
            r_max=R_MAX, num_bessel=8, num_polynomial_cutoff=5
        )
        self.harmonics = o3.SphericalHarmonics(harmonics, normalize=True, normalization="component")
        self.interactions, self.products = torch.nn.ModuleList(), torch.nn.ModuleList()
        for layer in range(LAYERS):
            self.interactions.append(
                interaction(
                    node_attrs_irreps=species,
                    node_feats_irreps=hidden if layer else scalars,
                    edge_attrs_irreps=harmonics,
                    edge_feats_irreps=o3.Irreps("8x0e"),
                    target_irreps=messages,
                    hidden_irreps=hidden,
                    avg_num_neighbors=AVERAGE_NEIGHBOURS,
                    radial_MLP=[32, 32],
                )
            )
            self.products.append(
                blocks.EquivariantProductBasisBlock(
                    node_feats_irreps=messages,
                    target_irreps=hidden,
                    correlation=2,
                    num_elements=len(ELEMENTS),
                    use_sc=True,
                    use_reduced_cg=False,
                )
            )
        one = o3.Irreps("1x0e")
        self.readouts = torch.nn.ModuleList(
            [
                blocks.LinearReadoutBlock(hidden, one),
                blocks.NonLinearReadoutBlock(
                    hidden, o3.Irreps("16x0e"), torch.nn.functional.silu, one
                ),
            ]
        )
        self.lr_source_maps = torch.nn.ModuleList(
            [blocks.LinearReadoutBlock(hidden, o3.Irreps("1x0e + 1x1o")) for _ in range(LAYERS)]
        )
        self.coulomb_energy = GTOElectrostaticEnergy(
            density_max_l=1,
            density_smearing_width=SMEARING_WIDTH,
            kspace_cutoff=KSPACE_CUTOFF,
            include_self_interaction=True,
            pbc_handling="mixed_periodic",
        )

    def forward(self, batch: dict, training: bool) -> dict[str, torch.Tensor]:
        """Energies, forces, multipoles (Q, y, z, x), dipoles and total charges of a batch."""
        positions = batch["positions"].clone().requires_grad_(True)
        species, edges, owner = batch["species"], batch["edges"], batch["owner"]

        def per_graph(values: torch.Tensor) -> torch.Tensor:
            return scatter_sum(values, owner, dim=0, dim_size=len(batch["size"]))

        vectors = positions[edges[1]] - positions[edges[0]] + batch["shifts"]
        lengths = vectors.norm(dim=1, keepdim=True)
        harmonics = self.harmonics(vectors)
        radial, cutoff = self.radial_embedding(lengths, species, edges, torch.tensor(ELEMENTS))
        features = self.node_embedding(species)
        energy = per_graph(self.atomic_energies_fn(species)[:, 0])
        multipoles = 0.0
        for layer in range(LAYERS):
            features, skip = self.interactions[layer](
                node_attrs=species,
                node_feats=features,
                edge_attrs=harmonics,
                edge_feats=radial,
                edge_index=edges,
                cutoff=cutoff,
                first_layer=layer == 0,
            )
            features = self.products[layer](node_feats=features, sc=skip, node_attrs=species)
            energy = energy + per_graph(self.readouts[layer](features)[:, 0])
            multipoles = multipoles + self.lr_source_maps[layer](features)
        multipoles = multipoles[:, [0, 2, 3, 1]]
        coulomb = self.coulomb_energy(
            **batch["reciprocal"],
            source_feats=multipoles,
            node_positions=positions,
            batch=owner,
            volume=batch["volume"],
            pbc=batch["pbc"],
        )
        dipole = per_graph(multipoles[:, :1] * positions + multipoles[:, [3, 1, 2]])
        energy = energy + coulomb.reshape(-1) + (dipole * batch["field"]).sum(1)
        (gradient,) = torch.autograd.grad(energy.sum(), positions, create_graph=training)
        return {
            "energy": energy,
            "forces": -gradient,
            "multipoles": multipoles,
            "dipole": dipole,
            "charge": per_graph(multipoles[:, 0]),
        }


def read(path: Path) -> list[dict]:
    """Structures of a file as arrays, with their neighbours and labels."""
    graphs = []
    for atoms in ase.io.read(path, ":"):
        senders, receivers, shifts = neighbor_list("ijS", atoms, R_MAX)
        graphs.append(
            {
                "positions": atoms.positions,
                "species": (atoms.numbers[:, None] == ELEMENTS).astype(float),
                "edges": np.stack([senders, receivers]),
                "shifts": shifts @ atoms.cell.array,
                "cell": atoms.cell.array,
                "pbc": atoms.pbc,
                "field": np.asarray(atoms.info["external_field"], float),
                "energy": atoms.info["REF_energy"],
                "forces": atoms.arrays["REF_forces"],
                "multipoles": atoms.arrays["REF_atomic_multipoles"],
                "dipole": atoms.info["REF_dipole"],
                "charge": float(atoms.info["total_charge"]),
            }
        )
    return graphs


def batch_of(graphs: list[dict]) -> dict:
    """Structures one after the other, and their reciprocal-space vectors."""
    sizes = [len(graph["positions"]) for graph in graphs]
    first = np.cumsum([0, *sizes])
    joined = ("positions", "species", "shifts", "forces", "multipoles")
    stacked = ("pbc", "field", "energy", "dipole", "charge", "cell")
    batch = {n: torch.as_tensor(np.concatenate([g[n] for g in graphs])) for n in joined}
    batch |= {n: torch.as_tensor(np.stack([g[n] for g in graphs])) for n in stacked}
    edges = [graph["edges"] + start for graph, start in zip(graphs, first, strict=False)]
    dual = 2.0 * torch.pi * torch.linalg.inv(batch["cell"].transpose(-1, -2))
    vectors, norms, owner, zero = compute_k_vectors_flat(KSPACE_CUTOFF, batch["cell"], dual)
    return {
        **batch,
        "edges": torch.as_tensor(np.concatenate(edges, axis=1)),
        "owner": torch.as_tensor(np.repeat(np.arange(len(graphs)), sizes)),
        "size": torch.as_tensor(np.array(sizes, float)),
        "volume": torch.linalg.det(batch["cell"]),
        "reciprocal": {
            "k_vectors": vectors,
            "k_norm2": norms,
            "k_vector_batch": owner,
            "k0_mask": zero,
        },
    }


def deviations(found: dict[str, torch.Tensor], batch: dict) -> dict[str, torch.Tensor]:
    """Of energy and dipole per atom, forces, multipoles and total charges."""
    difference = {name: found[name] - batch[name] for name in FIRST}
    size = batch["size"]
    return {
        **difference,
        "energy": difference["energy"] / size,
        "dipole": difference["dipole"] / size[:, None],
    }


def loss_of(found: dict[str, torch.Tensor], batch: dict, weights: dict) -> torch.Tensor:
    """Weighted sum of mean squares; the total charge counts per atom here."""
    parts = deviations(found, batch)
    parts["charge"] = parts["charge"] / batch["size"]
    return sum(weight * (parts[name] ** 2).mean() for name, weight in weights.items())


def squares(model: LocalCharges, graphs: list[dict]) -> dict[str, list[float]]:
    """Sum of squared deviations and their number, for every quantity."""
    total = {name: [0.0, 0] for name in FIRST}
    for start in range(0, len(graphs), BATCH_SIZE):
        batch = batch_of(graphs[start : start + BATCH_SIZE])
        for name, values in deviations(model(batch, training=False), batch).items():
            total[name][0] += float((values**2).sum())
            total[name][1] += values.numel()
    return total


def parameter_groups(model: LocalCharges) -> list[dict]:
    """Weights of the linear maps of interactions and of products decay, others do not."""
    decaying, other = [], []
    for name, values in model.named_parameters():
        in_interaction = name.startswith("interactions") and (
            "linear.weight" in name or "skip_tp" in name
        )
        (decaying if in_interaction or name.startswith("products") else other).append(values)
    return [
        {"params": decaying, "weight_decay": WEIGHT_DECAY},
        {"params": other, "weight_decay": 0.0},
    ]


def train(model: LocalCharges, graphs: list[dict], seed: int) -> None:
    """All epochs; a last batch with fewer structures is left out, as by the reference."""
    optimiser = torch.optim.Adam(parameter_groups(model), amsgrad=True)
    random = np.random.default_rng(seed)
    for epochs, rate, weights in STAGES:
        for group in optimiser.param_groups:
            group["lr"] = rate
        for _ in range(epochs):
            order = random.permutation(len(graphs))
            for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
                batch = batch_of([graphs[index] for index in order[start : start + BATCH_SIZE]])
                optimiser.zero_grad(set_to_none=True)
                loss_of(model(batch, training=True), batch, weights).backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimiser.step()


def average_energies(path: Path) -> np.ndarray:
    """Energies of atoms by least squares over the training set."""
    frames = ase.io.read(path, ":")
    counts = [[float(np.sum(atoms.numbers == z)) for z in ELEMENTS] for atoms in frames]
    energies = [atoms.info["REF_energy"] for atoms in frames]
    return np.linalg.lstsq(np.array(counts), np.array(energies), rcond=None)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with train.xyz and held_out.xyz")
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)

    started = time.perf_counter()
    model = LocalCharges(average_energies(given.folder / "train.xyz"))
    graphs = read(given.folder / "train.xyz")
    train(model, graphs, given.seed)
    errors = {
        "train": squares(model, graphs),
        "held_out": squares(model, read(given.folder / "held_out.xyz")),
    }
    print(json.dumps({"errors": errors, "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
