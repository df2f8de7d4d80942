"""The feature table answers every row of the checklist and names files and tests that exist."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs/reference/feature_table.md"
NUM_ROWS = 246
"""Rows of the checklist."""
STATUSES = {"yes", "different", "partly", "no"}


@dataclasses.dataclass(frozen=True)
class Row:
    number: int
    feature: str
    status: str
    where: str
    test: str
    remark: str


def rows() -> list[Row]:
    """The rows of all tables; `\\|` within a cell is a bar."""
    found = []
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and cells[0].isdigit():
            assert len(cells) == 6, line
            found.append(Row(int(cells[0]), *cells[1:]))
    return found


ROWS = rows()


def missing_tests(row: Row) -> list[str]:
    """Tests named in a row that do not exist."""
    names = re.findall(r"`([^`]+)`", row.test)
    return [f"{row.number}: {name}" for name in names if function(name) is None]


def has_a_quick_test(row: Row) -> bool:
    """Whether one of its tests is not marked as slow in all its cases."""
    tests = [function(name) for name in re.findall(r"`([^`]+)`", row.test)]
    marks = [[ast.unparse(mark) for mark in test.decorator_list] for test in tests]
    return not tests or any("pytest.mark.slow" not in of_test for of_test in marks)


def function(name: str) -> ast.FunctionDef | None:
    """The definition of a test given as file::name, if there is one."""
    file, _, test = name.partition("::")
    path = ROOT / "tests" / file
    return functions_in(path).get(test) if path.is_file() else None


def missing_files(row: Row) -> list[str]:
    """Files of the package named in a row that do not exist."""
    names = re.findall(r"`([^`]+)`", row.where)
    paths = {name: name if name.startswith("cli/") else f"mace_scf_jax/{name}" for name in names}
    return [f"{row.number}: {name}" for name, path in paths.items() if not (ROOT / path).is_file()]


@functools.cache
def functions_in(path: Path) -> dict[str, ast.FunctionDef]:
    """The functions of a file by their names."""
    tree = ast.parse(path.read_text())
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_of_the_checklist_is_answered_once():
    assert [row.number for row in ROWS] == list(range(1, NUM_ROWS + 1))


def test_the_answers_are_complete():
    """What is there has a place and a test; what is not as in the reference is explained."""
    assert {row.status for row in ROWS} <= STATUSES
    unproven = [row.number for row in ROWS if row.status == "yes" and not (row.where and row.test)]
    unexplained = [
        row.number for row in ROWS if row.status in ("different", "partly") and not row.remark
    ]
    assert (unproven, unexplained) == ([], [])


def test_files_and_tests_exist():
    assert [problem for row in ROWS for problem in missing_files(row)] == []
    assert [problem for row in ROWS for problem in missing_tests(row)] == []


def test_every_feature_has_a_quick_test():
    assert [row.number for row in ROWS if not has_a_quick_test(row)] == []
