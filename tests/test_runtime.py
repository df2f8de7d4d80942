"""Refusal of a JAX that computes wrong numbers, and the precision of the process."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import pytest

from mace_scf_jax import runtime


def test_the_known_bad_jax_is_refused(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    with pytest.raises(runtime.UnsupportedJaxError, match=r"jax 0\.10\.2 gives silently wrong"):
        runtime.refuse_known_bad_jax("0.10.2")


def test_the_known_bad_jax_runs_without_the_faulty_fusion(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--xla_dump_to=x {runtime.FUSION_FLAG_OFF}")
    runtime.refuse_known_bad_jax("0.10.2")


@pytest.mark.parametrize("version", ["0.10.1", "0.11.0"])
def test_other_versions_run(version, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    runtime.refuse_known_bad_jax(version)


def test_a_jax_that_computes_wrong_is_recognised(monkeypatch):
    check = runtime.refuse_wrong_numbers.__wrapped__
    check()
    right = jax.jit

    def faulty(function):
        return lambda rows: right(function)(rows).at[-700:].add(1.0)

    monkeypatch.setattr(jax, "jit", faulty)
    with pytest.raises(runtime.UnsupportedJaxError, match="wrong values on CPU: 700 of 20000"):
        check()


def test_importing_the_package_allows_double_precision():
    assert jnp.zeros(1, dtype="float64").dtype == jnp.float64


def test_the_search_for_kernels_is_left_out_unless_asked_for(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    runtime.compile_without_triton_search()
    runtime.compile_without_triton_search()
    assert os.environ["XLA_FLAGS"] == f"--xla_dump_to=x {runtime.TRITON_FLAG}=false"
    monkeypatch.setenv("XLA_FLAGS", f"{runtime.TRITON_FLAG}=true")
    runtime.compile_without_triton_search()
    assert os.environ["XLA_FLAGS"] == f"{runtime.TRITON_FLAG}=true"
