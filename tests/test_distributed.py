"""Two processes repeat the run of one: FSDP and DeepSpeed ZeRO-2, through accelerate and TRL, on a
CPU with gloo.

tests/cpu_process.py says what differs from a run on GPUs. Not tested here, for want of GPUs: nccl,
bf16, speed.
"""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
STEPS, BATCH_SIZE = 10, 8
SCRIPT = [
    "tools/distributed_sft.py",
    f"--steps={STEPS}",
    f"--batch-size={BATCH_SIZE}",
    "--learning-rate=5e-4",
]
# Losses are about 5 and float32 has 24 bits, so neighbouring numbers are 5e-7 apart; sums in
# another order move a loss by a few of those, and AdamW makes of a gradient near 0, which is all
# rounding, a step of up to the learning rate. The mean of the two processes' means, a common
# mistake, moves a loss by 0.1.
TOLERANCE = 1e-4
DEEPSPEED = ROOT / ".venv" / "deepspeed"  # where `make test` installs it
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None and not (DEEPSPEED / "installed").exists(),
    reason="DeepSpeed is not installed; `make test` does it, or pip install -r "
    "configs/requirements-deepspeed.txt",
)


def run_together(commands: list[list[str]], folder: Path, seconds: float = 300) -> None:
    """Run commands side by side until all have ended; fails with the end of what the first bad one
    wrote."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "ACCELERATE_TORCH_DEVICE": "cpu",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": str(DEEPSPEED),
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
    }
    logs = [folder / f"{number}.log" for number in range(len(commands))]
    started = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        for command, log in zip(commands, logs, strict=True)
    ]
    deadline = time.monotonic() + seconds
    try:
        codes = [process.wait(max(0.1, deadline - time.monotonic())) for process in started]
    except subprocess.TimeoutExpired:
        codes = [process.poll() for process in started]
    finally:
        for process in started:  # a launcher that is ended alone leaves its processes behind
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    for command, code, log in zip(commands, codes, logs, strict=True):
        if code != 0:
            end = f"has not ended after {seconds:.0f} s" if code is None else f"ended with {code}"
            pytest.fail(f"{' '.join(command)}\n{end}:\n{log.read_text()[-3000:]}", pytrace=False)


def launch(config: str, machines: int, options: tuple[str, ...], folder: Path) -> None:
    """Two processes on one machine, or one on each of two: two launchers that meet at an address,
    here our own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = [
        "--num_machines",
        str(machines),
        "--main_process_ip=127.0.0.1",
        f"--main_process_port={port}",
    ]
    launcher = ["-m", "accelerate.commands.launch", f"--config_file=configs/{config}.yaml", *place]
    script = ["tests/cpu_process.py", *SCRIPT, *options, "--rows-at-once=2", f"--output={folder}"]
    run_together(
        [[*launcher, f"--machine_rank={rank}", *script] for rank in range(machines)], folder.parent
    )


def read_run(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize(
    ("config", "machines", "options"),
    [
        pytest.param("fsdp", 1, (), id="fsdp"),
        pytest.param(
            "zero2",
            2,
            ("--lora", "--checkpointing"),
            id="zero2-two_machines-lora",
            marks=needs_deepspeed,
        ),
    ],
)
def test_two_processes_repeat_the_run_of_one(config, machines, options, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    run_together(
        [[*SCRIPT, *options, f"--output={one}"]], tmp_path
    )  # takes the 8 rows of a step at once
    launch(config, machines, options, two)  # each process takes 2 rows, twice a step
    alone, together = read_run(one), read_run(two)

    assert len(together["losses"]) == STEPS
    assert together["losses"] == pytest.approx(alone["losses"], rel=0, abs=TOLERANCE)
    assert (
        alone["losses"][0] - alone["losses"][-1] > 0.5
    )  # a run in which nothing is learned would agree as well
    file = "adapter_model.safetensors" if options else "model.safetensors"
    expected, saved = load_file(one / file), load_file(two / file)
    assert expected.keys() == saved.keys() - {
        "lm_head.weight"
    }  # both engines write the tied matrix under both names
    for name, weight in expected.items():
        torch.testing.assert_close(saved[name], weight, rtol=0, atol=TOLERANCE)

    engines = {"fsdp": "FSDP", "zero2": "DEEPSPEED"}
    assert (alone["engine"], together["engine"]) == ("NO", engines[config])
    [whole], halves = alone["processes"], together["processes"]
    assert [half["rows"] for half in halves] == [STEPS * BATCH_SIZE / 2] * 2
    assert sum(half["tokens"] for half in halves) == whole["tokens"]
    split = {"fsdp": ("weights", "averages"), "zero2": ("averages",)}[config]
    for half in halves:
        for name in ("weights", "averages"):
            assert half[name] == (whole[name] / 2 if name in split else whole[name]), (
                name,
                half,
                whole,
            )
