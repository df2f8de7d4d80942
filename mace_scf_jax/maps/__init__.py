"""Potentials and densities of multipoles in space, and a calculator of fixed multipoles."""
