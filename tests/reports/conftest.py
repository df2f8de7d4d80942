from pathlib import Path

import pytest
from imaginary_run import make_run


@pytest.fixture
def folder(tmp_path) -> Path:
    """The folder of a training run that is over."""
    return make_run(tmp_path / "run")
