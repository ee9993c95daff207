"""Under "learn": what the training loop is made of, one update, its checkpoints, and the process it
runs in."""
