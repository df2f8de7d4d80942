"""Training: options, schedule, losses, metrics, optimiser, loop, checkpoints."""
