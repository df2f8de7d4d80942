"""Where the time of energy + forces goes: parts of the LocalCharges benchmark model, alone.

    python benchmarks/parts.py [--atoms 192]

Each part is timed with the gradient in its inputs; the parts do not quite add up to the whole,
because the compiler fuses across their borders.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import settings as sizes
from jax_worker import batch_of, model_settings
from rich.console import Console
from rich.table import Table
from timing import time_calls
from water import water_box

from mace_scf_jax.backbones.mace.messages import Edges, aggregate_messages, message_paths
from mace_scf_jax.backbones.mace.radial import RadialNetwork, radial_embedding
from mace_scf_jax.backbones.mace.symmetric_contraction import SymmetricContraction
from mace_scf_jax.electrostatics import batch_coulomb_energy
from mace_scf_jax.layers.harmonics import edge_harmonics
from mace_scf_jax.models import build, evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atoms", type=int, default=192)
    given = parser.parse_args()
    settings = model_settings("LocalCharges")
    graph = batch_of([water_box(given.atoms)], settings, "float64", "per_atom")
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape))

    channels, atoms, edges = sizes.CHANNELS, graph.num_atoms, graph.senders.shape[0]
    vectors = graph.edge_vectors()
    paths = message_paths((0, 1), sizes.MAX_ELL, sizes.MAX_ELL)
    network = RadialNetwork((*sizes.RADIAL_MLP, len(paths) * channels))
    basis = normal(edges, 8)
    weights = network.init(jax.random.key(0), basis)
    contraction = SymmetricContraction(1, sizes.CORRELATION, len(sizes.ELEMENTS))
    components = normal(atoms, (sizes.MAX_ELL + 1) ** 2, channels)
    products = contraction.init(jax.random.key(0), components, graph.species)
    features = {0: normal(atoms, 1, channels), 1: normal(atoms, 3, channels)}

    def geometry(vectors):
        lengths = jnp.sqrt(jnp.sum(vectors**2, axis=-1))
        radial, envelope = radial_embedding(
            lengths,
            graph.species[graph.senders],
            graph.species[graph.receivers],
            elements=settings.elements,
            radial_type="bessel",
            distance_transform="None",
            cutoff=sizes.R_MAX,
            size=8,
            cutoff_exponent=5,
        )
        return edge_harmonics(vectors, sizes.MAX_ELL), radial * envelope[:, None]

    def messages(features, harmonics, radial):
        return aggregate_messages(
            features,
            radial,
            Edges(harmonics, basis, graph.senders, graph.receivers, graph.neighbours_per_atom),
            paths=paths,
        )

    def coulomb(positions, multipoles):
        moved = graph.replace(positions=positions)
        return batch_coulomb_energy(moved, multipoles, settings=settings.electrostatics)

    parts = {
        "harmonics, radial basis": (geometry, vectors),
        "radial network (one interaction)": (lambda x: network.apply(weights, x), basis),
        "sum over neighbours (second interaction)": (
            messages,
            features,
            normal(edges, (sizes.MAX_ELL + 1) ** 2),
            normal(edges, len(paths) * channels),
        ),
        "symmetric contraction (one layer)": (
            lambda x: contraction.apply(products, x, graph.species),
            components,
        ),
        "Coulomb energy": (coulomb, graph.positions, normal(atoms, 4)),
    }
    module = build(settings)
    params = jax.jit(module.init)(jax.random.key(0), graph)["params"]
    whole = jax.jit(lambda graph: evaluate(module, params, graph)["forces"])

    table = Table(title=f"{given.atoms} atoms, value and gradient")
    table.add_column("part")
    table.add_column("ms", justify="right")
    for name, (function, *arguments) in parts.items():
        gradient = jax.jit(
            jax.grad(
                lambda *inputs, function=function: sum(
                    jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(function(*inputs))
                ),
                argnums=tuple(range(len(arguments))),
            )
        )
        result = time_calls(
            lambda gradient=gradient, arguments=arguments: jax.block_until_ready(
                gradient(*arguments)
            ),
            seconds=2.0,
        )
        table.add_row(name, f"{1e3 * result['median_s']:.1f}")
    result = time_calls(lambda: jax.block_until_ready(whole(graph)), seconds=3.0)
    table.add_row("whole model, energy and forces", f"{1e3 * result['median_s']:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
