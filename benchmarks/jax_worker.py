"""One measurement of mace-scf-jax in a process of its own; prints a JSON object."""

from __future__ import annotations

import argparse
import json
import time

import settings as sizes
from timing import peak_memory_mb, time_calls
from water import water_box

from mace_scf_jax import runtime

runtime.keep_freed_memory()

import jax
import jax.numpy as jnp

from mace_scf_jax.backbones import MACESettings
from mace_scf_jax.data.collate import collate
from mace_scf_jax.data.configuration import from_atoms
from mace_scf_jax.data.sizes import required_sizes
from mace_scf_jax.data.structure import prepare
from mace_scf_jax.electrostatics import ElectrostaticsSettings, choose_mesh
from mace_scf_jax.models import ModelSettings, build, evaluate
from mace_scf_jax.predict.model import Model
from mace_scf_jax.training.losses import weighted_loss


def model_settings(family: str) -> ModelSettings:
    charged = family == "LocalCharges"
    return ModelSettings(
        family=family,
        backbone=MACESettings(
            elements=sizes.ELEMENTS,
            hidden_irreps=f"{sizes.CHANNELS}x0e + {sizes.CHANNELS}x1o",
            r_max=sizes.R_MAX,
            max_ell=sizes.MAX_ELL,
            correlation=sizes.CORRELATION,
            num_interactions=sizes.NUM_INTERACTIONS,
            radial_MLP=sizes.RADIAL_MLP,
            avg_num_neighbors=sizes.AVERAGE_NEIGHBOURS,
            scalar_last_layer=not charged,
        ),
        atomic_energies=sizes.ATOMIC_ENERGIES,
        electrostatics=ElectrostaticsSettings(
            max_l=1,
            smearing_width=sizes.SMEARING_WIDTH,
            kspace_cutoff_factor=sizes.KSPACE_CUTOFF_FACTOR,
            boundary="pbc",
        )
        if charged
        else None,
    )


def mesh_of(settings: ModelSettings, atoms):
    """The mesh of the electrostatic sums, if the settings ask for one."""
    if settings.electrostatics is None:
        return None
    return choose_mesh(settings.electrostatics, atoms.cell.array, len(atoms))


def batch_of(structures, settings: ModelSettings, dtype: str, layout: str):
    prepared = [
        prepare(
            from_atoms(atoms),
            elements=settings.elements,
            cutoff=settings.backbone.r_max,
            kspace_cutoff=settings.kspace_cutoff,
            mesh=mesh_of(settings, atoms),
        )
        for atoms in structures
    ]
    alone = len(prepared) == 1  # without padding, as in a simulation
    sizes = required_sizes(prepared, layout, padding=not alone)
    if not alone:
        sizes = sizes.rounded()
    return jax.device_put(collate(prepared, sizes, dtype=dtype, padding=not alone))


def random_model(family: str = "LocalCharges", dtype: str = "float64") -> Model:
    """A model with random weights, good for speed only."""
    settings = model_settings(family)
    graph = batch_of([water_box(24)], settings, dtype, "per_atom")
    return Model(settings, jax.jit(build(settings).init)(jax.random.key(0), graph)["params"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("evaluation", "training"))
    parser.add_argument("--family", default="LocalCharges")
    parser.add_argument("--atoms", type=int, default=24)
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--layout", default="per_atom")
    given = parser.parse_args()

    settings = model_settings(given.family)
    module = build(settings)
    if given.task == "evaluation":
        structures = [water_box(given.atoms)]
    else:
        count, atoms = sizes.TRAINING_BATCH
        structures = [water_box(atoms, seed=seed) for seed in range(count)]
    graph = batch_of(structures, settings, given.dtype, given.layout)
    params = jax.jit(module.init)(jax.random.key(0), graph)["params"]
    params = jax.tree.map(lambda leaf: leaf.astype(given.dtype), params)

    def energy_and_forces(params, graph):
        outputs = evaluate(module, params, graph)
        return outputs["energy"], outputs["forces"]

    def training_gradient(params, graph):
        def loss(params):
            weights = {name: jnp.asarray(w, given.dtype) for name, w in LOSS.items()}
            return weighted_loss(weights, evaluate(module, params, graph), graph)[0]

        return jax.value_and_grad(loss)(params)

    function = energy_and_forces if given.task == "evaluation" else training_gradient
    started = time.perf_counter()
    compiled = jax.jit(function).lower(params, graph).compile()
    compile_s = time.perf_counter() - started
    result = time_calls(lambda: jax.block_until_ready(compiled(params, graph)))
    print(
        json.dumps(
            {
                **result,
                "compile_s": compile_s,
                "peak_memory_mb": peak_memory_mb(),
                "edges": int(graph.edge_mask.sum()),
                "device": jax.devices()[0].device_kind,
                "jax": jax.__version__,
            }
        )
    )


LOSS = {"energy_per_atom": 1.0, "forces": 10.0}

if __name__ == "__main__":
    main()
