"""The options of a training run, and the files that give them."""
