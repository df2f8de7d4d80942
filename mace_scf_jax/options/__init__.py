"""What options are made of: groups of typed fields, kinds of value, the error of a wrong one.

An option is a field of an `OptionGroup`: its type with range, its default and its meaning are said
there, once. Parts of a model (backbones, families, …) bring their own groups.
"""

from mace_scf_jax.options.error import ConfigurationError, collecting, problems_of
from mace_scf_jax.options.group import DecidesWeights, OptionGroup, block, read_value
from mace_scf_jax.options.values import OneOf

__all__ = [
    "ConfigurationError",
    "DecidesWeights",
    "OneOf",
    "OptionGroup",
    "block",
    "collecting",
    "problems_of",
    "read_value",
]
