"""One measurement of our electrostatics in a process of its own; prints a JSON object."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

import electrostatics_case as case
import numpy as np
from timing import peak_memory_mb, time_calls

from mace_scf_jax import runtime

runtime.keep_freed_memory()

import jax
import jax.numpy as jnp

from mace_scf_jax.data.reciprocal import half_space_indices
from mace_scf_jax.electrostatics import (
    ElectrostaticsSettings,
    FieldFeatureSettings,
    Mesh,
    choose_mesh,
    prepare,
    system_energy,
    system_field_features,
)

SETTINGS = ElectrostaticsSettings(
    max_l=case.MAX_L,
    smearing_width=case.SMEARING_WIDTH,
    kspace_cutoff_factor=case.KSPACE_CUTOFF_FACTOR,
    boundary="pbc",
    features=FieldFeatureSettings(max_l=case.FEATURE_MAX_L, widths=case.FEATURE_WIDTHS),
    mesh_accuracy=case.MESH_ACCURACY,
)


def geometries(
    boxes: list, settings: ElectrostaticsSettings, mesh: Mesh | None, dtype: str
) -> dict[str, np.ndarray]:
    """Arguments of `prepare` with a leading axis of systems; all have as many atoms."""
    cells = np.stack([box.cell.array for box in boxes])
    indices = [np.zeros((0, 3), dtype=np.int32) for _ in boxes]
    if mesh is None:
        indices = [half_space_indices(cell, settings.kspace_cutoff) for cell in cells]
    most = max(map(len, indices))
    padded = [np.pad(index, ((0, most - len(index)), (0, 0))) for index in indices]
    return {
        "positions": np.stack([box.positions for box in boxes]).astype(dtype),
        "atom_mask": np.ones((len(boxes), len(boxes[0])), dtype=bool),
        "cell": cells.astype(dtype),
        "pbc": np.ones((len(boxes), 3), dtype=bool),
        "k_indices": np.stack(padded).astype(np.int32),
        "k_mask": np.stack([np.arange(most) < len(index) for index in indices]),
    }


def measured_function(task: str, settings: ElectrostaticsSettings, mesh: Mesh | None):
    def one_system(positions, multipoles, geometry):
        system = prepare(**{**geometry, "positions": positions}, settings=settings, mesh=mesh)
        if task.startswith("energy"):
            return system_energy(system, multipoles)
        return system_field_features(system, multipoles)

    def over_systems(positions, multipoles, geometry):
        return jax.vmap(one_system)(positions, multipoles, geometry)

    if not task.endswith("gradient"):
        return over_systems

    def total(positions, multipoles, geometry):
        values = over_systems(positions, multipoles, geometry)
        return jnp.sum(values if task.startswith("energy") else values * values)

    return jax.value_and_grad(total, argnums=(0, 1))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=case.TASKS)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--atoms", type=int, default=192)
    parser.add_argument("--method", default="direct", choices=("direct", "mesh"))
    parser.add_argument("--dtype", default="float64")
    given = parser.parse_args()

    boxes, multipoles = case.structures(given.count, given.atoms)
    cells = np.stack([box.cell.array for box in boxes])
    settings = dataclasses.replace(SETTINGS, sums=given.method)
    mesh = choose_mesh(settings, cells, len(boxes[0]))
    geometry = geometries(boxes, settings, mesh, given.dtype)
    multipoles = multipoles.reshape(given.count, -1, multipoles.shape[1]).astype(given.dtype)
    arguments = jax.device_put((geometry["positions"], multipoles, geometry))

    started = time.perf_counter()
    compiled = jax.jit(measured_function(given.task, settings, mesh)).lower(*arguments).compile()
    compile_s = time.perf_counter() - started
    result = time_calls(lambda: jax.block_until_ready(compiled(*arguments)))
    print(
        json.dumps(
            {
                **result,
                "compile_s": compile_s,
                "peak_memory_mb": peak_memory_mb(),
                "kvectors": int(geometry["k_mask"][0].sum()),
                "mesh": None if mesh is None else list(mesh.shape),
                "order": None if mesh is None else mesh.order,
                "device": jax.devices()[0].device_kind,
                "jax": jax.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
