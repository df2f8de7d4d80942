"""Label water clusters with GFN2-xTB: ``python make_data.py`` (needs ``pip install tblite``).

The neutral clusters of two to four molecules of ../water_ions, and distorted copies. A fifth of the
clusters goes into test.xyz, with dipoles and Born charges; the others into train.xyz, with energies
and forces alone.
"""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
from tblite.ase import TBLite

HERE = Path(__file__).parent
KINDS = ("w_w", "w_w_w", "w_w_w_w")
COPIES = 2
WIDTH = 0.06
"""Of the distortions, in Å."""
LARGEST_FORCE = 10.0
"""eV/Å; clusters with a larger one are left out."""
STEP = 0.005
"""Displacement of the differences that Born charges are made of, in Å."""


def calculated(atoms: ase.Atoms) -> ase.Atoms:
    """The bare atoms with a calculator that has been run."""
    bare = ase.Atoms(atoms.numbers, atoms.positions - atoms.positions.mean(axis=0))
    bare.calc = TBLite(method="GFN2-xTB", verbosity=0)
    bare.get_potential_energy()
    return bare


def born_charges(atoms: ase.Atoms) -> np.ndarray:
    """Z_i,ab = ∂D_a/∂r_i,b in e: rows of the dipole, columns of the displacement."""
    charges = np.zeros((len(atoms), 3, 3))
    for atom in range(len(atoms)):
        for direction in range(3):
            ends = []
            for sign in (1, -1):
                moved = atoms.copy()
                moved.positions[atom, direction] += sign * STEP
                moved.calc = atoms.calc
                ends.append(moved.get_dipole_moment())
            charges[atom, :, direction] = (ends[0] - ends[1]) / (2.0 * STEP)
    return charges


def main() -> None:
    """Write both files."""
    rng = np.random.default_rng(0)
    parts: dict[str, list[ase.Atoms]] = {"train": [], "test": []}
    for atoms in ase.io.read(HERE.parent / "water_ions/train.xyz", ":"):
        if atoms.info["config_type"] not in KINDS:
            continue
        part = "test" if rng.uniform() < 0.2 else "train"
        for copy in range(1 if part == "test" else COPIES + 1):
            moved = atoms.copy()
            if copy:
                moved.positions += rng.normal(scale=WIDTH, size=moved.positions.shape)
            cluster = calculated(moved)
            forces = cluster.get_forces()
            if abs(forces).max() > LARGEST_FORCE:
                continue
            cluster.info["REF_energy"] = cluster.get_potential_energy()
            cluster.arrays["REF_forces"] = forces
            if part == "test":
                cluster.info["REF_dipole"] = cluster.get_dipole_moment()
                cluster.arrays["REF_born_charges"] = born_charges(cluster).reshape(-1, 9)
            cluster.calc = None
            parts[part].append(cluster)
    for part, clusters in parts.items():
        ase.io.write(HERE / f"{part}.xyz", clusters)


if __name__ == "__main__":
    main()
