from pathlib import Path

import pytest
from labelled_water import make_input, train_in


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder of a training run that went through."""
    folder = tmp_path_factory.mktemp("finished")
    make_input(folder)
    assert train_in(folder, "--save_cpu", "--wandb_watch", "all") == 0
    return folder
