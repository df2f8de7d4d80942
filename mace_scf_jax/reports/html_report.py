"""The report of a training run: one HTML page that needs nothing beside it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mace_scf_jax import __version__
from mace_scf_jax.predict.error_tables import DEFAULT_ERROR_TABLE, ERROR_TABLES, Column
from mace_scf_jax.reports import html_page as html
from mace_scf_jax.reports.pictures import Pictures
from mace_scf_jax.reports.training_run import TrainingRun, options_as_json
from mace_scf_jax.training.config.options import train_options

ABSENT = "–"


def html_report(run: TrainingRun, pictures: Pictures) -> str:
    """The page.

    Args:
        pictures: of the run.
    """
    sections = {
        "errors": ("Errors", [_errors(run)]),
        **{
            picture.name: (
                picture.title,
                [html.picture(picture.figure, picture.title, picture.caption)],
            )
            for picture in pictures.drawn
        },
        "data": ("Data", [_data(run)]),
        "schedule": ("Schedule", [_schedule(run)]),
        "settings": ("Settings", [_settings(run)]),
        "computation": ("Computation", [_computation(run)]),
        "warnings": ("Warnings", [_warnings(run, pictures)]),
    }
    sections = {name: entry for name, entry in sections.items() if any(entry[1])}
    links = "".join(
        f'<a href="#{name}">{html.text(title)}</a>' for name, (title, _) in sections.items()
    )
    body = "\n".join(
        [
            f"<h1>{html.text(run.name)}</h1>",
            f'<p class="lead">{html.text(_lead(run))}</p>',
            html.facts(_facts(run)),
            f"<nav>{links}</nav>",
            *(html.section(name, title, *content) for name, (title, content) in sections.items()),
            f"<footer>Written by mace-scf-jax {__version__}.</footer>",
        ]
    )
    return html.page(f"{run.tag} – training report", body)


def _lead(run: TrainingRun) -> str:
    last = run.results.steps[-1]["epoch"] + 1
    planned = run.planned_epochs
    state = f"finished after {last} epochs"
    if not run.results.final:
        state = f"{last} epochs so far" if planned is None else f"{last} of {planned} epochs so far"
    when = f", {run.log.started[:16]}" if run.log else ""
    return f"{run.family}, seed {run.seed}, {state}{when}"


def _facts(run: TrainingRun) -> Mapping[str, str]:
    """What to see first."""
    steps = len(run.results.steps)
    seconds = run.history.column("time")[-1] if run.history.rows else 0.0
    values = {
        "stages": ", ".join(run.results.stages),
        "training steps": f"{steps:,}",
        "training time": _duration(seconds),
    }
    if run.log is not None:
        compiled = sum(entry.seconds for entry in run.log.compiled)
        parameters = run.log.facts.get("parameters", ABSENT)
        values |= {
            "parameters": f"{int(parameters):,}" if parameters.isdigit() else parameters,
            "precision": run.options.get("default_dtype", ABSENT),
            "compilations": f"{len(run.log.compiled)} in {_duration(compiled)}",
        }
    return values


def _duration(seconds: float) -> str:
    if seconds < 120.0:
        return f"{seconds:.0f} s"
    if seconds < 7200.0:
        return f"{seconds / 60.0:.0f} min"
    return f"{seconds / 3600.0:.1f} h"


def _errors(run: TrainingRun) -> str:
    """Final errors of every stage; before the end, those of the best epochs so far."""
    name = run.options.get("error_table", DEFAULT_ERROR_TABLE)
    columns = ERROR_TABLES.get(name, ERROR_TABLES[DEFAULT_ERROR_TABLE]).final_table
    if run.results.final:
        sets = run.results.final
        epochs = run.results.final_epochs
        note = "Errors of the kept parameters of each stage on all sets."
    else:
        epochs = run.best_epochs()
        sets = {stage: {"valid": _validation_errors(run, epoch)} for stage, epoch in epochs.items()}
        note = "The run has not written its final errors; these are from its best epochs."
    shown = [
        column
        for column in columns
        if any(column.metric in metrics for of_set in sets.values() for metrics in of_set.values())
    ]
    rows = [
        (stage, epochs[stage], name, *(_cell(column, metrics) for column in shown))
        for stage, of_set in sets.items()
        for name, metrics in of_set.items()
    ]
    headings = [("stage", ""), ("epoch", ""), ("set", "")]
    headings += [(column.heading, _with_symbols(column.unit)) for column in shown]
    table = html.table(headings, rows, numbers_from=3)
    return f"<p>{note}</p>" + table + _lowest_errors(run, columns)


def _lowest_errors(run: TrainingRun, columns: Sequence[Column]) -> str:
    """The lowest error of every kind and set that was evaluated during training, and its epoch."""
    history = run.history
    sets = [name.removesuffix("_loss") for name in history.columns if name.endswith("_loss")]
    rows = []
    for column, name in itertools.product(columns, sets):
        if f"{name}_{column.metric}" in history.columns:
            values = history.column(f"{name}_{column.metric}")
            best = int(np.nanargmin(values))
            lowest = (
                f"{column.in_table({column.metric: values[best]})} {_with_symbols(column.unit)}"
            )
            rows.append((column.heading, name, lowest, history.rows[best]["epoch"]))
    if not rows:
        return ""
    headings = [("error", ""), ("set", ""), ("lowest", ""), ("epoch", "")]
    note = "The lowest errors during training, each of an epoch of its own."
    return f"<p>{note}</p>" + html.table(headings, rows, numbers_from=2)


def _validation_errors(run: TrainingRun, epoch: int) -> dict[str, float]:
    row = next(row for row in run.history.rows if row["epoch"] == epoch)
    return {name.removeprefix("valid_"): row[name] for name in row if name.startswith("valid_")}


def _cell(column: Column, metrics: Mapping[str, float]) -> str:
    return column.in_table(metrics) if column.metric in metrics else ABSENT


def _with_symbols(unit: str) -> str:
    """A unit of the log, which is plain ASCII, as it is usually written."""
    return unit.replace("A", "Å").replace("^2", "²").replace("^3", "³")


def _data(run: TrainingRun) -> str:
    """Numbers of labelled configurations in each set, and what was derived from them."""
    if run.log is None:
        return ""
    sets = run.log.labels
    properties = list(dict.fromkeys(name for counts in sets.values() for name in counts))
    rows = [
        (name.replace("_", " "), *(counts.get(name, ABSENT) for counts in sets.values()))
        for name in properties
    ]
    headings = [("property", ""), *((title, "") for title in sets)]
    derived = (
        "configurations",
        "elements (atomic numbers)",
        "energies of isolated atoms / eV",
        "average number of neighbours",
    )
    facts = [(name, run.log.facts[name]) for name in derived if name in run.log.facts]
    files = [
        (name.replace("_", " "), run.options[name])
        for name in ("train_file", "valid_file", "test_file")
        if run.options.get(name)
    ]
    labels = "<p>Labels found, by property and set.</p>" + html.table(headings, rows)
    return (labels if rows else "") + html.pairs(facts + files)


def _schedule(run: TrainingRun) -> str:
    """Epochs, learning rates and loss weights of the stages."""
    stages = list(run.options.get("train_schedule", {}).values())
    if not stages:
        return ""
    terms = list(dict.fromkeys(term for stage in stages for term in stage["loss"]))
    rows = [
        (
            stage["name"],
            f"{stage['start']} to {stage['end']}",
            f"{stage['lr']:g}",
            *(_weight(stage["loss"].get(term)) for term in terms),
        )
        for stage in stages
    ]
    headings = [("stage", ""), ("epochs", ""), ("learning rate", "")]
    headings += [(term.replace("_", " "), "weight") for term in terms]
    return html.table(headings, rows)


def _weight(entry: float | Mapping[str, Any] | None) -> str:
    """Weight of a loss term, which may come with options."""
    if entry is None:
        return ABSENT
    if not isinstance(entry, Mapping):
        return f"{entry:g}"
    options = "".join(f", {name}: {value}" for name, value in entry.items() if name != "weight")
    return f"{entry['weight']:g}{options}"


def _settings(run: TrainingRun) -> str:
    """Every option; those that are not at their default stand out."""
    if not run.options:
        return ""
    fields = train_options().model_fields
    apart = ("train_schedule", "heads")
    rows, changed = [], []
    for name, value in run.options.items():
        if name in apart:
            continue
        default = fields[name].default if name in fields else None
        differs = name in fields and (
            fields[name].is_required() or _plain(value) != _plain(default)
        )
        rows.append((name, _plain(value)))
        changed.append(differs)
    listed = [row for row, differs in zip(rows, changed, strict=True) if differs]
    everything = html.table([("option", ""), ("value", "")], rows, numbers_from=2, marked=changed)
    return (
        "<p>Options that differ from their defaults.</p>"
        + html.table([("option", ""), ("value", "")], listed, numbers_from=2)
        + html.folded("All options", everything)
        + html.folded("As JSON", f"<pre>{html.text(options_as_json(run.options))}</pre>")
    )


def _plain(value: object) -> str:
    """A value as it may stand in a configuration."""
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_plain(entry) for entry in value) + "]"
    return "none" if value is None else str(value).removesuffix("/")


def _computation(run: TrainingRun) -> str:
    """Versions, device and compilations."""
    if run.log is None:
        return ""
    names = ("mace-scf-jax", "JAX", "device", "optimiser")
    rows = [(name, run.log.facts[name]) for name in names if name in run.log.facts]
    rows += [
        ("first log line", run.log.started),
        ("last log line", run.log.ended),
        ("processes", f"{run.log.processes} (started or resumed)"),
    ]
    shown = html.pairs(rows)
    if not run.log.compiled:
        return shown
    seconds: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for entry in run.log.compiled:
        counts[entry.step] += 1
        seconds[entry.step] += entry.seconds
    totals = [(step, counts[step], f"{seconds[step]:.1f}") for step in counts]
    totals.append(("together", sum(counts.values()), f"{sum(seconds.values()):.1f}"))
    single = [(entry.step, entry.bucket, f"{entry.seconds:.1f}") for entry in run.log.compiled]
    return (
        shown
        + "<h3>Compilations</h3>"
        + html.table([("function", ""), ("compilations", ""), ("time", "s")], totals)
        + html.folded(
            "Each compilation",
            html.table(
                [("function", ""), ("padded size", ""), ("time", "s")], single, numbers_from=2
            ),
        )
    )


def _warnings(run: TrainingRun, pictures: Pictures) -> str:
    """Warnings of the log, and what the report lacks."""
    found = [*(run.log.warnings if run.log else ()), *pictures.left_out]
    if run.log is None:
        found.append(f"{run.files.log}: no log; data, settings and versions are not known")
    if not found:
        return "<p>None.</p>"
    items = "".join(f"<li>{html.text(entry)}</li>" for entry in found)
    return f'<ul class="warnings">{items}</ul>'
