"""The table of outputs: complete, right about shapes, open to further ones."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest
from tiny_models import batch_of, molecule, structure, tiny_model

from mace_scf_jax.models import FAMILIES, OUTPUTS, Output, Use
from mace_scf_jax.models.outputs import DERIVATIVES, Outputs, ends_of_searches

PAGE = Path(__file__).parents[2] / "docs/reference/outputs.md"


@pytest.mark.parametrize("family", FAMILIES)
def test_all_outputs_of_a_family_are_described_with_what_their_rows_belong_to(family):
    model = tiny_model(family)
    graph = batch_of([structure(molecule(seed), model.settings) for seed in (0, 1)])
    assert graph.num_atoms != graph.num_graphs
    shapes = jax.eval_shape(
        lambda batch: model.evaluate(model.parameters, batch, forces=True, stress=True), graph
    )
    assert shapes.keys() - {*DERIVATIVES} == {*model.settings.outputs}
    for name, values in shapes.items():
        rows = graph.num_atoms if OUTPUTS[name].per_atom else graph.num_graphs
        assert values.shape[0] == rows, name
        assert (len(values.shape) == 1) == (OUTPUTS[name].shape == ""), name


def test_searches_name_outputs_that_exist():
    ends = ends_of_searches(OUTPUTS)
    assert [end.name for end in ends] == ["solver_status", "scf_status"]
    for end in ends:
        assert not OUTPUTS[end.search.steps].per_atom
        assert not OUTPUTS[end.search.residual].per_atom


def test_a_further_output_needs_a_name_of_its_own():
    outputs = Outputs("output", *OUTPUTS.values())

    def spin(**changes):
        given = {"name": "spin", "per": "atom", "unit": "μ_B", "meaning": "spin of an atom"}
        return Output(**given | changes)

    outputs.add(spin())
    assert outputs.add(spin()) == outputs["spin"]
    with pytest.raises(ValueError, match="output 'spin': found a second one of that name"):
        outputs.add(spin(per="graph"))
    with pytest.raises(ValueError, match="output twin: expected a name in files of its own"):
        outputs.add(spin(name="twin", written_as="density_coefficients"))
    with pytest.raises(ValueError, match=r"unknown output 'spin'.* `.*OUTPUTS.add`"):
        OUTPUTS["spin"]
    with pytest.raises(ValueError, match="output spin: expected per atom or graph, found 'edge'"):
        spin(per="edge")


def rows_of_the_page() -> str:
    """The table of the page, one line for each output."""
    lines = ["| output | of each | shape | unit | meaning | in files | mean and spread | in ASE |"]
    lines.append("|---" * 8 + "|")
    for entry in OUTPUTS.values():
        names = ", ".join(f"`{name}`" for name in entry.file_names)
        file_name = names if entry.uses & Use.FILES else ""
        if entry.uses & Use.FILES_IF_ASKED_FOR:
            file_name = f"{names} if asked for"
        marks = ("yes" if entry.uses & use else "" for use in (Use.COMMITTEES, Use.CALCULATORS))
        cells = (f"`{entry.name}`", entry.per, entry.shape, entry.unit, entry.meaning, file_name)
        lines.append("| " + " | ".join((*cells, *marks)) + " |")
    return "\n".join(lines)


def test_the_page_lists_the_table():
    assert rows_of_the_page() in PAGE.read_text(encoding="utf-8"), rows_of_the_page()
