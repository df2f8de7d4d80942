"""Energy and forces of PolarMACE beside mace-torch, in one process, in turns.

    python benchmarks/polar_mace.py [--atoms 30 100 300] [--channels 64] [--float32]

Needs an environment with this package, torch, mace-torch 0.3.16 and graph_longrange 0.4.0. Clusters
of water with one electron less, in float64, sizes of MACE-POLAR-1-M with random weights: 2 layers,
max_ell 3, correlation 3, r_max 6 Å, edges 128x0e + 128x1o, two steps; --channels instead of 512.
Neighbours and batches are made before; mace-torch gets a box of 12 Å instead of its own, which has
up to millions of wavevectors that an open structure does not use. Both give the same numbers.
Times are processor time; for one core each: taskset -c 0 python …
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from typing import Any

os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
os.environ.setdefault("JAX_ENABLE_X64", "1")

import ase
import jax
import numpy as np
import torch
from timing import time_in_turns
from water import water_box

from mace_scf_jax.data.collate import padded
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.properties import ATOM_INPUTS, GRAPH_INPUTS
from mace_scf_jax.data.sizes import StructureSizes
from mace_scf_jax.data.stack import stack
from mace_scf_jax.pytorch import import_model
from mace_scf_jax.pytorch.module import torch_model_of
from mace_scf_jax.runtime import keep_freed_memory

ELEMENTS = (1, 8)
BOX = 12.0


def torch_module(channels: int) -> Any:
    """A module of the sizes of MACE-POLAR-1-M with random weights."""
    from e3nn import o3
    from mace import modules
    from mace.modules.extensions import PolarMACE

    torch.manual_seed(0)
    block = modules.interaction_classes["RealAgnosticResidualNonLinearInteractionBlock"]
    module = PolarMACE(
        r_max=6.0,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=len(ELEMENTS),
        hidden_irreps=o3.Irreps(f"{channels}x0e + {channels}x1o"),
        edge_irreps=o3.Irreps("128x0e + 128x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.array([[-13.0, -430.0]]),
        avg_num_neighbors=30.0,
        atomic_numbers=list(ELEMENTS),
        correlation=3,
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
        radial_type="bessel",
        heads=["Default"],
        kspace_cutoff_factor=1.5,
        atomic_multipoles_max_l=1,
        atomic_multipoles_smearing_width=1.5,
        field_feature_max_l=1,
        field_feature_widths=[1.5, 3.0],
        field_feature_norms=[20.0, 20.0, 0.5, 0.5],
        num_recursion_steps=2,
        include_electrostatic_self_interaction=True,
        add_local_electron_energy=True,
        field_norm_factor=1.0,
        fixedpoint_update_config={
            "type": "AgnosticEmbeddedOneBodyVariableUpdate",
            "potential_embedding_cls": "AgnosticChargeBiasedLinearPotentialEmbedding",
            "nonlinearity_cls": "MLPNonLinearity",
        },
        field_readout_config={"type": "OneBodyMLPFieldReadout"},
    )
    with torch.no_grad():  # Fukui weights that do not nearly add up to nothing
        module.fukui_source_map.linear_2.bias.fill_(3.0)
        for step in module.field_dependent_charges_maps:
            step.readout.linear_2.bias[-2:] = 30.0
    return module


def torch_batch(atoms: ase.Atoms, r_max: float) -> dict[str, torch.Tensor]:
    """The batch of a structure with a box that costs nothing."""
    from mace import data
    from mace.tools import AtomicNumberTable, torch_geometric

    keys = data.KeySpecification(
        info_keys={"total_charge": "charge", "total_spin": "spin"}, arrays_keys={}
    )
    named = atoms.copy()
    named.info = {
        "charge": atoms.info["total_charge"],
        "spin": atoms.info["total_spin"],
        "external_field": np.zeros(3),
    }
    configuration = data.config_from_atoms(named, key_specification=keys, head_name="Default")
    of_mace = data.AtomicData.from_config(
        configuration, z_table=AtomicNumberTable(list(ELEMENTS)), cutoff=r_max, heads=["Default"]
    )
    loader = torch_geometric.dataloader.DataLoader([of_mace], batch_size=1)
    batch = next(iter(loader)).to_dict()
    batch["cell"] = BOX * torch.eye(3)
    batch["rcell"] = 2.0 * np.pi / BOX * torch.eye(3)
    batch["volume"] = torch.tensor(BOX**3)
    return batch


def cluster(atoms: int) -> ase.Atoms:
    """Water without periodic directions, a doublet."""
    found = water_box(atoms)
    found.pbc, found.info = False, {"total_charge": 1.0, "total_spin": 2.0}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", type=int, nargs="+", default=[30, 100, 300])
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--float32", action="store_true", help="in single precision")
    parser.add_argument("--seconds", type=float, default=8.0, help="for every size and side")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    keep_freed_memory()  # of both sides
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_default_dtype(torch.float64)
    module = torch_module(given.channels)
    model = import_model(torch_model_of(module))
    if given.float32:
        torch.set_default_dtype(torch.float32)
        module, model = module.float(), model.using(dtype="float32")
    parameters = jax.tree.map(jax.numpy.asarray, model.parameters)
    compiled = jax.jit(lambda params, graph: model.evaluate(params, graph, forces=True))
    print("atoms  neighbours      here/ms   PyTorch/ms  ratio  energies  forces differ by")
    for count in given.atoms:
        atoms = cluster(count)
        structure = model.prepare(from_atoms(atoms))
        stacked = stack([structure], (*GRAPH_INPUTS, *ATOM_INPUTS))
        sizes = StructureSizes.of(stacked).of_one_batch("per_atom", padding=False)
        batch = padded(stacked, sizes, dtype=model.dtype, labels=False, padding=False)
        graph = jax.tree.map(jax.numpy.asarray, batch)
        theirs = torch_batch(atoms, model.settings.backbone.r_max)

        def run_torch(theirs: Any = theirs) -> dict[str, Any]:
            return module(theirs, compute_force=True)

        def run_ours(graph: Any = graph) -> dict[str, Any]:
            return jax.block_until_ready(compiled(parameters, graph))

        expected, found = run_torch(), run_ours()
        energy = abs(float(found["energy"][0]) - float(expected["energy"][0]))
        forces = np.asarray(found["forces"])[: len(atoms)] - expected["forces"].detach().numpy()
        times = time_in_turns(
            {"here": run_ours, "PyTorch": run_torch},
            seconds=given.seconds,
            least=3,
            clock=time.process_time,
        )
        here, other = (1e3 * times[name]["median_s"] for name in ("here", "PyTorch"))
        neighbours = structure.num_edges / len(atoms)
        print(
            f"{len(atoms):5d}  {neighbours:10.1f}  {here:11.1f}  {other:11.1f}  {other / here:5.1f}"
            f"  {energy:8.1e}  {np.abs(forces).max():8.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
