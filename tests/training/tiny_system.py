"""A small linen model with the outputs of a real one, and small random labelled batches."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mace_scf_jax.graph import Graph
from mace_scf_jax.training.loop.data import TrainingData

ATOMS, EDGES, GRAPHS = 8, 16, 3


class PairLayer(nn.Module):
    @nn.compact
    def __call__(self, distances):
        hidden = nn.Dense(4, name="linear", param_dtype=distances.dtype)(distances[:, None])
        return nn.Dense(1, name="linear_up", param_dtype=distances.dtype)(jnp.tanh(hidden))[:, 0]


class TinyBackbone(nn.Module):
    def setup(self):
        self.interaction_0 = PairLayer()
        self.embedding = nn.Embed(2, 1, param_dtype=jnp.float64)

    def __call__(self, graph):
        edge_energy = self.interaction_0(jnp.linalg.norm(graph.edge_vectors(), axis=1))
        edge_energy = jnp.where(graph.edge_mask, edge_energy, jnp.zeros_like(edge_energy))
        received = jax.ops.segment_sum(edge_energy, graph.receivers, graph.num_atoms)
        return received + self.embedding(graph.species)[:, 0]


class TinyModel(nn.Module):
    def setup(self):
        self.backbone = TinyBackbone()
        self.multipole_readout_0 = nn.Dense(4, param_dtype=jnp.float64)

    def __call__(self, graph):
        site = self.backbone(graph)
        return site, self.multipole_readout_0(site[:, None])


def predict(params, graph, *, forces, stress):
    def energy(positions):
        moved = graph.replace(positions=positions)
        site, multipoles = TinyModel().apply({"params": params}, moved)
        energies = moved.sum_atoms(site)
        return jnp.sum(energies), (energies, multipoles)

    if forces:
        (_, (energies, multipoles)), gradient = jax.value_and_grad(energy, has_aux=True)(
            graph.positions
        )
    else:
        _, (energies, multipoles) = energy(graph.positions)
    charges, dipoles = multipoles[:, 0], multipoles[:, jnp.array([3, 1, 2])]
    outputs = {
        "energy": energies,
        "multipoles": multipoles,
        "total_charge": graph.sum_atoms(charges),
        "dipole": graph.sum_atoms(charges[:, None] * graph.positions + dipoles),
    }
    return {**outputs, "forces": -gradient} if forces else outputs


class TinyMode:
    """How every stage uses the tiny model."""

    name = ""

    def predict(self, params, graph, *, forces, stress):
        return predict(params, graph, forces=forces, stress=stress)


def tiny_graph(seed, *, atoms=ATOMS, edges=EDGES):
    """Two real graphs of three atoms, all pairs, and one padding graph; labels of a pair energy."""
    rng = np.random.default_rng(seed)
    real = np.arange(atoms) < 6
    atom_graph = np.array([0, 0, 0, 1, 1, 1] + [2] * (atoms - 6))
    pairs = [(i, j) for j in range(6) for i in range(6) if i != j and i // 3 == j // 3]
    senders, receivers = np.full((2, edges), atoms - 1)
    senders[: len(pairs)], receivers[: len(pairs)] = np.array(pairs).T
    slots = np.array([[0, 1, 2], [3, 4, 5], [0, 0, 0]])
    positions = np.where(real[:, None], rng.normal(size=(atoms, 3)), 0.0)
    graph_mask = np.array([True, True, False])
    weight = graph_mask.astype(float)
    multipoles = rng.normal(size=(atoms, 4)) * real[:, None]
    distance = np.array([np.linalg.norm(positions[i] - positions[j]) for i, j in pairs])
    energy = np.array([distance[:6].sum(), distance[6:12].sum(), 0.0])
    return Graph(
        positions=positions,
        species=np.where(real, np.arange(atoms) % 2, 0),
        atom_graph=atom_graph,
        atom_mask=real,
        senders=senders,
        receivers=receivers,
        cell_shifts=np.zeros((edges, 3), dtype=int),
        edge_mask=np.arange(edges) < len(pairs),
        cell=np.broadcast_to(np.eye(3), (GRAPHS, 3, 3)).copy(),
        pbc=np.zeros((GRAPHS, 3), dtype=bool),
        graph_mask=graph_mask,
        total_charge=np.zeros(GRAPHS),
        fermi_level=np.zeros(GRAPHS),
        external_field=np.zeros((GRAPHS, 3)),
        slots=slots,
        slot_mask=np.broadcast_to(graph_mask[:, None], slots.shape).copy(),
        slot_of_atom=np.where(real, np.arange(atoms) % 3, 0),
        k_indices=np.zeros((GRAPHS, 0, 3), dtype=int),
        k_mask=np.zeros((GRAPHS, 0), dtype=bool),
        repeat=np.zeros(GRAPHS),
        atom_data={},
        labels={
            "energy": energy,
            "forces": rng.normal(size=(atoms, 3)) * real[:, None],
            "atomic_multipoles": multipoles,
            "dipole": rng.normal(size=(GRAPHS, 3)),
            "total_charge": np.zeros(GRAPHS),
        },
        weights={
            "energy": weight,
            "forces": weight,
            "atomic_multipoles": weight,
            "dipole": np.broadcast_to(weight[:, None], (GRAPHS, 3)).copy(),
        },
        config_weight=np.ones(GRAPHS),
    )


def tiny_batches():
    return [tiny_graph(seed) for seed in range(4)]


def tiny_model():
    return TinyModel().init(jax.random.key(0), tiny_graph(0))["params"]


def tiny_data(batches, **changes):
    def epoch(number, *, start=0):
        order = np.random.default_rng((7, number)).permutation(len(batches))
        return [batches[index] for index in order[start:]]

    values = {
        "training": epoch,
        "sets": {"valid": lambda: batches[:2]},
    }
    return TrainingData(**(values | changes))
