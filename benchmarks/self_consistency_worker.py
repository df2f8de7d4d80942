"""One measurement of a self-consistent model in a process of its own; prints a JSON object."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from jax_worker import LOSS, batch_of, model_settings
from timing import peak_memory_mb, time_calls
from water import water_box

from mace_scf_jax.electrostatics import FieldFeatureSettings, resolve_method
from mace_scf_jax.models import ModelSettings, build, evaluate
from mace_scf_jax.models.fixed_point_settings import FixedPointSettings
from mace_scf_jax.models.self_consistency import SelfConsistency, evaluate_self_consistent
from mace_scf_jax.scf import Auto, LinearMixing
from mace_scf_jax.training.losses import weighted_loss

FIELD_FEATURES = FieldFeatureSettings(max_l=1, widths=(1.5, 3.0))
FIELD_FEATURE_NORMS = (30.0, 25.0, 4.0, 3.0)
MIXING = 0.3


def settings_of(family: str) -> ModelSettings:
    """LocalCharges, or the same with the default update and field readout on top."""
    local = model_settings("LocalCharges")
    if family == "LocalCharges":
        return local
    return dataclasses.replace(
        local,
        family="FixedPoint",
        electrostatics=dataclasses.replace(local.electrostatics, features=FIELD_FEATURES),
        fixed_point=FixedPointSettings(
            field_feature_norms=FIELD_FEATURE_NORMS, fermi_level_offset=0.0
        ),
    )


def with_usual_method(settings: ModelSettings, structures: list[Atoms]) -> ModelSettings:
    """The direct sum for small systems and a mesh for large ones, as everywhere by default."""
    electrostatics = dataclasses.replace(settings.electrostatics, method="auto")
    cells = np.stack([atoms.cell.array for atoms in structures])
    return dataclasses.replace(
        settings, electrostatics=resolve_method(electrostatics, cells, len(structures[0]))
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("evaluation", "training"))
    parser.add_argument("--family", default="FixedPoint", choices=("LocalCharges", "FixedPoint"))
    parser.add_argument("--mode", default="implicit", choices=("implicit", "unroll"))
    parser.add_argument("--steps", type=int, default=10, help="updates that are unrolled")
    parser.add_argument("--count", type=int, default=1, help="structures in the batch")
    parser.add_argument("--atoms", type=int, default=24)
    given = parser.parse_args()

    structures = [water_box(given.atoms, seed=seed) for seed in range(given.count)]
    settings = with_usual_method(settings_of(given.family), structures)
    module = build(settings)
    graph = batch_of(structures, settings, "float64", "per_atom")
    params = jax.jit(module.init)(jax.random.key(0), graph)["params"]
    unrolled = LinearMixing(max_steps=given.steps, mixing=MIXING, tolerance=1e-12)
    how = SelfConsistency(solver=Auto() if given.mode == "implicit" else unrolled)

    def outputs(params, graph):
        if given.family == "LocalCharges":
            return evaluate(module, params, graph)
        return evaluate_self_consistent(module, params, graph, how=how)

    def evaluation(params, graph):
        found = outputs(params, graph)
        return {name: found[name] for name in REPORTED if name in found}

    def training(params, graph):
        def loss(params):
            weights = {name: jnp.asarray(weight) for name, weight in LOSS.items()}
            return weighted_loss(weights, outputs(params, graph), graph)[0]

        return jax.value_and_grad(loss)(params)

    function = evaluation if given.task == "evaluation" else training
    started = time.perf_counter()
    compiled = jax.jit(function).lower(params, graph).compile()
    compile_s = time.perf_counter() - started
    found = (compiled if given.task == "evaluation" else jax.jit(evaluation))(params, graph)
    real = graph.graph_mask
    result = {
        **time_calls(lambda: jax.block_until_ready(compiled(params, graph))),
        "compile_s": compile_s,
        "temporary_memory_mb": compiled.memory_analysis().temp_size_in_bytes / 2**20,
        "peak_memory_mb": peak_memory_mb(),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    if "scf_evaluations" in found:
        result["scf_evaluations"] = int(found["scf_evaluations"][real].max())
        result["scf_status"] = found["scf_status"][real].tolist()
    print(json.dumps(result))


REPORTED = ("energy", "forces", "scf_evaluations", "scf_status")

if __name__ == "__main__":
    main()
