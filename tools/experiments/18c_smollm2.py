"""Chapter 18c: six of the bugs on a real model, smollm2-135m, without a step of training: does the
same probe see them? (ten minutes)."""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import diagnostics
from sft_lab.course.results import sweep
from sft_lab.course.zoo import PREFIX, Pipeline, Run, draw_talks
from sft_lab.course.zoo_bugs import BUGS, plant
from sft_lab.course.zoo_table import probe_data, probe_start, round_values
from sft_lab.models import load

NAME = "18c_smollm2"
ROWS, LONGEST = 6, 48  # examples that are probed, and tokens of the longest
PLANTED = (
    *("collator relabels", "packing leaks", "mean of means", "eval by batch"),
    *("no mask in batch", "tied merge"),
)
CASES = ("healthy", "healthy, packed", *PLANTED)


def make_run(
    case: str, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int
) -> Run:
    """A run before its first step, with an adapter whose B is random instead of zero: as after some
    training, so that saving and merging have something to lose."""
    bugs = {bug.name: bug for bug in BUGS}
    pipeline = plant(bugs[case]) if case in bugs else Pipeline()
    packed = case.startswith("healthy, ") or (case in bugs and bugs[case].settings.get("packed"))
    talks = draw_talks("train", 60, seed=seed)
    encoded = [pipeline.encode(talk, tokenizer, pipeline.write_turn) for talk in talks]
    kept = [k for k, row in enumerate(encoded) if row and len(row.input_ids) <= LONGEST]
    talks, examples = [talks[k] for k in kept], [encoded[k] for k in kept]
    gather = pipeline.pack if packed else pipeline.collate
    torch.manual_seed(seed)
    model = pipeline.adapt(base).eval()
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.02)
    file = {PREFIX + n: t.detach() for n, t in model.state_dict().items() if ".lora_" in n}
    first = gather(examples[:ROWS], tokenizer)
    return Run(
        *(pipeline, base, tokenizer, talks, examples, first, [], [], model, file, gather, 0, ROWS)
    )


def measure(
    case: str, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, seed: int
) -> dict[str, float]:
    """The probes that need no training."""
    run = make_run(case, base, tokenizer, seed)
    found = {**probe_data(run), **probe_start(run, rows=ROWS)}
    found["reload"] = diagnostics.reload_difference(
        run.model, "", lambda _: run.pipeline.load(base, run.file, run.pipeline.adapt)
    )
    found["merge"] = diagnostics.merge_difference(run.model, run.pipeline.merge)
    run.served = base
    asked = [talk[:1] for talk in run.talks if len(talk) == 2]
    few = sorted(asked, key=lambda talk: len(talk[0]["content"]))[:: max(1, len(asked) // 4)][:4]
    found["alone : batch"] = diagnostics.batch_generation_difference(run.ask, few)
    return round_values(found)


if __name__ == "__main__":
    base, tokenizer = load("smollm2-135m", dtype=torch.float32)

    def run(point: dict) -> dict:
        return measure(point["case"], base, tokenizer, point["seed"])

    points = [{"case": case, "seed": seed} for seed in range(3) for case in CASES]
    sweep(NAME, points, run, model=base, model_name="smollm2-135m")
