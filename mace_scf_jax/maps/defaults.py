"""Where potentials are mapped unless told otherwise, in Å."""

DEFAULT_SPACING = 0.25
DEFAULT_MARGIN = 4.0
MOST_POINTS = 50_000_000
"""Of a grid; more is taken for a mistake in the spacing."""
