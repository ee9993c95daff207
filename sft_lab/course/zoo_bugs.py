"""Chapter 18c: 28 real bugs, each a line of a station of `sft_lab.course.zoo`, exchanged; and two
healthy runs that look ill.

Threads are named repository#number. What stands there is the family of the bug; the line is ours.
"""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sft_lab.course import zoo
from sft_lab.course.zoo import Pipeline


@dataclass(frozen=True)
class Bug:
    """A cause, where it was reported, and the line that makes it."""

    name: str  # short, for tables
    cause: str  # what the reader chooses in the clinic
    thread: str
    station: str
    healthy: str
    buggy: str
    settings: dict[str, Any] = field(default_factory=dict)  # of run_pipeline
    also: tuple[
        tuple[str, str, str], ...
    ] = ()  # (station, healthy, buggy) of what must come with it


@dataclass(frozen=True)
class Decoy:
    """A healthy run whose curve looks ill."""

    name: str
    cause: str
    settings: dict[str, Any]


DECOYS = (
    Decoy("decoy: jagged", "healthy: few rows a step", {"rows": 3, "steps": 96}),
    Decoy("decoy: slow", "healthy: a long warm-up", {"steps": 64, "rows": 8, "warmup": 0.6}),
)


def plant(bug: Bug) -> Pipeline:
    """The healthy pipeline with one line of one station exchanged."""
    changes = [(bug.station, bug.healthy, bug.buggy), *bug.also]
    return Pipeline({station: exchange(station, old, new) for station, old, new in changes})


def show_lines(bug: Bug) -> str:
    """Healthy lines against buggy ones, of every station that is changed, as a diff."""
    shown = []
    for station, old, new in [(bug.station, bug.healthy, bug.buggy), *bug.also]:
        source = inspect.getsource(getattr(zoo, station))
        pair = source.splitlines(), source.replace(old, new).splitlines()
        lines = difflib.unified_diff(*pair, n=0, lineterm="")
        shown.append(f"{station}:")
        shown += [f"  {line}" for line in lines if line[:2] not in ("--", "++", "@@")]
    return "\n".join(shown)


@cache
def exchange(station: str, healthy: str, buggy: str) -> Callable:
    """The station compiled from its own source, with one piece of it exchanged. ValueError unless
    that piece stands there exactly once."""
    source = inspect.getsource(getattr(zoo, station))
    if source.count(healthy) != 1:
        raise ValueError(f"{station} holds {source.count(healthy)} times {healthy!r}: expected 1")
    names = dict(vars(zoo))
    exec(compile(source.replace(healthy, buggy), f"<{station} with a bug>", "exec"), names)
    return names[station]


BUGS: tuple[Bug, ...] = (
    Bug(
        "stop = pad",
        "the pad token is the stop token, and padding is not graded",
        "happy-llm PR #216, open-r1#492",
        "collate",
        healthy="    pad = tokenizer.pad_token_id",
        buggy="    pad = tokenizer.eos_token_id",
    ),
    Bug(
        "mask early",
        "the mask stands one token too early: stop token not graded",
        "verl#3562",
        "encode",
        healthy="zip(ids, mask, ",
        buggy="zip(ids, [*mask[1:], False], ",
    ),
    Bug(
        "mask late",
        "the mask begins one token late: first answer token not graded",
        "OpenRLHF#973, verl PR #3287",
        "encode",
        healthy="[False] * len(opening)\n        mask += [answer] * (len(inside) + 1)",
        buggy="[False] * (len(opening) + 1)\n        mask += [answer] * len(inside)",
    ),
    Bug(
        "blank at seam",
        "the prompt ends in a blank that training joins with the next word",
        "AReaL PR #1427, trl#5213",
        "prompt",
        healthy='write_turn("assistant", "", tokenizer)[0]',
        buggy='write_turn("assistant", "", tokenizer)[0] + tokenizer(" ").input_ids',
    ),
    Bug(
        "no mask",
        "the mask is lost: every token is graded",
        "nanochat PR #582, unsloth#3398",
        "encode",
        healthy="if on else IGNORE_INDEX",
        buggy="",
    ),
    Bug(
        "collator relabels",
        "the collator makes labels from the ids again",
        "transformers#26357",
        "collate",
        healthy="torch.tensor(example.labels)",
        buggy="torch.tensor(example.input_ids)",
    ),
    Bug(
        "shifted twice",
        "labels are shifted twice: the token after next is learned",
        "transformers PR #47395, PR #37830",
        "loss",
        healthy='batch["labels"][:, 1:]',
        buggy='F.pad(batch["labels"], (0, 1), value=IGNORE_INDEX)[:, 2:]',
    ),
    Bug(
        "nothing graded",
        "the marker of an answer is never found: nothing is graded",
        "trl#6668, unsloth#2900",
        "encode",
        healthy='== "assistant"',
        buggy='== "Assistant"',
    ),
    Bug(
        "0 / 0",
        "a mean over no graded token",
        "happy-llm#50",
        "loss",
        healthy=".sum().clamp(min=1)",
        buggy=".sum()",
        also=(("encode", '== "assistant"', '== "Assistant"'),),
    ),
    Bug(
        "turn not closed",
        "the end of a turn is dropped",
        "axolotl#3754, unsloth#3920",
        "write_turn",
        healthy="closing = [stop, *",
        buggy="closing = [*",
    ),
    Bug(
        "wrong turn",
        "the user's turns are graded, not the answers",
        "axolotl#2089, #1761",
        "encode",
        healthy='turn["role"] == "assistant"',
        buggy="talk.index(turn) % 2 == 0",
    ),
    Bug(
        "two BOS",
        "the first token of the row is written twice",
        "trl#1400, OpenRLHF#393",
        "encode",
        healthy="ids, mask = [tokenizer.pad_token_id], [False]",
        buggy="ids, mask = [tokenizer.pad_token_id] * 2, [False] * 2",
    ),
    Bug(
        "packing loses mask",
        "packing grades every token",
        "trl#3728, OpenRLHF PR #781",
        "pack",
        healthy="[label for example in examples for label in (IGNORE_INDEX, *example.labels[1:])]",
        buggy="list(ids)",
        settings={"packed": True},
    ),
    Bug(
        "packing leaks",
        "packed examples see each other",
        "trl#1230, #3067",
        "pack",
        healthy="[place for example in examples for place in range(len(example.input_ids))]",
        buggy="list(range(len(ids)))",
        settings={"packed": True},
    ),
    Bug(
        "answers cut",
        "long rows are cut, and lose their stop token",
        "LLaMA-Factory#5231, #3995",
        "encode",
        healthy="        return None",
        buggy="        ids, labels = ids[:most], labels[:most]",
    ),
    Bug(
        "mean of means",
        "the loss of a step is a mean of its batches' means",
        "transformers PR #34191, PR #46204",
        "gradient",
        healthy="count / max(1, sum(counts))",
        buggy="1 / len(batches)",
    ),
    Bug(
        "eval by batch",
        "the evaluation is a mean of its batches' means",
        "transformers#39241, mlx-lm PR #1855",
        "evaluate",
        healthy="count = count_graded(batch)",
        buggy="count = 1",
    ),
    Bug(
        "dropout in eval",
        "dropout acts during evaluation",
        "nanoGPT PR #240, unsloth-zoo PR #1123",
        "evaluate",
        healthy="    model.eval()",
        buggy="    model.train()",
    ),
    Bug(
        "B not trained",
        "the matrices B get no update",
        "peft#793, open-unlearning#178",
        "trained",
        healthy="for weight in model.parameters() if weight.requires_grad",
        buggy='for name, weight in model.named_parameters() if "lora_A" in name',
    ),
    Bug(
        "fresh adapter",
        "loading makes a new adapter and leaves the file's aside",
        "peft#1142",
        "load",
        healthy="model.load_state_dict(tensors, strict=False)",
        buggy="pass",
    ),
    Bug(
        "keys do not meet",
        "the names in the file do not meet those of the model",
        "peft#1579, signet-trainer#105",
        "load",
        healthy="name.removeprefix(PREFIX): tensor",
        buggy="name: tensor",
    ),
    Bug(
        "tied merge",
        "merging changes a matrix that two layers share",
        "transformers#45127, LLaMA-Factory PR #10832",
        "merge",
        healthy="    untie(model)",
        buggy="    pass",
    ),
    Bug(
        "stop row frozen",
        "the row of the stop token is not trained",
        "LLaMA-Factory#7943, qlora#214",
        "adapt",
        healthy="    model.lm_head = LoRALinear(model.lm_head, rank=8, alpha=16, dropout=0.05)\n",
        buggy="",
    ),
    Bug(
        "no mask in batch",
        "padding on the left is read when answers are written in a batch",
        "nnsight PR #673, trl#4497",
        "generate",
        healthy="attention_mask=mask",
        buggy="attention_mask=torch.ones_like(mask)",
    ),
    Bug(
        "stop not named",
        "the server does not know the stop token",
        "minimind#555, Qwen#441",
        "generate",
        healthy="eos_token_id=[stop]",
        buggy="eos_token_id=[pad]",
    ),
    Bug(
        "header graded",
        "the opening of the answer is graded too",
        "Qwen#446",
        "encode",
        healthy="mask += [False] * len(opening)",
        buggy="mask += [answer] * len(opening)",
    ),
    Bug(
        "history rewritten",
        "the template rewrites earlier answers once a turn follows",
        "trl PR #6363, ms-swift#9829",
        "encode",
        healthy='content = turn["content"]',
        buggy='content = turn["content"] if turn is talk[-1] else turn["content"].split("\\n")[0]',
    ),
    Bug(
        "typed control",
        "control tokens that a user typed become control tokens",
        "transformers#29279",
        "write_turn",
        healthy=", split_special_tokens=True",
        buggy="",
    ),
    Bug(
        "resume forgets",
        "optimizer and schedule begin anew after a resume",
        "transformers#23099, #27749",
        "resume",
        healthy='    optimizer.load_state_dict(state["optimizer"])\n    return state["steps"]',
        buggy="    optimizer.state.clear()\n    return 0",
    ),
)
