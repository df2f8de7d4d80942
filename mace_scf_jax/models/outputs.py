"""Every output that a model can have: what it is, and where it is given.

Predictions, results, calculators, files, committees and exported functions read this table. A
module that adds an output to a model describes it once, with `OUTPUTS.add`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Literal

from mace_scf_jax.registry import Registry, UnknownNameError, unknown_name
from mace_scf_jax.scf.status import SolverStatus


class Use(enum.Flag):
    """Where an output is given besides predictions, which have all of them."""

    NOWHERE = 0
    FILES = enum.auto()
    """In files of structures."""
    FILES_IF_ASKED_FOR = enum.auto()
    """In files of structures for which it is asked for by name."""
    COMMITTEES = enum.auto()
    """A committee has its mean and its standard deviation."""
    CALCULATORS = enum.auto()
    """Among the results of ASE calculators, under its name."""
    EVERYWHERE = FILES | COMMITTEES | CALCULATORS


@dataclasses.dataclass(frozen=True)
class Search:
    """What is said about a search that did not find what it looked for."""

    failure: str
    """What was not found, in words."""
    steps: str
    """Name of the output that counts the steps."""
    residual: str
    """Name of the output that tells how far from the solution the search ended."""
    advice: Mapping[SolverStatus, str]
    """What to do, by how the search ended."""
    command: str | None = None
    """What shows more about such searches."""


@dataclasses.dataclass(frozen=True)
class Output:
    """One output of models: an array with a row for each atom, or for each graph, of a batch.

    Raises:
        ValueError: its rows are neither those of atoms nor of graphs.
    """

    name: str
    per: Literal["atom", "graph"]
    """What the rows belong to."""
    unit: str
    """Empty for counts and for how searches ended."""
    meaning: str
    shape: str = ""
    """Of one row, in words; empty for one number."""
    uses: Use = Use.NOWHERE
    written_as: str | None = None
    """Name in files, after the prefix; None for its own."""
    also_written_as: str | None = None
    """A second name in files, which others read."""
    search: Search | None = None
    """For an output that is a `SolverStatus`: the search that it tells the end of."""

    def __post_init__(self) -> None:
        if self.per not in ("atom", "graph"):
            raise ValueError(f"output {self.name}: expected per atom or graph, found {self.per!r}")

    @property
    def per_atom(self) -> bool:
        """Whether there is one row per atom."""
        return self.per == "atom"

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names in files of structures, after the prefix."""
        own = self.written_as or self.name
        return (own,) if self.also_written_as is None else (own, self.also_written_as)


class Outputs(Registry[Output]):
    """Outputs by name."""

    def add(self, thing: Output) -> Output:
        """Add an output.

        Raises:
            ValueError: another output has its name, or its name in files.
        """
        for known in self.values():
            shared = set(known.file_names).intersection(thing.file_names)
            if known.name != thing.name and shared:
                raise ValueError(
                    f"output {thing.name}: expected a name in files of its own, found "
                    f"{shared.pop()!r}, that of {known.name}"
                )
        return super().add(thing)

    def __getitem__(self, name: str) -> Output:
        """The output of a name.

        Raises:
            UnknownNameError: there is none.
        """
        if name not in self:
            raise UnknownNameError(
                f"{unknown_name(self.kind, name, self)}. What models return has to be described "
                "with `mace_scf_jax.models.OUTPUTS.add`"
            )
        return super().__getitem__(name)


SELF_CONSISTENCY = Search(
    failure="multipoles not self-consistent",
    steps="scf_steps",
    residual="scf_residual",
    advice={
        SolverStatus.MAX_STEPS: "allow more steps",
        SolverStatus.DIVERGED: "choose the solver 'auto', which does not follow diverging cycles",
        SolverStatus.SINGULAR: "look at the charge response: the charge may not answer to the "
        "Fermi level",
    },
    command="`mace-scf-jax scf` shows how each solver fares",
)
"""The search for multipoles that answer the potential that they cause."""

MINIMISATION = Search(
    failure="multipoles not at the minimum of their energy",
    steps="solver_steps",
    residual="charge_residual",
    advice={
        SolverStatus.MAX_STEPS: "allow more steps (max_steps of the energy functional)",
        SolverStatus.DIVERGED: "look for coinciding atoms and strong fields",
        SolverStatus.SINGULAR: "compare the structure with the training data: the learned energy "
        "may have no minimum there",
    },
)
"""The search for multipoles of least energy."""

_ALL = Use.EVERYWHERE
_NOT_IN_FILES = Use.COMMITTEES | Use.CALCULATORS
_NOT_AVERAGED = Use.FILES | Use.CALCULATORS

OUTPUTS = Outputs(
    "output",
    Output("energy", "graph", "eV", "total energy", uses=_ALL),
    Output("forces", "atom", "eV/Å", "-dE/dr", "3", _ALL),
    Output("stress", "graph", "eV/Å³", "dE/dε / volume, positive under tension", "3×3", _ALL),
    Output("virials", "graph", "eV", "-dE/dε", "3×3", Use.COMMITTEES),
    Output("node_energy", "atom", "eV", "parts of the energy of an atom", "", Use.COMMITTEES),
    Output(
        "contributions",
        "graph",
        "eV",
        "parts of the energy: isolated atoms, readout of each layer",
        "terms",
        Use.FILES_IF_ASKED_FOR | Use.COMMITTEES,
        written_as="BO_contributions",
    ),
    Output(
        "interaction_energy",
        "graph",
        "eV",
        "energy beyond that of the isolated atoms",
        "",
        Use.FILES | Use.COMMITTEES,
    ),
    Output("electrostatic_energy", "graph", "eV", "Coulomb part of the energy", uses=_ALL),
    Output("dispersion_energy", "graph", "eV", "dispersion part of the energy", uses=_ALL),
    Output("field_energy", "graph", "eV", "part of the energy, from field features", uses=_ALL),
    Output("equilibration_energy", "graph", "eV", "least energy of the charges", uses=_ALL),
    Output("functional_energy", "graph", "eV", "least energy of the multipoles", uses=_ALL),
    Output(
        "multipoles",
        "atom",
        "e Å^l",
        "atomic multipoles: Q, d_y, d_z, d_x, …",
        "(L + 1)²",
        _ALL,
        also_written_as="density_coefficients",
    ),
    Output("charges", "atom", "e", "the charges Q of the multipoles", uses=_ALL),
    Output(
        "spin_multipoles",
        "atom",
        "e Å^l",
        "multipoles of the spin density, of unpaired electrons",
        "(L + 1)²",
        _ALL,
        also_written_as="spin_density",
    ),
    Output(
        "spins", "atom", "1", "unpaired electrons, the charges of the spin multipoles", "", _ALL
    ),
    Output("dipole", "graph", "e Å", "dipole x, y, z", "3", _ALL),
    Output("total_charge", "graph", "e", "sum of the charges", "", Use.FILES | Use.COMMITTEES),
    Output("polarizability", "graph", "e Å²/V", "from a readout", "3×3", _ALL),
    Output(
        "electronegativity",
        "atom",
        "eV/e",
        "pull of an atom on charge, the field included",
        "",
        _NOT_IN_FILES,
    ),
    Output("hardness", "atom", "eV/e²", "stiffness of the charge of an atom", "", _NOT_IN_FILES),
    Output("chemical_potential", "graph", "eV/e", "dE/dQ of the structure", uses=_ALL),
    Output(
        "charge_residual",
        "graph",
        "eV/(e Å^l)",
        "largest component of dE/dp that is left",
        uses=_NOT_AVERAGED,
    ),
    Output("solver_steps", "graph", "", "steps of the minimisation", uses=_NOT_AVERAGED),
    Output(
        "solver_status",
        "graph",
        "",
        "how the minimisation ended",
        uses=_NOT_AVERAGED,
        search=MINIMISATION,
    ),
    Output("fermi_level", "graph", "eV", "Fermi level", uses=_ALL),
    Output("electrostatic_potentials", "atom", "V", "potential, the field included", uses=_ALL),
    Output(
        "local_multipoles",
        "atom",
        "e Å^l",
        "multipoles before they answer any potential",
        "(L + 1)²",
        Use.COMMITTEES,
    ),
    Output(
        "field_features",
        "atom",
        "1",
        "normalised potentials around the atoms",
        "features",
        Use.CALCULATORS,
    ),
    Output(
        "born_charges",
        "atom",
        "e",
        "∂D_a/∂r_b, rows a of the dipole, on request",
        "3×3",
        Use.FILES_IF_ASKED_FOR,
    ),
    Output(
        "shortest_distance",
        "graph",
        "Å",
        "of two atoms within the cutoff; infinite without any",
    ),
    Output(
        "descriptors",
        "atom",
        "1",
        "raw features of the descriptor, on request",
        "features",
        Use.FILES_IF_ASKED_FOR,
    ),
    Output(
        "extrapolation",
        "atom",
        "",
        "fraction of the features outside the range of the training set, on request",
        "",
        Use.FILES | Use.COMMITTEES,
    ),
    Output(
        "scf_status",
        "graph",
        "",
        "how the search for the multipoles ended",
        uses=_NOT_AVERAGED,
        search=SELF_CONSISTENCY,
    ),
    Output("scf_steps", "graph", "", "steps of the search", uses=_NOT_AVERAGED),
    Output("scf_evaluations", "graph", "", "evaluations of F(p, μ)", uses=_NOT_AVERAGED),
    Output(
        "scf_residual",
        "graph",
        "e",
        "mean change of the multipoles that is left",
        uses=_NOT_AVERAGED,
    ),
    Output("scf_charge_error", "graph", "e", "wanted charge minus charge", "", Use.CALCULATORS),
    Output("scf_fallback", "graph", "", "whether a second solver took over"),
    Output("scf_history", "graph", "e", "residual of every step, then of the last", "steps"),
    Output("scf_states", "atom", "e Å^l", "multipoles of every step", "steps + 1, (L + 1)²"),
)
"""All outputs by name; plugins add theirs."""

ENERGIES = ("energy", "node_energy", "contributions", "interaction_energy")
"""Outputs of every family."""
DENSITY = ("electrostatic_energy", "multipoles", "charges", "dipole", "total_charge")
"""Further outputs of every family with charges."""
DISTANCES = ("shortest_distance",)
"""Further outputs of models that are not meant for any distance."""
DISPERSION = ("dispersion_energy",)
"""Further outputs of models with dispersion."""
DERIVATIVES = ("forces", "stress", "virials")
"""What is derived from the energy of any family where it is asked for."""


def outputs_for(use: Use) -> list[Output]:
    """The outputs that are given somewhere."""
    return [entry for entry in OUTPUTS.values() if use & entry.uses]


def ends_of_searches(names: Iterable[str]) -> list[Output]:
    """Those of some outputs that tell how a search ended: 0, `SolverStatus.CONVERGED`, is well.

    Args:
        names: of the outputs.
    """
    known = [OUTPUTS[name] for name in names if name in OUTPUTS]
    return [entry for entry in known if entry.search is not None]
