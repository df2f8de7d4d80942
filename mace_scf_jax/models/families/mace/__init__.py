"""MACE and ScaleShiftMACE: short-range energies without charges."""
