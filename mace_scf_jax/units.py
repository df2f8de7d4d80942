"""Units and physical constants: Å, e, eV, V, V/Å everywhere."""

import math

VACUUM_PERMITTIVITY = 5.526349406e-3
"""Vacuum permittivity ε₀ in e²/(eV Å)."""

FIELD_CONSTANT = 1.0 / VACUUM_PERMITTIVITY
"""1/ε₀ in eV Å/e²."""

COULOMB_CONSTANT = FIELD_CONSTANT / (4.0 * math.pi)
"""1/(4π ε₀) in eV Å/e² (14.3996…): energy of two unit charges one Å apart."""

INFRARED_INTENSITY = 974.8801
"""N_A/(12 ε₀ c²) in km/mol per e²/u: integrated absorption of a normal mode along whose coordinate
the dipole changes by 1 e/√u."""
