"""Chapter 14b on smollm2-135m: open text under ten settings, and the penalty beside the stop token.

    python tools/experiments/14b_smollm2.py   # two minutes on a GPU; resumes

"open": eight beginnings for each seed, others each time, 150 tokens. "stops": eight questions for
each seed, greedy answers of at most 60 tokens.
"""

import torch

from sft_lab.course import decoding_runs as runs
from sft_lab.course.results import Row, sweep
from sft_lab.models import load
from sft_lab.rendering import encode_text

SEEDS = (0, 1, 2)
OPEN_TOKENS = 150
ANSWER_TOKENS = 60
SETTINGS = (
    "greedy",
    "beam 4",
    "T 0.7",
    "T 1",
    "top-p 0.9",
    "T 0.7, top-p 0.9",
    "min-p 0.1",
    "repetition 1.2",
    "frequency 0.5",
    "3-gram block",
)
PENALTIES = (1.1, 1.2, 1.5)
BEGINNINGS = (
    "The old house at the end of the street",
    "When the rain finally stopped,",
    "My grandmother used to say that",
    "The most important thing about bread is",
    "In the middle of the desert,",
    "Scientists have long wondered why",
    "The train was late again, and",
    "On the first day of school,",
    "A good teacher is someone who",
    "Nobody in the village knew",
    "The history of the bicycle begins",
    "Every morning before work,",
    "The river that runs through our town",
    "If you want to grow tomatoes,",
    "Last winter we decided to",
    "The doctor looked at the letter and",
    "Music has always been",
    "There are many reasons to travel, but",
    "The cat sat by the window and",
    "After the war, the city",
    "To build a small boat,",
    "The stars above the mountains",
    "It was the longest night of the year, and",
    "People often ask me how",
)
QUESTIONS = (
    "What is the capital of France?",
    "Name three fruits.",
    "What colour is grass?",
    "Who wrote Hamlet?",
    "Write one sentence about the sea.",
    "Name two animals that live in water.",
    "What is the opposite of hot?",
    "Give me a word that rhymes with cat.",
    "What is the largest planet?",
    "Write a title for a story about a dog.",
    "How many days are in a week?",
    "What is the capital of Japan?",
    "Name three colours.",
    "Say hello in one sentence.",
    "Which month comes after May?",
    "What do bees make?",
    "What is the capital of Italy?",
    "Name two sports.",
    "What is the opposite of big?",
    "Write one sentence about snow.",
    "Who painted the Mona Lisa?",
    "Name a planet with rings.",
    "What do cows drink?",
    "Name three days of the week.",
)
GROUP = 8
base, tokenizer = load("smollm2-135m", dtype=torch.float32)


def points() -> list[Row]:
    """Penalties first: they are the chapter's claim."""
    arms = [{"use": "stops", "penalty": 1.0, "counted": runs.COUNTED[0]}]
    arms += [
        {"use": "stops", "penalty": penalty, "counted": counted}
        for penalty in PENALTIES
        for counted in runs.COUNTED
    ]
    arms += [{"use": "open", "setting": setting} for setting in SETTINGS]
    return [{**arm, "seed": seed} for seed in SEEDS for arm in arms]


def run(point: Row) -> Row:
    """Measure one point on the eight texts of its seed."""
    first = GROUP * point["seed"]
    if point["use"] == "stops":
        questions = QUESTIONS[first : first + GROUP]
        return runs.measure_stops(
            base, tokenizer, questions, point["penalty"], point["counted"],
            max_new_tokens=ANSWER_TOKENS,
        )  # fmt: skip
    openings = [encode_text(text, tokenizer) for text in BEGINNINGS[first : first + GROUP]]
    written = runs.write_ids(
        base, tokenizer, openings, point["setting"], max_new_tokens=OPEN_TOKENS, seed=point["seed"]
    )
    return runs.describe_texts(base, openings, written)


if __name__ == "__main__":
    sweep("14b_smollm2", points(), run, model=base, model_name="smollm2-135m")
