"""Trained models in use: predictions, committees, evaluation of files, errors, StableHLO."""
