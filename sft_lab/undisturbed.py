"""Under "score": try something on a model and leave no trace."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Inside, the model is in eval mode; afterwards every module is in the mode it was in, and the
    random generators stand where they stood."""
    training = [module for module in model.modules() if module.training]
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        # one by one: train(True) would also wake modules that somebody had put to eval
        for module in training:
            module.training = True
