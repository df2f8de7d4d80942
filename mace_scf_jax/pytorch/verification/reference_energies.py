"""Recompute energies of elements that were fitted to total energies."""

from __future__ import annotations

import numpy as np
from ase.data import atomic_numbers

from mace_scf_jax.data.reference_energies import Compounds, Regression, reference_energies
from mace_scf_jax.pytorch.verification.reference_file import Deviation, ReferenceFile, deviation

TOLERANCE = 1e-9


def verify_reference_energies(file: ReferenceFile) -> list[Deviation]:
    """Recompute the energies of every case, their root mean squared error and the rank.

    Args:
        file: with compositions in the order of ``meta.species``, energies in eV, and cases.
    """
    elements = [atomic_numbers[symbol] for symbol in file.meta["species"]]
    deviations = []
    for name, case in file.meta["cases"].items():
        fixed, compounds = case.get("fixed", {}), case.get("reference_compounds")
        method = (
            Regression(fixed=fixed)
            if compounds is None
            else Compounds(compounds=compounds, fixed=fixed)
        )
        found = reference_energies(
            file.inputs["compositions"], file.inputs["energies"], elements=elements, method=method
        )
        computed = {
            "atomic_energies": np.array([found.energies[number] for number in elements]),
            "rmse": np.array(found.rmse),
            "rank": np.array(found.rank),
        }
        for output, values in computed.items():
            expected = file.outputs[f"{name}/{output}"]
            deviations.append(deviation(f"{name}/{output}", values, expected, tolerance=TOLERANCE))
    return deviations
