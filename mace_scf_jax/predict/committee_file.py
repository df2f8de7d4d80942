"""The file ``committee.json``: which models were trained together, with which seeds and data."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mace_scf_jax.files import Format

COMMITTEE_FILE = "committee.json"


class CommitteeFileError(ValueError):
    """A file is not a complete description of a committee that this version can read."""


COMMITTEE = Format(
    name="mace-scf-jax committee",
    noun="description of a committee",
    version=2,
    sha256_since=2,
    error=CommitteeFileError,
)


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MemberEntry(_Entry):
    """A member that has been trained."""

    number: int = Field(ge=1)
    seed: int = Field(ge=0)
    """Of initial weights and order of batches."""
    models: dict[str, str] = Field(min_length=1)
    """Model file of each stage, in the order of the stages, relative to the committee's folder."""


class DataDigests(_Entry):
    """Numbers that change with any structure, label or weight of a set, or with their order."""

    training: str
    validation: str


class CommitteeFile(_Entry):
    """A committee and those of its members that have been trained so far."""

    version: str
    """Version of mace-scf-jax that wrote the file."""
    name: str
    size: int = Field(ge=1)
    """Number of members, trained or not."""
    split_seed: int
    """Seed of the random validation set, which all members share."""
    data: DataDigests
    members: tuple[MemberEntry, ...] = ()
    """By number."""

    def missing(self) -> list[int]:
        """Numbers of the members that have not been trained."""
        trained = {member.number for member in self.members}
        return [number for number in range(1, self.size + 1) if number not in trained]

    def write(self, folder: Path) -> None:
        """Write the file into a folder; an old one is replaced only by a complete new one."""
        COMMITTEE.write_json(folder / COMMITTEE_FILE, self.model_dump(mode="json"))


def read_committee_file(folder: str | Path) -> CommitteeFile:
    """Read the description of the committee in a folder.

    Raises:
        CommitteeFileError: there is none, or it is damaged or of another format or version.
    """
    path = Path(folder) / COMMITTEE_FILE
    if not path.is_file():
        raise CommitteeFileError(f"{folder}: expected a folder with {COMMITTEE_FILE}, found none")
    try:
        return CommitteeFile.model_validate(COMMITTEE.read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CommitteeFileError(
            f"{path}: not a description of a committee"
            f"{f', entry {where}' if where else ''}: {first['msg']}"
        ) from None
