"""A committee of models: predictions of all members with their mean and spread."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mace_scf_jax.files import Format
from mace_scf_jax.predict.model import Model, load_model
from mace_scf_jax.predict.prediction import Prediction
from mace_scf_jax.predict.predictor import Predictor
from mace_scf_jax.predict.spread import CommitteePrediction
from mace_scf_jax.predict.use import Aggregation, Options
from mace_scf_jax.registry import unknown_name

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


class CommitteeError(ValueError):
    """Models do not make a committee, or a committee lacks what is asked of it."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Committee(Predictor[CommitteePrediction]):
    """Models that were trained alike with different seeds.

    Args:
        members: at least two; they agree in family, elements, cutoff, number of layers,
            electrostatics, dispersion and precision.
        names: what messages call each member; None for "member 1", ….
        aggregation: ``mean`` over the members; or ``reference``, the outputs of one member, whose
            surface a simulation then follows. Deviations are those of all members in both cases.
        reference_member: number of that member, from 1, which is the default; None with ``mean``.

    Raises:
        CommitteeError: there are too few members, or they disagree; there is no such aggregation
            or member.
    """

    members: tuple[Model, ...]
    names: tuple[str, ...] = ()
    aggregation: Aggregation = "mean"
    reference_member: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        if len(self.members) < 2:
            raise CommitteeError(
                f"expected at least 2 members, found {len(self.members)}: their spread is what a "
                "committee is for"
            )
        numbered = tuple(f"member {number}" for number in range(1, len(self.members) + 1))
        object.__setattr__(self, "names", tuple(self.names) or numbered)
        if len(self.names) != len(self.members):
            raise CommitteeError(
                f"expected a name for each of {len(self.members)} members, found {len(self.names)}"
            )
        expected = _common_ground(self.members[0])
        for name, member in zip(self.names[1:], self.members[1:], strict=True):
            for what, found in _common_ground(member).items():
                if found != expected[what]:
                    raise CommitteeError(
                        f"{name}: expected the {what} of {self.names[0]}, {expected[what]}, found "
                        f"{found}"
                    )

        if self.aggregation not in get_args(Aggregation):
            raise CommitteeError(
                f"aggregation: expected {' or '.join(get_args(Aggregation))}, found "
                f"{self.aggregation!r}"
            )
        if self.aggregation == "mean" and self.reference_member is not None:
            raise CommitteeError(
                f"reference_member: found {self.reference_member}, which needs aggregation: "
                "reference"
            )
        if not 1 <= (self.reference_member or 1) <= len(self.members):
            raise CommitteeError(
                f"reference_member: expected a number from 1 to {len(self.members)}, found "
                f"{self.reference_member}"
            )

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        """One line, with the first member as an example of all."""
        followed = "mean" if self.reference is None else f"member {self.reference + 1}"
        return f"Committee({len(self)} members, {followed}, first {self.first!r})"

    @property
    def reference(self) -> int | None:
        """Position of the member whose outputs are taken, from 0; None where the means are."""
        return None if self.aggregation == "mean" else (self.reference_member or 1) - 1

    def aggregating(
        self, aggregation: Aggregation | None, reference_member: int | None = None
    ) -> Committee:
        """The same committee, its outputs combined in another way.

        Args:
            aggregation, reference_member: as for the committee; None for both to keep them.

        Raises:
            CommitteeError: there is no such aggregation or member.
        """
        if aggregation is None and reference_member is None:
            return self
        return dataclasses.replace(
            self,
            aggregation=self.aggregation if aggregation is None else aggregation,
            reference_member=reference_member,
        )

    def using(self, **options: Unpack[Options]) -> Committee:
        """The same committee, its members used in another way; see `Predictor.using`."""
        members = tuple(member.using(**options) for member in self.members)
        return dataclasses.replace(self, members=members)

    def combine(self, predictions: Sequence[Prediction]) -> CommitteePrediction:
        """Mean and spread over the members."""
        return CommitteePrediction.of(predictions, reference=self.reference)

    def separate(self, predicted: CommitteePrediction) -> Sequence[Prediction]:
        """What each member predicts."""
        return predicted.members


def load_committee(
    source: str | Path | Sequence[str | Path],
    *,
    stage: str | None = None,
    aggregation: Aggregation = "mean",
    reference_member: int | None = None,
    **options: Unpack[Options],
) -> Committee:
    """Read a committee.

    Args:
        source: the folder that ``mace-scf-jax train --committee`` wrote, its ``committee.json``, or
            several model files.
        stage: name of the stage whose models to take; None for the last. Not with model files.
        aggregation, reference_member: see `Committee`.
        options: how the models are used, see `Options`.

    Raises:
        CommitteeFileError: there is no readable ``committee.json``.
        CommitteeError: members have not been trained yet, there is no such stage, or the members
            disagree; or as for `Committee`.
        ModelFileError: a model file is missing or damaged.
    """
    if not isinstance(source, str | Path):
        if stage is not None:
            raise CommitteeError("stage: expected none together with a list of model files")
        paths = [Path(path) for path in source]
    else:
        folder = Path(source)
        folder = folder.parent if folder.name == COMMITTEE_FILE else folder
        paths = _model_files(folder, read_committee_file(folder), stage)
    return Committee(
        tuple(load_model(path, **options) for path in paths),
        tuple(str(path) for path in paths),
        aggregation,
        reference_member,
    )


def is_committee(path: str | Path) -> bool:
    """Whether a path is the folder of a committee or its ``committee.json``."""
    path = Path(path)
    return path.name == COMMITTEE_FILE or path.is_dir()


def _common_ground(model: Model) -> dict[str, Any]:
    """What all members of a committee must have in common, in words."""
    settings = model.settings
    return {
        "family": settings.family,
        "elements": settings.elements,
        "cutoff": settings.backbone.r_max,
        "number of layers": settings.backbone.num_interactions,
        "electrostatics": settings.electrostatics,
        "dispersion": settings.dispersion,
        "precision": model.dtype.name,
    }


def _model_files(folder: Path, committee: CommitteeFile, stage: str | None) -> list[Path]:
    """Model files of all members of a committee for one stage."""
    missing = committee.missing()
    if missing:
        raise CommitteeError(
            f"{folder / COMMITTEE_FILE}: expected {committee.size} trained members, found "
            f"{len(committee.members)}; not finished: {', '.join(map(str, missing))}. Train them "
            f"with `--committee {committee.size}`, or give the model files of the others"
        )
    paths = []
    for member in committee.members:
        name = list(member.models)[-1] if stage is None else stage
        if name not in member.models:
            hint = unknown_name("stage", name, member.models)
            raise CommitteeError(f"{folder / COMMITTEE_FILE}, member {member.number}: {hint}")
        paths.append(folder / member.models[name])
    return paths
