"""Variants of one task in a process of its own, timed in turns; prints a JSON object."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from jax_worker import LOSS, batch_of, model_settings
from timing import time_in_turns
from water import water_box

from mace_scf_jax.electrostatics import FieldFeatureSettings
from mace_scf_jax.models import ModelSettings, SelfConsistency, build, evaluate
from mace_scf_jax.models.families.fixed_point.settings import FixedPointSettings
from mace_scf_jax.scf import Auto, Differentiation, LinearMixing
from mace_scf_jax.training.losses import weighted_loss

FIELD_FEATURES = FieldFeatureSettings(max_l=1, widths=(1.5, 3.0))
FIELD_FEATURE_NORMS = (30.0, 25.0, 4.0, 3.0)
MIXING = 0.3


def settings_of(family: str) -> ModelSettings:
    """LocalCharges, or the same with the default update and field readout on top."""
    local = model_settings("LocalCharges")
    electrostatics = dataclasses.replace(local.electrostatics, sums="auto")
    local = dataclasses.replace(local, electrostatics=electrostatics)
    if family == "LocalCharges":
        return local
    return dataclasses.replace(
        local,
        family="FixedPoint",
        electrostatics=dataclasses.replace(local.electrostatics, features=FIELD_FEATURES),
        own=FixedPointSettings(field_feature_norms=FIELD_FEATURE_NORMS, fermi_level_offset=0.0),
    )


def function_of(variant: str, task: str, structures: list[Atoms]) -> tuple[Callable, tuple]:
    """A task of a variant, and its arguments.

    Args:
        variant: ``LocalCharges``, ``implicit``, or the number of steps that are unrolled.
        task: ``evaluation`` or ``training``.
        structures: of the batch.
    """
    family = "LocalCharges" if variant == "LocalCharges" else "FixedPoint"
    settings = settings_of(family)
    module = build(settings)
    graph = batch_of(structures, settings, "float64", "per_atom")
    params = jax.jit(module.init)(jax.random.key(0), graph)["params"]
    how = SelfConsistency(solver=Auto())
    if variant.isdigit():
        steps = LinearMixing(max_steps=int(variant), mixing=MIXING, tolerance=1e-12)
        how = SelfConsistency(solver=steps, differentiation=Differentiation.UNROLL)

    def outputs(params, graph):
        if family == "LocalCharges":
            return evaluate(module, params, graph)
        return evaluate(module, params, graph, how=how)

    def evaluation(params, graph):
        found = outputs(params, graph)
        return {name: found[name] for name in REPORTED if name in found}

    def training(params, graph):
        def loss(params):
            found = outputs(params, graph)
            weights = {name: jnp.asarray(weight) for name, weight in LOSS.items()}
            reported = {name: found[name] for name in REPORTED if name in found}
            return weighted_loss(weights, found, graph)[0], reported

        (value, found), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return {**found, "loss": value, "gradient": gradient}

    return (evaluation if task == "evaluation" else training), (params, graph)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("evaluation", "training"))
    parser.add_argument("--variants", nargs="+", required=True)
    parser.add_argument("--count", type=int, default=1, help="structures in the batch")
    parser.add_argument("--atoms", type=int, default=24)
    given = parser.parse_args()

    structures = [water_box(given.atoms, seed=seed) for seed in range(given.count)]
    calls, results = {}, {}
    for variant in given.variants:
        function, arguments = function_of(variant, given.task, structures)
        started = time.perf_counter()
        compiled = jax.jit(function).lower(*arguments).compile()
        results[variant] = {
            "compile_s": time.perf_counter() - started,
            "temporary_memory_mb": compiled.memory_analysis().temp_size_in_bytes / 2**20,
        }
        found, real = compiled(*arguments), np.asarray(arguments[1].graph_mask)
        if "scf_evaluations" in found:
            results[variant]["scf_evaluations"] = int(found["scf_evaluations"][real].max())
            results[variant]["scf_status"] = found["scf_status"][real].tolist()
        calls[variant] = functools.partial(_finished, compiled, arguments)
    for variant, times in time_in_turns(calls).items():
        results[variant].update(times)
    device = {"device": jax.devices()[0].device_kind, "jax": jax.__version__}
    print(json.dumps({"variants": results, **device}))


def _finished(compiled: Callable, arguments: tuple) -> None:
    jax.block_until_ready(compiled(*arguments))


REPORTED = ("energy", "forces", "scf_evaluations", "scf_status")

if __name__ == "__main__":
    main()
