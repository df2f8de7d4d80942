"""One head out of a PyTorch model that was trained on several levels of theory.

Heads share everything up to and including the products; each has its own energies of isolated
atoms, readouts, scale and shift. Readouts keep the heads apart by setting hidden channels of the
others to zero, so that the part of one head is a slice of the weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from mace_scf_jax.layers.notation import parse_multiplicities
from mace_scf_jax.pytorch.configuration import TorchConfigurationError
from mace_scf_jax.pytorch.module import TorchModel
from mace_scf_jax.registry import nearest

DEFAULT_HEAD = "default"
"""The head, in any capitalisation, that is meant where none is named."""


_OF_READOUT = re.compile(r"((?:les_)?readouts\.\d+|embedding_readout)\.(?P<array>.+)")
"""Names of the arrays that have a part for each head."""


def heads_of(model: TorchModel) -> tuple[str, ...]:
    """Names of the heads of a model; models that name none have one."""
    return tuple(model.configuration.get("options", {}).get("heads") or ("Default",))


def choose_head(heads: tuple[str, ...], name: str | None) -> int:
    """Place of a head among the heads of a model.

    Args:
        heads: of the model.
        name: of the head; None for the only one, or for the one called ``default``.

    Raises:
        TorchConfigurationError: there is no such head, or none is named and it is not clear which.
    """
    if name is None:
        candidates = [head for head in heads if head.lower() == DEFAULT_HEAD] or list(heads)
        if len(candidates) > 1:
            raise TorchConfigurationError(
                f"head: the model has the heads {', '.join(heads)}; say which one to import "
                "(--head NAME, in Python head=NAME)"
            )
        name = candidates[0]
    if name not in heads:
        guess = nearest(name, heads)
        hint = "" if guess is None else f"; did you mean {guess!r}?"
        raise TorchConfigurationError(
            f"head: expected one of {', '.join(heads)}, found {name!r}{hint}"
        )
    return heads.index(name)


def with_head(model: TorchModel, name: str | None = None) -> TorchModel:
    """The model of one head, with the same energies as that head of the whole model.

    Args:
        model: of one head or several.
        name: of the head; see `choose_head`.

    Raises:
        TorchConfigurationError: there is no such head, or none is named and it is not clear which.
    """
    heads = heads_of(model)
    head = choose_head(heads, name)
    if len(heads) == 1:
        return model
    backbone = dict(model.configuration["backbone"])
    options = dict(model.configuration["options"])
    hidden = parse_multiplicities(backbone.get("MLP_irreps", "1x0e"), option="MLP_irreps")[0]
    slices = readout_slices(head, len(heads), hidden)
    state = dict(model.state)
    for entry, values in model.state.items():
        found = _OF_READOUT.fullmatch(entry)
        if found and found["array"] in slices and np.size(values) > 0:
            state[entry] = slices[found["array"]](np.asarray(values, np.float64))
    energies = np.reshape(backbone["atomic_energies"], (len(heads), -1))[head]
    state["atomic_energies_fn.atomic_energies"] = energies[None]
    for entry in ("scale", "shift"):
        values = np.ravel(options.get(f"atomic_inter_{entry}", ()))
        if len(values) > 0:
            own = float(values[head % len(values)])
            options[f"atomic_inter_{entry}"] = own
            state[f"scale_shift.{entry}"] = np.array(own)
    configuration: dict[str, Any] = model.configuration | {
        "backbone": backbone | {"atomic_energies": energies.tolist()},
        "options": options | {"heads": [heads[head]]},
    }
    return TorchModel(configuration, state)


def readout_slices(
    head: int, count: int, hidden: int
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """What the arrays of a readout become, by name; maps divide by the root of all heads' channels.

    Args:
        head: place of the head.
        count: number of heads.
        hidden: hidden channels of each head.
    """
    root = math.sqrt(count)
    shape = (count, hidden, count, hidden)
    return {
        "linear.weight": lambda w: w.reshape(-1, count)[:, head],
        "linear_1.weight": lambda w: w.reshape(-1, count, hidden)[:, head].ravel(),
        "linear_mid.weight": lambda w: w.reshape(shape)[head, :, head].ravel() / root,
        "linear_mid.bias": lambda b: b.reshape(count, hidden)[head],
        "linear_2.weight": lambda w: w.reshape(count, hidden, count)[head, :, head] / root,
        "linear_2.bias": lambda b: b[head : head + 1],
    }
