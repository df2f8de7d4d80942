"""``mace-scf-jax potential``: the electrostatic potential of a structure in space."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import ase
import numpy as np

from mace_scf_jax.boundary import BoundaryMode
from mace_scf_jax.data.errors import DataError, Location
from mace_scf_jax.data.reading import read_atoms
from mace_scf_jax.late import import_all
from mace_scf_jax.maps.defaults import DEFAULT_MARGIN, DEFAULT_SPACING
from mace_scf_jax.predict.convergence import NotConverged
from mace_scf_jax_cli import work
from mace_scf_jax_cli.arguments import (
    add_scf_arguments,
    add_use_arguments,
    options_of_use,
    picture,
    self_consistency_of,
)

if TYPE_CHECKING:
    from mace_scf_jax.maps.atomic_multipoles import AtomicMultipoles
    from mace_scf_jax.maps.density_map import density_at
    from mace_scf_jax.maps.potential_map import (
        Grid,
        plane_grid,
        potential_at,
        predicted_multipoles,
        require_multipoles,
        volume_grid,
        write_cube_file,
    )
    from mace_scf_jax.predict.model import Model, load_model

WHEN_INTERRUPTED = "interrupted"
PLANES = ("xy", "xz", "yz")


def run(words: Sequence[str]) -> int:
    """Do as the words after ``mace-scf-jax potential`` say; returns the exit status."""
    parser = _parser()
    given = parser.parse_args(words)
    if given.cube is None and given.plot is None:
        parser.error("expected --cube OUT.cube, --plot OUT.png, or both")
    import_all(__name__, __file__)
    work.begin()
    for path in (given.cube, given.plot):
        if path is not None and not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"{path}: no such folder")
    model = load_model(given.model, scf=self_consistency_of(given), **options_of_use(given))
    require_multipoles(model)
    atoms = _read_one(given.structures, given.index)
    if given.quantity == "density" and (given.external_field or given.fermi_level):
        parser.error("--external-field and --fermi-level add to a potential, not to a density")
    if given.fermi_level and not model.is_self_consistent:
        raise ValueError(
            f"--fermi-level: expected a self-consistent model, found one of the family "
            f"{model.settings.family}"
        )
    sources, level = _sources(model, atoms, given)
    content, unit, values_on = _quantity(given.quantity, sources, level)
    lengths = {"spacing": given.spacing, "margin": given.margin}
    if given.cube is not None:
        grid = volume_grid(atoms, **lengths)
        values = _map(given.quantity, unit, values_on, grid)
        write_cube_file(given.cube, atoms, grid, values, content=content)
        print(f"Wrote {given.cube}")
    if given.plot is not None:
        grid = plane_grid(atoms, given.plane, height=given.height, **lengths)
        values = _map(given.quantity, unit, values_on, grid)
        label = f"{given.quantity} / {unit}"
        print(f"Wrote {_plot(atoms, grid, values, given.plane, given.plot, label)}")
    return 0


def _read_one(path: str, index: int) -> ase.Atoms:
    """One structure of a file, counted from the end if the index is negative."""
    structures = read_atoms(path)
    if not -len(structures) <= index < len(structures):
        raise DataError(
            f"{path}: found {len(structures)} structures, expected more for --index {index}"
        )
    return structures[index]


def _sources(
    model: Model, atoms: ase.Atoms, given: argparse.Namespace
) -> tuple[AtomicMultipoles, float]:
    """Predict the multipoles of a structure, and the level to be added to their potential."""
    configuration = model.read(atoms, Location(str(given.structures), given.index))
    (prediction,) = model.predict_structures(
        [model.prepare(configuration)], forces=False, not_converged=given.not_converged
    )
    field = configuration.values["external_field"]
    sources = predicted_multipoles(
        model,
        atoms,
        prediction,
        external_field=field if given.external_field else None,
        boundary=given.boundary,
    )
    return sources, float(prediction["fermi_level"]) if given.fermi_level else 0.0


def _quantity(
    name: str, sources: AtomicMultipoles, level: float
) -> tuple[str, str, Callable[[np.ndarray], np.ndarray]]:
    """What is mapped: a description in ASCII, its unit, and its values at points."""
    if name == "density":
        return "charge density in e/Angstrom^3", "e/Å³", partial(density_at, sources)
    content = "electrostatic potential in V"
    return content, "V", lambda points: potential_at(sources, points).potential + level


def _map(
    name: str, unit: str, values_on: Callable[[np.ndarray], np.ndarray], grid: Grid
) -> np.ndarray:
    """Values on a grid, with a line about them."""
    values = values_on(grid.points)
    size = " x ".join(map(str, grid.shape))
    print(f"{size} points: {name} from {values.min():.3f} to {values.max():.3f} {unit}")
    return values


def _plot(
    atoms: ase.Atoms, grid: Grid, values: np.ndarray, plane: str, path: Path, label: str
) -> Path:
    from mace_scf_jax.reports.potential_plane import potential_plane  # slow to import
    from mace_scf_jax.reports.style import save

    return save(potential_plane(atoms, grid, values, plane, label=label), path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax potential",
        description="Predict the multipoles of a structure and write their electrostatic "
        "potential or their density as a cube file, draw it on a plane, or both.",
        allow_abbrev=False,
    )
    parser.add_argument("model", metavar="MODEL", help="model file written by training")
    parser.add_argument("structures", metavar="FILE", help="structures (any format of ASE)")
    parser.add_argument(
        "--index", type=int, default=0, metavar="I", help="which structure, from 0 (default: 0)"
    )
    parser.add_argument("--cube", type=Path, metavar="OUT.cube", help="cube file, V or e/Å³")
    parser.add_argument("--plot", type=picture, metavar="OUT.png", help="picture (.png or .pdf)")
    parser.add_argument(
        "--quantity",
        choices=("potential", "density"),
        default="potential",
        help="what is written or drawn (default: potential)",
    )
    parser.add_argument(
        "--plane", choices=PLANES, default="xy", help="plane of the picture (default: xy)"
    )
    parser.add_argument(
        "--height",
        type=float,
        metavar="Å",
        help="where the plane is on the third axis (default: the middle of the atoms)",
    )
    parser.add_argument(
        "--spacing",
        type=float,
        default=DEFAULT_SPACING,
        metavar="Å",
        help=f"largest distance of neighbouring points (default: {DEFAULT_SPACING})",
    )
    parser.add_argument(
        "--margin",
        type=float,
        default=DEFAULT_MARGIN,
        metavar="Å",
        help=f"around the atoms along open directions (default: {DEFAULT_MARGIN})",
    )
    parser.add_argument(
        "--external_field",
        action="store_true",
        help="add the potential of the external field of the structure",
    )
    parser.add_argument(
        "--fermi_level",
        action="store_true",
        help="add the Fermi level of a self-consistent model, eV, to the potential",
    )
    parser.add_argument(
        "--boundary",
        choices=tuple(mode.value for mode in BoundaryMode),
        metavar="MODE",
        help="boundary condition (default: exact where the model has it, else auto; both sum over "
        "pairs of an open structure)",
    )
    add_use_arguments(parser)
    add_scf_arguments(parser)
    parser.add_argument(
        "--not_converged",
        choices=get_args(NotConverged),
        default="raise",
        metavar="POLICY",
        help=f"{', '.join(get_args(NotConverged))}: what to do if the multipoles are not "
        "self-consistent (default: raise)",
    )
    return parser
