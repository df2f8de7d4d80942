"""Label clusters at another level of theory: ``python make_labels.py``.

The clusters of ../water_ions, and five distorted copies of each, get energies and forces of
GFN2-xTB (``pip install tblite``). The start model is trained on gfn2_all.xyz. Kept apart are 100
for replay, gfn2_replay.xyz, and 100 to judge, gfn2_test.xyz.
"""

from __future__ import annotations

from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.calculators.calculator import CalculationFailed
from tblite.ase import TBLite

HERE = Path(__file__).parent
CLUSTERS = HERE.parent / "water_ions/train.xyz"
COPIES = 5
LARGEST_FORCE = 10.0
"""eV/Å; clusters with a larger one are left out."""
KEPT_APART = 200


def labelled(atoms: ase.Atoms, charge: float) -> ase.Atoms:
    """The atoms alone, with energy (eV) and forces (eV/Å) of GFN2-xTB."""
    bare = ase.Atoms(atoms.numbers, atoms.positions)
    bare.calc = TBLite(method="GFN2-xTB", charge=round(charge), verbosity=0)
    energy, forces = bare.get_potential_energy(), bare.get_forces()
    bare.calc = None
    bare.info |= {"REF_energy": energy, "total_charge": charge}
    bare.arrays["REF_forces"] = forces
    return bare


def main() -> None:
    """Write the three files."""
    rng = np.random.default_rng(0)
    clusters = []
    for atoms in ase.io.read(CLUSTERS, ":"):
        for copy in range(COPIES + 1):
            moved = atoms.copy()
            if copy:
                width = rng.uniform(0.02, 0.12)
                moved.positions += rng.normal(scale=width, size=moved.positions.shape)
            try:
                clusters.append(labelled(moved, float(atoms.info["total_charge"])))
            except CalculationFailed:  # not converged
                continue
            clusters[-1].info["config_type"] = atoms.info["config_type"]
    clusters = [each for each in clusters if abs(each.arrays["REF_forces"]).max() < LARGEST_FORCE]
    chosen = sorted(rng.choice(len(clusters), KEPT_APART, replace=False).tolist())
    others = sorted(set(range(len(clusters))) - set(chosen))
    files = {"gfn2_all": others, "gfn2_replay": chosen[::2], "gfn2_test": chosen[1::2]}
    for name, places in files.items():
        ase.io.write(HERE / f"{name}.xyz", [clusters[place] for place in places])


if __name__ == "__main__":
    main()
