"""Chapter 14b: what each setting of decoding does to open text and to answers, on atlas.

    python tools/experiments/14b_settings.py   # eight minutes on one core; resumes

"open": the base goes on with the beginnings of 24 documents, others for each seed, for at most 120
tokens. "answers": a copy of the base, tuned by the seed for five seconds, answers 160 questions
about entities that no lesson names, four times where chance takes part. "merged": the same lessons
by LoRA, merged; greedy and with T 0.7, top-p 0.9, eight samples of each answer. "stops": the model
of "answers" lists words greedily under a repetition penalty that counts the prompt, or counts all
but the stop token, or leaves the prompt out.
"""

from functools import cache

from sft_lab import atlas
from sft_lab.course import decoding_runs as runs
from sft_lab.course.results import Row, sweep
from sft_lab.models import load

SEEDS = (0, 1, 2)
MERGED = ("greedy", "T 0.7, top-p 0.9")
SAMPLES = {"answers": runs.SAMPLES, "merged": 8}
PENALTIES = (1.1, 1.2, 1.3, 1.4, 1.5)
SLOW = tuple(runs.CONTRASTIVE)  # asked for open text alone
base, tokenizer = load("atlas-base")
facts = atlas.split(atlas.load_facts())


def points() -> list[Row]:
    """Every setting for each use, seed by seed."""
    answered = [setting for setting in runs.SETTINGS if setting not in SLOW]
    found = []
    for seed in SEEDS:
        found += [
            {"use": "open", "setting": setting, "seed": seed}
            for setting in (*runs.SETTINGS, runs.REFERENCE)
        ]
        found += [{"use": "answers", "setting": one, "seed": seed} for one in answered]
        found += [{"use": "merged", "setting": one, "seed": seed} for one in MERGED]
        found += [{"use": "stops", **arm, "seed": seed} for arm in stop_arms()]
    return found


def stop_arms() -> list[Row]:
    """Every penalty with everything that may count as said; 1.0 changes nothing, so once."""
    arms = [{"penalty": 1.0, "counted": runs.COUNTED[0]}]
    return arms + [
        {"penalty": penalty, "counted": counted}
        for penalty in PENALTIES
        for counted in runs.COUNTED
    ]


@cache
def tuned_model(use: str, seed: int):
    """The model that answers; made once in each process."""
    return (runs.tune_and_merge if use == "merged" else runs.tune)(base, tokenizer, facts, seed)


def run(point: Row) -> Row:
    """Measure one setting."""
    use, seed = point["use"], point["seed"]
    if use == "open":
        return runs.measure_open(base, tokenizer, facts, point["setting"], seed)
    # one model answers and stops
    model = tuned_model("merged" if use == "merged" else "answers", seed)
    if use == "stops":
        questions = [talk[:-1] for talk in runs.make_exam(facts)["list"]]
        return runs.measure_stops(model, tokenizer, questions, point["penalty"], point["counted"])
    samples, setting = SAMPLES[use], point["setting"]
    return runs.measure_answers(model, base, tokenizer, facts, setting, seed, samples=samples)


if __name__ == "__main__":
    sweep("14b_settings", points(), run, model=base)
