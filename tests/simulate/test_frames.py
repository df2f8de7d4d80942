"""Trajectories to which frames are added, and that are cut."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from mace_scf_jax.simulate.frames import trajectory
from mace_scf_jax.simulate.settings import SimulationError


@pytest.mark.parametrize("suffix", [".xyz", ".traj", ".pdb"])
def test_what_is_cut_off_is_gone_and_more_can_be_added(tmp_path, suffix):
    file = trajectory(tmp_path / f"run{suffix}")
    assert file.extent() == 0
    extents = []
    for x in range(3):
        frame = Atoms("Ne", positions=[[x, 0.0, 0.0]])
        frame.calc = SinglePointCalculator(frame, energy=float(x), forces=np.ones((1, 3)))
        file.append(frame)
        extents.append(file.extent())
    file.cut(extents[-1])
    assert len(read(file.path, ":")) == 3
    file.cut(extents[0])
    file.append(frame)
    file.finish()
    found = read(tmp_path / f"run{suffix}", ":")
    assert [each.positions[0, 0] for each in found] == [0.0, 2.0]
    found = read(file.path, ":")
    assert [each.get_potential_energy() for each in found] == [0.0, 2.0]


def test_formats_that_hold_no_several_structures_are_refused(tmp_path):
    with pytest.raises(SimulationError, match="files of the format espresso-in hold one structure"):
        trajectory(tmp_path / "run.pwi")
    with pytest.raises(SimulationError, match=r"found suffix '\.txt', of which ASE knows"):
        trajectory(tmp_path / "run.txt")
