"""Downloads that go on where they were stopped, and leave no half file behind."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from mace_scf_jax._version import __version__

SECONDS_WITHOUT_ANSWER = 30.0
PIECE = 1 << 20
"""Bytes that are read at once."""


class DownloadError(OSError):
    """A file could not be downloaded."""


def download(
    url: str,
    path: Path,
    *,
    notify: Callable[[int, int | None], None] = lambda done, total: None,
) -> None:
    """Download a file.

    What has arrived is kept as ``<name>.part`` when the connection breaks, and the next call goes
    on from there. The file itself appears when it is complete.

    Args:
        url: of the file.
        path: where it is to be.
        notify: told how many bytes there are, and of how many if that is known.

    Raises:
        DownloadError: there is no answer, or a page in place of the file, or the connection breaks.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _receive(url, part, notify)
        os.replace(part, path)
    except urllib.error.HTTPError as error:
        raise DownloadError(f"the server answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise DownloadError(str(error.reason)) from error
    except http.client.HTTPException as error:
        raise DownloadError(f"the connection broke ({error})") from error
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(error.strerror or str(error)) from error


def _receive(url: str, part: Path, notify: Callable[[int, int | None], None]) -> None:
    """Bring the part to its full length."""
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": f"mace-scf-jax/{__version__}"})
    if there:
        request.add_header("Range", f"bytes={there}-")
    try:
        answer = urllib.request.urlopen(request, timeout=SECONDS_WITHOUT_ANSWER)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and there:
            part.unlink()  # it is longer than the file, which has changed
            _receive(url, part, notify)
            return
        raise
    with answer:
        if answer.headers.get_content_type() == "text/html":
            raise DownloadError("found a web page in place of the file")
        if answer.status != http.client.PARTIAL_CONTENT:
            there = 0  # the server sends all of it
        length = answer.headers.get("Content-Length")
        total = None if length is None else there + int(length)
        with part.open("ab" if there else "wb") as file:
            while piece := answer.read(PIECE):
                file.write(piece)
                there += len(piece)
                notify(there, total)
        if total is not None and there != total:
            raise DownloadError(f"the connection broke after {there} of {total} bytes")
