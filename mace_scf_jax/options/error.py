"""The exception for mistakes in what the user asked for."""

from __future__ import annotations


class ConfigurationError(ValueError):
    """The configuration asks for something that cannot be done; holds every problem found.

    Args:
        problems: one sentence each, naming the option, what was found and what was expected.
    """

    def __init__(self, *problems: str):
        self.problems = problems
        super().__init__(*problems)

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        listed = "".join(f"\n  - {problem}" for problem in self.problems)
        return f"{len(self.problems)} problems in the configuration:{listed}"


def problems_of(error: ValueError) -> tuple[str, ...]:
    """The separate problems that an error reports: one, unless it is a ConfigurationError."""
    return error.problems if isinstance(error, ConfigurationError) else (str(error),)
