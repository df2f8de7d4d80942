"""Public models by name, from a server of this machine."""

import dataclasses
import hashlib
import http.server
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from mace_scf_jax import load_model
from mace_scf_jax.models.model_file import ModelFileError
from mace_scf_jax.public_models import (
    RELEASES,
    PublicModelError,
    Release,
    model_file,
    obtain,
    source_file,
)
from mace_scf_jax.public_models.releases import MIT
from mace_scf_jax_cli.main import main

CONTENT = bytes(range(256)) * 9000
NAME = "mace-test-0"


class Server(http.server.BaseHTTPRequestHandler):
    """Sends a file, from any byte on; stops early, or sends a page, if told to."""

    protocol_version = "HTTP/1.0"
    stops_after = None
    page = False
    asked: ClassVar[list[str | None]] = []

    def do_GET(self):
        asked = self.headers["Range"]
        self.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if start > len(CONTENT):
            self.send_error(416)
            return
        for word, code in (("absent", 404), ("forbidden", 403)):
            if word in self.path:
                self.send_error(code)
                return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Type", "text/html" if self.page else "application/octet-stream")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : self.stops_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A release of this server, and a user without any models."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.platform", "linux")
    handler = type("OwnServer", (Server,), {"asked": []})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{running.server_port}/test.model"
    monkeypatch.setitem(RELEASES, NAME, Release(url, "tests", MIT, "nobody"))
    yield handler
    running.shutdown()
    running.server_close()


def changed(monkeypatch, **fields):
    monkeypatch.setitem(RELEASES, NAME, dataclasses.replace(RELEASES[NAME], **fields))


def test_a_file_is_downloaded_once_and_its_licence_told_before(server):
    told, seen = [], []
    found = obtain(NAME, announce=told.append, notify=lambda *at: seen.append(at))
    assert found.path.read_bytes() == CONTENT
    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (found.is_new, found.is_published) == (True, False)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert "Licence: MIT" in told[0]
    assert told[1].startswith("Downloading http")
    again = obtain(NAME, announce=told.append)
    assert (again.is_new, len(told), len(server.asked)) == (False, 2, 1)


def test_a_broken_download_goes_on(server):
    server.stops_after = 1_000_000
    with pytest.raises(PublicModelError, match=r"broke after 1000000 of 2304000 bytes.*by hand"):
        obtain(NAME, announce=lambda _: None)
    assert not source_file(NAME).exists()
    server.stops_after = None
    assert obtain(NAME, announce=lambda _: None).path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000000-"]


def test_a_part_longer_than_the_file_is_forgotten(server):
    part = source_file(NAME).with_name("test.model.part")
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT + b"more")
    assert obtain(NAME, announce=lambda _: None).path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("page", "a web page in place of the file"),
        ("absent", "answers 404"),
        ("forbidden", "answers 403 .*put the file there by hand"),
        ("unwritable", r"cannot download.*File exists|cannot download.*Not a directory"),
        ("offline", r"cannot download.*put the file there by hand: .*test\.model"),
        ("other", "expected 00.*its makers published"),
    ],
)
def test_downloads_that_fail_or_lie_are_refused(server, monkeypatch, change, message):
    if change == "page":
        server.page = True
    elif change in ("absent", "forbidden"):
        changed(monkeypatch, url=RELEASES[NAME].url.replace("/test", f"/{change}/test"))
    elif change == "unwritable":
        folder = source_file(NAME).parent
        folder.parent.mkdir(parents=True)
        folder.write_text("a file in place of the folder")
    elif change == "offline":
        changed(monkeypatch, url="http://127.0.0.1:9/test.model")
    else:
        changed(monkeypatch, sha256="00")
    with pytest.raises(PublicModelError, match=message):
        obtain(NAME, announce=lambda _: None)


def test_a_file_that_changes_is_noticed(server):
    path = obtain(NAME, announce=lambda _: None).path
    path.write_bytes(b"other")
    with pytest.raises(PublicModelError, match=r"which it had at first.*digest\.json"):
        obtain(NAME, announce=lambda _: None)


def test_unknown_names_lead_to_known_ones():
    with pytest.raises(PublicModelError, match="did you mean 'mace-mpa-0-medium'"):
        obtain("mace-mpa-0-medum")


def test_names_stand_for_model_files_once_imported(server, tmp_path):
    with pytest.raises(ModelFileError, match=rf"`mace-scf-jax import {NAME} --trust`.*MIT"):
        load_model(NAME)
    with pytest.raises(ModelFileError, match="did you mean 'mace-mp-0-medium'"):
        load_model("mace-mp-0-mediun")
    model_file(NAME).parent.mkdir(parents=True)
    model_file(NAME).write_bytes(b"no model")
    with pytest.raises(ModelFileError, match=f"{NAME}.model.safetensors"):
        load_model(NAME)


def test_every_head_has_a_name_and_a_file_of_its_own(server):
    path = model_file(NAME, "pbe/a")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no model")
    assert path.parent == model_file(NAME).parent
    with pytest.raises(ModelFileError, match=r"test-0\+pbe%2Fa.model.safetensors: not a"):
        load_model(f"{NAME}:pbe/a")
    for name in (NAME, f"{NAME}:r2scan"):
        message = f"{name}: .* imported are {NAME}:pbe/a. `mace-scf-jax import {name} --trust`"
        with pytest.raises(ModelFileError, match=message):
            load_model(name)


def test_the_head_of_a_name_is_that_of_the_command(server, monkeypatch, capsys):
    seen = []
    module = type("Module", (), {"save": lambda self, path: seen.append(path)})
    module.settings = type("Settings", (), {"family": "MACE"})

    def imported(*_, head, **__):
        seen.append(head)
        return module()

    monkeypatch.setattr("mace_scf_jax.pytorch.import_model", imported)
    monkeypatch.setattr("mace_scf_jax_cli.import_model.import_model", imported, raising=False)
    assert main(["import", f"{NAME}:pbe", "--trust", "--head", "r2scan"]) == 2
    assert "found 'r2scan' beside 'pbe'" in capsys.readouterr().err
    for words in ([f"{NAME}:pbe"], [NAME, "--head", "pbe"]):
        assert main(["import", *words, "--trust"]) == 0
        assert f"in place of a model file: {NAME}:pbe" in capsys.readouterr().out
    assert seen == ["pbe", model_file(NAME, "pbe")] * 2


def test_the_command_asks_for_trust_before_it_downloads(server, capsys):
    assert main(["import", NAME]) == 2
    assert "--trust" in capsys.readouterr().err
    assert server.asked == []


def test_the_command_refuses_what_is_no_model(server, capsys):
    """Nothing of it is executed: it is no archive of PyTorch."""
    assert main(["import", NAME, "--trust"]) == 2
    captured = capsys.readouterr()
    assert "Licence: MIT" in captured.out
    assert "SHA-256" in captured.out
    assert "test.model" in captured.err
    assert not model_file(NAME).exists()


def test_the_list_names_every_release(capsys):
    assert main(["import", "--list"]) == 0
    printed = capsys.readouterr().out
    for name in RELEASES:
        assert name in printed


def test_the_page_lists_every_release():
    text = (Path(__file__).parents[2] / "docs" / "how_to" / "from_mace.md").read_text()
    names: dict[tuple[str, ...], list[str]] = {}
    for name, release in RELEASES.items():
        alike = (release.about, release.licence.name, release.citation)
        names.setdefault(alike, []).append(f"`{name}`")
    for alike, group in names.items():
        assert f"| {' | '.join((', '.join(group), *alike))} |" in text
