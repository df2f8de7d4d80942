"""Trajectories that frames are added to, and that can be cut where a simulation goes on."""

from __future__ import annotations

import abc
import io
import os
from pathlib import Path

import ase
import ase.io

from mace_scf_jax.data.ase_formats import EXTENDED_XYZ, format_to_write
from mace_scf_jax.data.errors import DataError
from mace_scf_jax.files import flush, write_whole
from mace_scf_jax.simulate.settings import SimulationError


class Trajectory(abc.ABC):
    """A file of frames.

    Args:
        path: of the file.
    """

    extent_is: str
    """What its extent counts, as files of states name it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files that are written."""
        return (self.path,)

    @abc.abstractmethod
    def append(self, frame: ase.Atoms) -> None:
        """Add a frame with the results of its calculator."""

    @abc.abstractmethod
    def extent(self) -> int:
        """How much it holds."""

    @abc.abstractmethod
    def cut(self, extent: int) -> None:
        """Drop what was written after it had this extent."""

    def finish(self) -> None:  # noqa: B027
        """Do what is done once, after the last frame for now."""


class ExtendedXYZ(Trajectory):
    """Text, in which arrays and results have columns."""

    extent_is = "trajectory_bytes"

    def append(self, frame: ase.Atoms) -> None:
        """Add a frame with all of its arrays."""
        text = io.StringIO()
        ase.io.write(text, frame, format=EXTENDED_XYZ)
        with self.path.open("a") as file:
            file.write(text.getvalue())
        flush(self.path)

    def extent(self) -> int:
        """Bytes."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, extent: int) -> None:
        """Drop the bytes after these."""
        os.truncate(self.path, extent)


class ASETrajectory(Trajectory):
    """ASE's own binary format, which has no columns but those that ASE knows."""

    extent_is = "trajectory_frames"

    def append(self, frame: ase.Atoms) -> None:
        """Add a frame with what ASE knows of it."""
        with ase.io.Trajectory(str(self.path), "a") as file:
            file.write(frame)
        flush(self.path)

    def extent(self) -> int:
        """Frames."""
        if not self.path.exists():
            return 0
        with ase.io.Trajectory(str(self.path)) as file:
            return len(file)

    def cut(self, extent: int) -> None:
        """Drop the frames after the first ones."""
        if self.extent() == extent:
            return
        with (
            write_whole(self.path) as partial,
            ase.io.Trajectory(str(self.path)) as before,
            ase.io.Trajectory(str(partial), "w") as after,
        ):
            for index in range(extent):
                after.write(before[index])


class WrittenAtOnce(ASETrajectory):
    """A format that nothing can be added to: made, in the end, of a trajectory of ASE beside it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.with_suffix(ASE_SUFFIX))
        self.made = path
        self.format = format_to_write(path, several=True)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The file, and the trajectory that it is made of."""
        return (self.made, self.path)

    def finish(self) -> None:
        """Write the file."""
        if self.extent():
            with write_whole(self.made) as partial:
                ase.io.write(partial, ase.io.read(self.path, ":"), format=self.format)


ASE_SUFFIX = ".traj"
FORMATS: dict[str, type[Trajectory]] = {
    ".xyz": ExtendedXYZ,
    ".extxyz": ExtendedXYZ,
    ASE_SUFFIX: ASETrajectory,
}
"""By the suffix of the file; of others `WrittenAtOnce`."""


def trajectory(path: Path) -> Trajectory:
    """The trajectory in a file, which need not be there yet.

    Raises:
        SimulationError: ASE writes no several structures to files of its suffix.
    """
    try:
        return FORMATS.get(path.suffix, WrittenAtOnce)(path)
    except DataError as error:
        raise SimulationError(str(error)) from None
