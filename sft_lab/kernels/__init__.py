"""Under "score": the parts of a training step that are written out with their gradients by hand, to
be fast."""
