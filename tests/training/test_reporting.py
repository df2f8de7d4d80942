import dataclasses
import errno
import json
import resource

import pytest

from mace_scf_jax.training.loop.observer import StepRecord
from mace_scf_jax.training.loop.watching import Watched
from mace_scf_jax.training.records.results_file import ResultLines


def step(number):
    return StepRecord("a", 0, number, number, 0.5, {"forces": 0.5}, 0.1, 1.0, False)


def test_a_line_that_was_cut_off_does_not_spoil_the_next(tmp_path):
    path = tmp_path / "results.txt"
    with ResultLines(path) as lines:
        lines.step_done(step(0))
    path.write_bytes(path.read_bytes() + b'{"mode": "op')
    for number in (1, 2):
        with ResultLines(path) as lines:
            lines.step_done(step(number))
    first, cut, *rest = path.read_text().splitlines()
    assert cut == '{"mode": "op'
    assert [json.loads(line)["opt_step"] for line in (first, *rest)] == [0, 1, 2]


def test_what_a_closer_look_has_shown_is_a_part_of_the_line(tmp_path):
    path = tmp_path / "results.txt"
    watched = Watched(1, {"grad/global_norm": 2.0}, {"gradients/embedding": ([1], [0.0, 1.0])})
    with ResultLines(path) as lines:
        lines.step_done(step(0))
        lines.step_done(dataclasses.replace(step(1), watched=watched))
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert second.keys() - first.keys() == {"grad/global_norm"}
    assert second["grad/global_norm"] == 2.0


def test_a_full_disk_is_named(tmp_path):
    path = tmp_path / "results.txt"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with ResultLines(path) as lines:
        lines.step_done(step(0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
        try:
            with pytest.raises(OSError, match=r"cannot write results.*results\.txt") as caught:
                lines.step_done(step(1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
