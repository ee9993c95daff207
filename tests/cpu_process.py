"""Start a script as one of several processes on a CPU: `accelerate launch ... tests/cpu_process.py
SCRIPT ARGUMENTS`.

accelerate 1.15 starts FSDP and DeepSpeed only where it finds a GPU (accelerate/state.py). Two
values are changed here, and all the rest is what a GPU run goes through: the configuration file,
the launcher, TRL, and the engine.
"""

import os
import runpy
import sys

from accelerate.state import DistributedType, PartialState

# What a machine with GPUs answers, but gloo in the place of nccl; ACCELERATE_TORCH_DEVICE=cpu names
# the device.
PartialState._prepare_backend = lambda self, cpu, sagemaker_dp=False, backend=None: (
    "gloo",
    DistributedType.MULTI_GPU,
)

if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
    import deepspeed.ops

    # Without this DeepSpeed compiles an all-reduce through shared memory, in C++, when its CPU
    # processes meet.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False

if __name__ == "__main__":
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
