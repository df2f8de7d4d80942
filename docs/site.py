"""What mkdocs does for the site beside its plugins.

Pages of the repository that stand outside of ``docs/`` are on the site too; links between files of
the repository lead to pages of the site where there is one, and to the repository elsewhere;
``{{ name }}`` is what ``extra`` of ``mkdocs.yml`` says; and the feature table has no columns for
developers.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES_ELSEWHERE = {
    "CONTRIBUTING.md": "development/contributing.md",
    "CHANGELOG.md": "development/changes.md",
    "SECURITY.md": "development/security.md",
    "examples/water_ions/README.md": "examples/water_ions.md",
    "examples/water_ions/DATA.md": "examples/water_ions_data.md",
    "examples/tio2/README.md": "examples/tio2.md",
    "examples/tio2/DATA.md": "examples/tio2_data.md",
    "examples/liquid_water/README.md": "examples/liquid_water.md",
    "examples/fine_tuning/README.md": "examples/fine_tuning.md",
    "examples/latent_charges/README.md": "examples/latent_charges.md",
}
"""Files of the repository and the pages of the site that they become."""
LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")

FEATURE_TABLE = "docs/reference/feature_table.md"
CELL = r"(?:[^|\n\\]|\\.)*\|"
FOR_DEVELOPERS = re.compile(rf"^(\|{CELL}{CELL}{CELL}){CELL}{CELL}({CELL})$", re.M)
"""Rows of the feature table; two of their six columns are for those who have the repository."""


def on_config(config):
    """Take the addresses of the project from ``pyproject.toml``, once a release has filled them."""
    addresses = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    if "OWNER" not in addresses["Source"]:
        config.repo_url, config.site_url = addresses["Source"], addresses["Documentation"]
        config.repo_name = config.site_name
        config.extra["install"] = f"pip install {config.site_name}"
    return config


def on_files(files, config):
    """Add the pages that stand outside of ``docs/``."""
    for source, page in PAGES_ELSEWHERE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Put in what a release says, and make links lead to pages or to the repository."""
    markdown = re.sub(r"\{\{ (\w+) \}\}", lambda found: config.extra[found[1]], markdown)
    pages = {os.path.relpath(file.abs_src_path, ROOT): file.src_uri for file in files}
    here = os.path.relpath(page.file.abs_src_path, ROOT)
    if here == FEATURE_TABLE:
        markdown = FOR_DEVELOPERS.sub(r"\1\2", markdown)

    def link(found: re.Match) -> str:
        text, target, anchor = found["text"], found["target"], found["anchor"] or ""
        path = os.path.normpath(os.path.join(os.path.dirname(here), target))
        if ":" in target or not (ROOT / path).exists():
            return found[0]
        if path in pages:
            to = os.path.relpath(pages[path], os.path.dirname(page.file.src_uri) or ".")
            return f"[{text}]({to}{anchor})"
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path}{anchor})"
        return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"

    return LINK.sub(link, markdown)
