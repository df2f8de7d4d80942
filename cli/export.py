"""``mace-scf-jax export``: a model for PyTorch, for ænet, or as StableHLO for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mace_scf_jax.data.errors import Location
from mace_scf_jax.data.reading import read_atoms
from mace_scf_jax.late import import_all
from mace_scf_jax.predict.use import OPTIONS, PLATFORMS
from mace_scf_jax_cli import work
from mace_scf_jax_cli.arguments import (
    add_scf_arguments,
    add_use_arguments,
    options_of_use,
    self_consistency_of,
)

if TYPE_CHECKING:
    from mace_scf_jax.aenet import export_committee, export_potential
    from mace_scf_jax.predict.committee import COMMITTEE_FILE, is_committee, load_committee
    from mace_scf_jax.predict.stablehlo import export_stablehlo
    from mace_scf_jax.pytorch import export_torch_model
    from mace_scf_jax.pytorch.files import read_torch_model, write_torch_model
    from mace_scf_jax.simulate import Model, load_model

WHEN_INTERRUPTED = "interrupted; the output may be incomplete"
STATE_DICT = "state-dict"
STABLEHLO = "stablehlo"
MODEL_SUFFIX = ".safetensors"
AENET = "aenet"
OF_FORMAT = {
    "template": STATE_DICT,
    "trust": STATE_DICT,
    "prefix": AENET,
    **dict.fromkeys(("structure", "stress", "atoms", "edges", "platforms"), STABLEHLO),
    **dict.fromkeys((name for name in OPTIONS if name != "head"), STABLEHLO),
}
"""Options that only one of the formats has."""


def run(words: Sequence[str]) -> int:
    """Export as the words after ``mace-scf-jax export`` say; returns the exit status."""
    parser = _parser()
    given = parser.parse_args(words)
    scf = self_consistency_of(given)
    said = {name for name, value in vars(given).items() if value not in (None, False)}
    for name, needed in OF_FORMAT.items():
        if name in said and given.format != needed:
            parser.error(f"--{name} needs --format {needed}")
    if given.format != STABLEHLO and scf is not None:
        parser.error("options of self-consistent models need --format stablehlo")
    import_all(__name__, __file__)
    work.begin()
    output = Path(given.output)
    if given.format == AENET:
        _export_to_aenet(Path(given.model), output, given.prefix)
        return 0
    model = load_model(given.model, scf=scf, **options_of_use(given))
    if output.suffix == MODEL_SUFFIX:
        if given.head is None or given.format != STATE_DICT:
            parser.error(f"{output}: a model file is written of one head alone (--head NAME)")
        model.save(output)
        print(f"Wrote {model.settings.family} of the head {given.head} to {output}")
        return 0
    if given.format == STATE_DICT:
        _export_state_dict(model, output, given.template, trust=given.trust)
        return 0
    if given.structure is None:
        parser.error("--format stablehlo needs --structure FILE.xyz")
    _export_stablehlo(model, output, given)
    return 0


def _export_state_dict(model: Model, output: Path, template: str | None, *, trust: bool) -> None:
    read = None if template is None else read_torch_model(template, trust=trust)
    exported = export_torch_model(model, template=read)
    write_torch_model(output, exported)
    kept = "" if template is None else f", all others as in {template}"
    print(f"Wrote {len(exported.state)} arrays of {model.settings.family} to {output}{kept}")


def _export_to_aenet(path: Path, folder: Path, prefix: str | None) -> None:
    if prefix is None:
        prefix = path.absolute().parent.name if path.name == COMMITTEE_FILE else path.name
        prefix = prefix.partition(".")[0]
    if is_committee(path):
        committee = load_committee(path)
        written = export_committee(committee, folder, prefix=prefix)
        family = f"{len(committee)} members {committee.first.settings.family}"
    else:
        model = load_model(path)
        written = export_potential(model, folder, prefix=prefix)
        family = model.settings.family
    print(f"Wrote {family} to {len(written)} files in {folder}; read back, energies are the same")


def _export_stablehlo(model: Model, output: Path, given: argparse.Namespace) -> None:
    atoms = read_atoms(given.structure)[0]
    exported = export_stablehlo(
        model,
        model.prepare(model.read(atoms, Location(given.structure, 0))),
        stress=given.stress,
        atoms=given.atoms,
        edges=given.edges,
        platforms=given.platforms or PLATFORMS,
    )
    exported.save(output)
    capacity = exported.description["capacity"]
    print(
        f"Wrote {model.settings.family} for up to {capacity['atoms']} atoms and "
        f"{capacity['edges']} edges to {output}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mace-scf-jax export",
        description="Write a model for PyTorch, for ænet, or as StableHLO, which JAX runs without "
        "this package.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="model file; for ænet also the folder of a committee"
    )
    parser.add_argument(
        "output",
        metavar="OUT",
        help="OUT.npz, for a state dict also OUT.pt; for ænet a folder; with --head also "
        "OUT.model.safetensors, the model of one head",
    )
    parser.add_argument("--format", choices=(STATE_DICT, STABLEHLO, AENET), default=STATE_DICT)
    weights = parser.add_argument_group("state-dict")
    weights.add_argument(
        "--template",
        metavar="SOURCE",
        help="PyTorch model of the same configuration, whose other arrays are kept",
    )
    weights.add_argument(
        "--trust",
        action="store_true",
        help="read the template though that runs code that is in the file",
    )
    potential = parser.add_argument_group("aenet")
    potential.add_argument(
        "--prefix",
        metavar="TEXT",
        help="files are called TEXT.<element>.nn.ascii (default: the name of MODEL up to its "
        "first dot)",
    )
    function = parser.add_argument_group("stablehlo")
    function.add_argument(
        "--structure",
        metavar="FILE.xyz",
        help="its first structure tells sizes and reciprocal vectors",
    )
    function.add_argument("--stress", action="store_true", help="return stress and virials too")
    function.add_argument("--atoms", type=int, metavar="N", help="capacity (default: as many)")
    function.add_argument(
        "--edges", type=int, metavar="N", help="capacity (default: one fifth more)"
    )
    function.add_argument(
        "--platforms",
        nargs="+",
        choices=("cpu", "cuda", "rocm", "tpu"),
        help=f"kinds of devices (default: {' '.join(PLATFORMS)})",
    )
    add_use_arguments(parser)
    add_scf_arguments(parser)
    return parser
