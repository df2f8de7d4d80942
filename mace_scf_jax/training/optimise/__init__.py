"""Optimisers, parameter groups, learning rates."""
