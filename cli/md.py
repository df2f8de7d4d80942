"""``mace-scf-jax md``: molecular dynamics with a model."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from mace_scf_jax_cli import work
from mace_scf_jax_cli.arguments import (
    add_committee_arguments,
    add_input_arguments,
    add_use_arguments,
    load_predictor,
    options_of_use,
    read_start,
    set_inputs,
)

if TYPE_CHECKING:
    from mace_scf_jax.progress import Bar
    from mace_scf_jax.simulate.observation import LogRow
    from mace_scf_jax.simulate.settings import SimulationSettings
    from mace_scf_jax.simulate.trajectory import SimulationFiles

WHEN_INTERRUPTED = "interrupted; the same command with --restart goes on from the last frame"

EXIT_UNCERTAIN = 1

LARGEST_STRAIN = 0.1
"""Change of the cell that one set of reciprocal vectors serves at constant pressure."""


def run(words: Sequence[str]) -> int:
    """Simulate as the words after ``mace-scf-jax md`` say.

    Returns:
        0, or 1 if the members of a committee disagreed too much.
    """
    given = _parser().parse_args(words)
    from mace_scf_jax.files import file_checksum  # what follows takes seconds to import
    from mace_scf_jax.predict.committee import Committee
    from mace_scf_jax.simulate import committee_energy_function, energy_function
    from mace_scf_jax.simulate.settings import SimulationError, SimulationSettings
    from mace_scf_jax.simulate.simulation import Simulation
    from mace_scf_jax.simulate.stopping import EvaluationStatus, SimulationStopped
    from mace_scf_jax.simulate.trajectory import SimulationFiles, conditions, run

    signs = work.begin()
    settings = SimulationSettings(
        **{
            field.name: getattr(given, field.name)
            for field in dataclasses.fields(SimulationSettings)
        }
    )
    files = SimulationFiles(given.output)
    if given.restart and given.overwrite:
        raise SimulationError("found both --restart and --overwrite, expected at most one")
    if not (given.restart or given.overwrite):
        files.require_none()
    loaded = load_predictor(given.model, given, **options_of_use(given))
    functions_of, model_files, followed = energy_function, (given.model,), ""
    if isinstance(loaded, Committee):
        functions_of, model_files = committee_energy_function, loaded.names
        followed = "" if loaded.reference is None else f" member {loaded.reference + 1}"
    model, checksum = loaded.first, "+".join(map(file_checksum, model_files)) + followed
    atoms = read_start(given.start)
    set_inputs(atoms, model, given)
    snapshot = None
    if given.restart:
        state = files.read_state()
        state.check(atoms, conditions(model, atoms, settings), checksum)
        snapshot = state.snapshot
        if snapshot.steps_done >= given.steps:
            raise SimulationError(
                f"--steps: found {given.steps}, expected more than the {snapshot.steps_done} steps "
                f"of {files.state}"
            )
    energy_fn, prepare = functions_of(
        loaded,
        skin=given.skin,
        largest_strain=LARGEST_STRAIN if settings.ensemble == "npt" else 0.0,
    )
    simulation = Simulation(
        energy_fn,
        prepare,
        atoms,
        settings,
        seed=given.seed,
        snapshot=snapshot,
        largest_uncertainty=given.stop_uncertainty,
    )
    if given.restart:
        files.go_back_to(state)
    else:
        files.remove()
    rows = run(
        simulation,
        files,
        num_steps=given.steps,
        every=given.every,
        log_every=given.log_every,
        model_checksum=checksum,
    )
    try:
        with (
            _picture(files, settings) if given.plot else contextlib.nullcontext(),
            signs.bar("steps", given.steps, in_lines=False) as bar,
        ):
            bar.start_at(simulation.steps_done)
            _print_rows(rows, bar, of_committee=isinstance(loaded, Committee))
    except SimulationStopped as stopped:
        if stopped.status is not EvaluationStatus.UNCERTAIN:
            raise
        print(f"stopped: {stopped}", file=sys.stderr)
        return EXIT_UNCERTAIN
    written = [files.trajectory, files.log, files.state, *([files.plot] if given.plot else [])]
    print(f"Wrote {', '.join(map(str, written))}")
    return 0


def _print_rows(rows: Iterable[LogRow], bar: Bar, *, of_committee: bool) -> None:
    """A line for each row of the log, as soon as it is there."""
    columns = [
        ("step", 10, lambda row: str(row.step)),
        ("time/ps", 10, lambda row: f"{row.time_ps:.4f}"),
        ("E_pot/eV", 16, lambda row: f"{row.potential_energy_eV:.6f}"),
        ("T/K", 8, lambda row: f"{row.temperature_K:.1f}"),
        ("P/bar", 10, lambda row: _if_there(row.pressure_bar, ".1f")),
        ("Q/e", 8, lambda row: _if_there(row.total_charge_e, "+.4f")),
        ("steps/s", 8, lambda row: _if_there(bar.rate, ".1f")),
    ]
    if of_committee:
        spread = ("σ_F/(eV/Å)", 10, lambda row: _if_there(row.force_uncertainty_eV_A, ".3f"))
        columns.insert(-1, spread)
    print(" ".join(f"{name:>{width}}" for name, width, _ in columns))
    for row in rows:
        bar.update(row.step)
        print(" ".join(f"{text(row):>{width}}" for _, width, text in columns), flush=True)


def _if_there(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


@contextlib.contextmanager
def _picture(files: SimulationFiles, settings: SimulationSettings) -> Iterator[None]:
    """Draw the log in the end, also of a run that stops."""
    from mace_scf_jax.reports.simulation import simulation_log
    from mace_scf_jax.reports.style import save

    try:
        yield
    finally:
        if files.log.exists():
            figure = simulation_log(
                files.log,
                temperature=None if settings.ensemble == "nve" else settings.temperature,
                pressure=settings.pressure if settings.ensemble == "npt" else None,
            )
            save(figure, files.plot)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax md",
        description="Molecular dynamics: velocity Verlet (nve), Langevin dynamics (nvt), Langevin "
        "dynamics with stochastic cell rescaling (npt).",
        allow_abbrev=False,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="model file written by training, or the folder of a committee",
    )
    parser.add_argument(
        "start",
        metavar="START",
        help="file, in any format of ASE, whose last structure is the start; total_charge, "
        "external_field, momenta and constraints (move_mask) are read from it",
    )
    add_use_arguments(parser)
    add_committee_arguments(parser)
    add_input_arguments(parser)
    parser.add_argument("--ensemble", required=True, metavar="NAME", help="nve, nvt or npt")
    parser.add_argument(
        "--steps", required=True, type=_count, metavar="N", help="steps in all, restarts included"
    )
    parser.add_argument("--timestep", type=float, default=0.5, metavar="FS", help="default: 0.5")
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="K",
        help="of the thermostat, and of initial momenta where START has none",
    )
    parser.add_argument(
        "--friction", type=float, default=1.0, metavar="1/PS", help="thermostat (default: 1)"
    )
    parser.add_argument(
        "--pressure", type=float, default=1.0, metavar="BAR", help="for npt (default: 1)"
    )
    parser.add_argument(
        "--relaxation_time",
        type=float,
        default=1.0,
        metavar="PS",
        help="of the volume, for npt (default: 1)",
    )
    parser.add_argument(
        "--compressibility",
        type=float,
        default=4.5e-5,
        metavar="1/BAR",
        help="rough, for npt (default: 4.5e-5, that of water)",
    )
    parser.add_argument(
        "--output",
        default="trajectory.xyz",
        metavar="OUT.xyz",
        help="trajectory (.xyz, .extxyz, .traj; any other format of ASE for several structures is "
        "made in the end of OUT.traj); OUT.csv and OUT.state.safetensors come beside it (default: "
        "trajectory.xyz)",
    )
    parser.add_argument(
        "--every", type=_count, default=100, metavar="N", help="steps between frames (default: 100)"
    )
    parser.add_argument(
        "--log_every",
        type=_count,
        metavar="N",
        help="steps between lines, here and in OUT.csv (default: those between frames)",
    )
    parser.add_argument(
        "--stop_uncertainty",
        type=float,
        metavar="EV/Å",
        help="of a committee: stop where the standard deviation of a force is larger (exit status "
        "1)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument(
        "--skin", type=float, default=0.5, metavar="Å", help="of the neighbour list (default: 0.5)"
    )
    parser.add_argument("--plot", action="store_true", help="draw the log as OUT.png")
    parser.add_argument("--restart", action="store_true", help="go on from the last frame")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {number}")
    return number
