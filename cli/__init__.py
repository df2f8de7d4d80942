"""The command line ``mace-scf-jax``: parse, call, print."""
