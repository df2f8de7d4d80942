"""The MACE network: many-body equivariant message passing."""
