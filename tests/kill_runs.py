"""Real kills and real races, as many as are asked for.

python tests/kill_runs.py --kills 60      # kill -9 at random moments, resume, compare with no kill
python tests/kill_runs.py --pairs 200     # two runs for one folder; some of them are killed

Each run is a forked process of its own with a tiny model, so that a kill costs milliseconds and not
the import of torch. Prints what happened and exits with 1 when a run went wrong.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file
from tiny import make_examples, make_model, make_tokenizer

import sft_lab.train
from sft_lab.files import OutputError, recover_folder
from sft_lab.train import train

# 20 steps, a checkpoint after every second
EXAMPLES, TOKENIZER = make_examples(20), make_tokenizer()
RUN = {"epochs": 4, "batch_size": 4, "checkpoint_every": 2, "progress": False}
REFUSED, DONE, KILLED = "refused", "done", "killed"
Weights = dict[str, torch.Tensor]


def run(folder: Path, seed: int, *, resume: bool, before_step=lambda: None) -> list[float]:
    """The losses of a run, with dropout."""
    model, real = make_model(attention_dropout=0.2), sft_lab.train.optimizer_step
    settings = {**RUN, "seed": seed, "output_dir": folder, "resume": resume}

    def step(*arguments, **given):
        before_step()
        return real(*arguments, **given)

    sft_lab.train.optimizer_step = step
    try:
        return train(model, TOKENIZER, EXAMPLES, **settings).losses
    finally:
        sft_lab.train.optimizer_step = real


def fork_run(folder: Path, seed: int, *, resume: bool, delay: float = 0.0) -> tuple[int, int]:
    """Start a run in a process of its own; returns the process's number and a pipe that brings a
    byte for each step, and is empty when the process is over."""
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        return child, reader
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the progress bars of saving
        time.sleep(delay)
        losses = run(folder, seed, resume=resume, before_step=lambda: os.write(writer, b"."))
        folder.with_name(f"{folder.name}.losses").write_text(json.dumps(losses))
        code = 0
    except OutputError as error:
        # "another process" for the moment between its lock and its name
        code = 69 if "is in use by another run (" in str(error) else 70
    finally:
        os._exit(code)  # whatever happens: a forked process must not go on as its parent


def wait_for_steps(reader: int, steps: int) -> None:
    """Wait until a forked run has begun so many steps, or is over."""
    while steps > 0 and (come := os.read(reader, 1)):
        steps -= len(come)


def outcome(child: int, reader: int) -> str:
    """Wait for a process; `refused`, `done` or `killed`, RuntimeError for anything else."""
    os.close(reader)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    names = {0: DONE, 69: REFUSED, -signal.SIGKILL: KILLED}
    if code not in names:
        raise RuntimeError(f"a run ended with exit code {code}")
    return names[code]


def try_kills(kills: int, seed: int, place: Path) -> Counter:
    """Kill runs at random moments and resume them until they are done, until so many kills have
    hit; each finished run must be the one that nobody killed."""
    rng, counted = random.Random(seed), Counter()
    expected = run(place / "unbroken", 0, resume=False)
    weights = load_file(place / "unbroken" / "model.safetensors")
    while counted["kills"] < kills:
        folder, ended = place / f"run {counted['runs']}", KILLED
        while ended != DONE:
            child, reader = fork_run(folder, 0, resume=True)
            if counted["kills"] < kills:
                # a run of 20 steps may make the last of them after several kills
                wait_for_steps(reader, rng.randint(0, 20))
                time.sleep(rng.expovariate(1 / 0.02))  # into a step, a saving, or what follows
                os.kill(child, signal.SIGKILL)  # one that is over already waits to be asked
            ended = outcome(child, reader)
            if ended == KILLED:
                counted["kills"] += 1
                counted["inside saving"] += any(folder.glob("*.new"))
                counted["with a checkpoint"] += has_checkpoint(folder)
        counted["runs"] += 1
        losses = json.loads(folder.with_name(f"{folder.name}.losses").read_text())
        counted["right"] += losses == expected and same(
            load_file(folder / "model.safetensors"), weights
        )
        counted["left behind"] += leftovers(folder)
    return counted


def try_races(pairs: int, seed: int, place: Path) -> Counter:
    """Start two runs for one folder at about the same time; every second pair is killed. What they
    leave must be of one of them."""
    rng, counted = random.Random(seed), Counter()
    known = {number: weights_after_each_step(place, number) for number in (0, 1)}
    for pair in range(pairs):
        folder = place / f"pair {pair}"
        delays = [rng.uniform(0, 0.02), rng.uniform(0, 0.02)]
        children = [
            fork_run(folder, number, resume=False, delay=delays[number]) for number in (0, 1)
        ]
        if pair % 2:
            time.sleep(rng.uniform(0, 0.4))
            for child, _ in children:
                os.kill(child, signal.SIGKILL)
        counted.update(outcome(*child) for child in children)
        if has_checkpoint(folder):
            state = json.loads((folder / "checkpoint" / "state.json").read_text())
            steps = known[state["run"]["seed"]]
            saved = load_file(folder / "checkpoint" / "weights.safetensors")
            counted["checkpoints"] += 1
            counted["mixed"] += not same(saved, steps[len(state["steps"])])
        if (folder / "config.json").exists():
            saved = load_file(folder / "model.safetensors")
            counted["results"] += 1
            counted["mixed"] += not any(same(saved, steps[-1]) for steps in known.values())
    return counted


def weights_after_each_step(place: Path, seed: int) -> list[Weights]:
    """Those of a run that nobody disturbs, as its checkpoints hold them; the last as its result."""
    folder, taken = place / f"alone {seed}", [{}]
    real = sft_lab.train.save_checkpoint

    def save(checkpoint, *arguments):
        real(checkpoint, *arguments)
        taken.extend([{}, load_file(checkpoint / "weights.safetensors")])  # after every second step

    sft_lab.train.save_checkpoint = save
    try:
        run(folder, seed, resume=False)
    finally:
        sft_lab.train.save_checkpoint = real
    return [*taken, load_file(folder / "model.safetensors")]


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def has_checkpoint(folder: Path) -> bool:
    recover_folder(folder / "checkpoint")
    return (folder / "checkpoint" / "state.json").exists()


def leftovers(folder: Path) -> int:
    """Files of a finished run's folder that are not part of a result."""
    undisturbed = os.listdir(folder.parent / "unbroken")
    return len(set(os.listdir(folder)) - set(undisturbed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=0, help="of runs that race for a folder")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    right = True
    for number, attempt in ((arguments.kills, try_kills), (arguments.pairs, try_races)):
        if number:
            with (
                tempfile.TemporaryDirectory() as place,
                contextlib.redirect_stderr(open(os.devnull, "w")),
            ):
                counted = attempt(number, arguments.seed, Path(place))
            print(f"seed {arguments.seed}:", json.dumps(counted))
            right &= counted["right"] == counted["runs"]
            right &= counted["mixed"] == counted["left behind"] == 0
    sys.exit(not right)


if __name__ == "__main__":
    main()
