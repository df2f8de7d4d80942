"""Building blocks of a page that stands alone: no scripts, no fonts, no files beside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from mace_scf_jax.reports.style import DOTS_PER_INCH, drawing

STYLE = """
:root { --ink: #222; --soft: #666; --line: #ddd; --accent: #0072B2; --back: #fff; --band: #f6f7f8; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  color: var(--ink); background: var(--back); max-width: 1080px; margin: 0 auto;
  padding: 2.5rem 1.5rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .2rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .8rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
p.lead { color: var(--soft); margin: 0 0 1.5rem; }
nav { font-size: .9rem; margin: 1rem 0 0; }
nav a { color: var(--accent); text-decoration: none; margin-right: 1.1rem; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr));
  gap: 1px; background: var(--line); border: 1px solid var(--line); margin: 1.5rem 0; }
dl.facts div { background: var(--back); padding: .7rem .9rem; }
dl.facts dt { font-size: .78rem; color: var(--soft); }
dl.facts dd { margin: .1rem 0 0; font-size: 1.1rem; font-weight: 600; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin-bottom: 1.4rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .9rem .35rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; }
th .unit { display: block; font-weight: 400; color: var(--soft); font-size: .8rem; }
td.number, th.number { text-align: right; padding: .35rem 0 .35rem 1.2rem; }
table.pairs th { vertical-align: top; white-space: nowrap; padding-right: 2rem; }
tr.changed td { background: #eef5fa; }
figure { margin: 1.2rem 0 2rem; }
figure img { width: 100%; height: auto; }
figcaption { font-size: .86rem; color: var(--soft); max-width: 48rem; }
details { margin: .8rem 0; }
summary { cursor: pointer; color: var(--accent); }
pre { background: var(--band); padding: .9rem 1rem; overflow-x: auto; font-size: .8rem;
  line-height: 1.45; }
code { font-size: .92em; }
ul.warnings { padding-left: 1.2rem; font-size: .88rem; overflow-wrap: anywhere; }
footer { margin-top: 4rem; font-size: .8rem; color: var(--soft); }
@media print { nav { display: none; } body { max-width: none; padding: 0; } }
"""


def text(value: object) -> str:
    """A value as text that is safe within a page.

    Args:
        value: anything.
    """
    return html.escape(str(value))


def page(title: str, body: str) -> str:
    """A whole page.

    Args:
        title: of the window.
        body: its content as HTML.
    """
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def section(name: str, title: str, *content: str) -> str:
    """A section with a heading that the navigation can name.

    Args:
        name: its anchor.
        title: its heading.
        *content: as HTML.
    """
    return (
        f'<section id="{text(name)}">\n<h2>{text(title)}</h2>\n'
        + "\n".join(content)
        + ("\n</section>")
    )


def facts(values: Mapping[str, object]) -> str:
    """Numbers to see first.

    Args:
        values: by what they are.
    """
    entries = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in values.items()
    )
    return f'<dl class="facts">{entries}</dl>'


def table(
    columns: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[object]],
    *,
    numbers_from: int = 1,
    marked: Sequence[bool] | None = None,
) -> str:
    """A table.

    Args:
        columns: heading and unit of each.
        rows: the values.
        numbers_from: columns from this one on are aligned to the right.
        marked: rows that stand out.
    """

    def cell(kind: str, index: int, content: str) -> str:
        aligned = ' class="number"' if index >= numbers_from else ""
        return f"<{kind}{aligned}>{content}</{kind}>"

    head = "".join(
        cell("th", index, text(name) + (f'<span class="unit">{text(unit)}</span>' if unit else ""))
        for index, (name, unit) in enumerate(columns)
    )
    lines = []
    for number, row in enumerate(rows):
        changed = ' class="changed"' if marked is not None and marked[number] else ""
        cells = "".join(cell("td", index, text(value)) for index, value in enumerate(row))
        lines.append(f"<tr{changed}>{cells}</tr>")
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def pairs(rows: Sequence[tuple[str, object]]) -> str:
    """A table of names and values, without headings.

    Args:
        rows: of the table.
    """
    lines = "".join(f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in rows)
    return f'<div class="scroll"><table class="pairs"><tbody>{lines}</tbody></table></div>'


def picture(figure: Figure, title: str, caption: str) -> str:
    """A figure within the page.

    Args:
        figure: the figure.
        title: what it is, for those who do not see it.
        caption: what it shows.
    """
    file = io.BytesIO()
    with drawing():
        figure.savefig(file, format="png", dpi=DOTS_PER_INCH)
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{text(title)}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def folded(summary: str, content: str) -> str:
    """Content that is shown on demand.

    Args:
        summary: what it is.
        content: as HTML.
    """
    return f"<details><summary>{text(summary)}</summary>{content}</details>"
