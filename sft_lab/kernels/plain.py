"""Under "score": whether a module's forward pass may be replaced by other code."""

from torch import nn

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling `module` does what class `kind` says and nothing more.

    Code that reads the weights of a module and computes its output by itself skips the module's
    call, and with it whatever somebody hung onto it. So it asks here first. False for a subclass
    (a quantised layer), for a hook of any of torch's four kinds, and for a forward that was
    replaced on this one object (as accelerate does to move weights between devices).
    """
    hooked = any(getattr(module, hooks) for hooks in HOOKS)
    return type(module) is kind and not hooked and "forward" not in vars(module)
