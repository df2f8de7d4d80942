"""Epochs and steps, validation, checkpoints, several devices."""
