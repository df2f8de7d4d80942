"""The report: everything in one file, nothing from elsewhere, text escaped."""

import base64
import re
from html.parser import HTMLParser

from imaginary_run import make_run

from mace_scf_jax.reports.html_page import table, text
from mace_scf_jax.reports.html_report import html_report
from mace_scf_jax.reports.pictures import draw
from mace_scf_jax.reports.training_run import find_run

WITHOUT_END = {"meta", "img"}


class Checker(HTMLParser):
    """Refuses unbalanced tags, and notes where content comes from."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.anchors, self.links = [], [], set(), set()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.sources += [given[name] for name in ("src", "srcset", "data") if name in given]
        if "id" in given:
            self.anchors.add(given["id"])
        if "href" in given:
            self.links.add(given["href"])
        if tag not in WITHOUT_END:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def reported(folder) -> tuple[str, Checker]:
    run = find_run(folder)
    page = html_report(run, draw(run, with_parity=False))
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return page, checker


def test_the_page_stands_alone(folder):
    page, checker = reported(folder)
    assert len(checker.sources) == 2
    for source in checker.sources:
        kind, data = source.split(",", 1)
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert not re.search(r"https?:|@import|url\(|<script|<link", page)
    assert checker.links == {f"#{name}" for name in checker.anchors}


def test_the_page_tells_errors_data_settings_and_compilations(folder):
    page, checker = reported(folder)
    assert {"errors", "data", "schedule", "settings", "computation", "warnings"} < checker.anchors
    assert "LocalCharges, seed 7, finished after 8 epochs, 2026-01-02 03:04" in page
    assert page.count('<td class="number">42.10</td>') == 6
    assert "meV / Å" in page
    assert "<td>1234</td>" not in page
    assert "<dd>1,234</dd>" in page
    assert "&lt;train&gt;.xyz" in page
    assert "<train>" not in page
    assert "9 graphs, 68 atoms, 612 edges, 2816 k" in page
    assert "WARNING: Option &#x27;swa&#x27; has no effect" in page
    assert "nothing is solved self-consistently" in page


def test_the_page_names_the_lowest_error_of_each_set_and_its_epoch(tmp_path):
    def best_in_epoch_5(record):
        worse = {"rmse_f": 0.9} if record.get("epoch") in (6, 7) and "rmse_f" in record else {}
        return record | worse

    page, _ = reported(make_run(tmp_path / "run", best_in_epoch_5))
    for name in ("valid", "ice_Default"):
        for error, value, epoch in (
            ("RMSE F", f"{500 / 6:.2f} meV / Å", 5),
            ("RMSE E", "12.50 meV / atom", 7),
        ):
            cells = f'<td class="number">{value}</td><td class="number">{epoch}</td>'
            assert f"<td>{error}</td><td>{name}</td>{cells}" in page


def test_a_run_that_goes_on_shows_its_best_epochs(tmp_path):
    page, _ = reported(make_run(tmp_path / "run", final=False))
    assert "8 of 8 epochs so far" in page
    assert "these are from its best epochs" in page
    assert '<td class="number">62.50</td>' in page


def test_a_run_without_log_is_reported_without_settings(folder):
    (log,) = folder.glob("logs/*.log")
    log.unlink()
    page, checker = reported(folder)
    assert checker.anchors == {"errors", "learning_curves", "loss_balance", "warnings"}
    assert "no log; data, settings and versions are not known" in page


def test_cells_are_escaped():
    shown = table([("a<b", "x&y")], [("<i>",)])
    assert "a&lt;b" in shown
    assert "x&amp;y" in shown
    assert "<i>" not in shown
    assert text('"') == "&quot;"
