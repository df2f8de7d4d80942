"""Public models on this disk: downloaded, verified, and made into model files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

from mace_scf_jax.public_models.releases import RELEASES, Release
from mace_scf_jax.registry import unknown_name
from mace_scf_jax.user_folder import user_folder

MODEL_SUFFIX = ".model.safetensors"
HEAD_MARK = ":"
"""Stands in names before the head of a model."""
HEAD_MARK_IN_FILES = "+"
"""Stands there in names of files."""


class PublicModelError(ValueError):
    """A public model is unknown, cannot be downloaded, or is not what it was."""


@dataclasses.dataclass(frozen=True)
class Source:
    """The file of a public model as its makers published it."""

    path: Path
    sha256: str
    is_published: bool
    """Whether its makers have published this digest; else it is the one of the first time."""
    is_new: bool
    """Whether this is the first time that it is seen here."""


def models_folder() -> Path:
    """The folder of public models of this user; it need not exist."""
    return user_folder() / "models"


def release_of(name: str) -> Release:
    """The entry of a public model.

    Raises:
        PublicModelError: there is none of this name.
    """
    if name not in RELEASES:
        raise PublicModelError(unknown_name("public model", name, RELEASES))
    return RELEASES[name]


def name_and_head(text: str) -> tuple[str, str | None]:
    """Return the name of a release, and the head behind its colon, as in ``mace-mh-1:omat_pbe``."""
    name, _, head = text.partition(HEAD_MARK)
    return name, head or None


def source_file(name: str) -> Path:
    """Where the file that its makers published lies, once it is downloaded."""
    return models_folder() / name / release_of(name).file_name


def model_file(name: str, head: str | None = None) -> Path:
    """Where the model file lies that was made of it.

    Args:
        name: of a release.
        head: which one of several, each of which has a file of its own; None for the only one.
    """
    release_of(name)
    of_head = "" if head is None else f"{HEAD_MARK_IN_FILES}{quote(head, safe='')}"
    return models_folder() / name / f"{name}{of_head}{MODEL_SUFFIX}"


def imported_names(name: str) -> list[str]:
    """Names of the model files that were made of a release: its own, and those of its heads."""
    names = [name] if model_file(name).exists() else []
    start = f"{name}{HEAD_MARK_IN_FILES}"
    for path in sorted(model_file(name).parent.glob(f"{start}*{MODEL_SUFFIX}")):
        head = unquote(path.name.removeprefix(start).removesuffix(MODEL_SUFFIX))
        names.append(f"{name}{HEAD_MARK}{head}")
    return names


def obtain(
    name: str,
    *,
    announce: Callable[[str], None] = print,
    notify: Callable[[int, int | None], None] = lambda done, total: None,
) -> Source:
    """The file of a public model, downloaded if it is not here, and verified.

    Its digest is compared with the published one; where there is none, with that of the first time.

    Args:
        name: of a release.
        announce: told the licence and the address before a download.
        notify: told how many bytes there are, and of how many.

    Raises:
        PublicModelError: there is no such model, it cannot be downloaded, or it has another digest.
    """
    release, path = release_of(name), source_file(name)
    if not path.exists():
        announce(
            f"{name}: {release.about}. Licence: {release.licence.name} ({release.licence.terms}; "
            f"{release.licence.url}). To cite: {release.citation}."
        )
        announce(f"Downloading {release.url} to {path}")
        from mace_scf_jax.public_models.download import DownloadError, download  # slow to import

        try:
            download(release.url, path, notify=notify)
        except DownloadError as error:
            raise PublicModelError(
                f"{name}: cannot download {release.url}: {error}. Start again to go on, or put the "
                f"file there by hand: {path}"
            ) from error
    digest = _digest(path)
    record = path.with_name("digest.json")
    known, is_new = release.sha256, not record.exists()
    if known is None and not is_new:
        known = json.loads(record.read_text())["sha256"]
    if known is not None and digest != known:
        whose = "its makers published" if release.sha256 else "it had at first"
        raise PublicModelError(
            f"{path}: has the SHA-256 {digest}, expected {known}, which {whose}. Remove the file "
            f"to download it again{'' if release.sha256 else f', and {record} if you trust it'}"
        )
    if is_new:
        record.write_text(json.dumps({"url": release.url, "sha256": digest}) + "\n")
    return Source(path, digest, release.sha256 is not None, is_new)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
