"""What the words of several commands are turned into."""

from __future__ import annotations

import argparse
from pathlib import Path

PICTURES = (".png", ".pdf")


def picture(text: str) -> Path:
    """The path of a picture in a format that can be drawn."""
    path = Path(text)
    if path.suffix not in PICTURES:
        raise argparse.ArgumentTypeError(f"expected a {' or '.join(PICTURES)} file, found {text!r}")
    return path


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {number}")
    return number
