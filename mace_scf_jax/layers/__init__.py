"""Equivariant layers that networks and readouts are made of: features, linear maps, couplings."""
