"""Chapter 19b: smollm2-135m behind a server, as it was evaluated and with its stop token lost.

    python tools/experiments/19b_smollm2.py

Each row: ten questions, drawn by the seed, asked of `transformers serve` at temperature 0, against
the greedy answers of `generate_responses`.
"""

import random
import tempfile
from pathlib import Path

import torch
from openai import DefaultHttpxClient, OpenAI

from sft_lab import atlas
from sft_lab.chat import generate_responses
from sft_lab.course import deploy_runs as runs
from sft_lab.course.results import Row, sweep
from sft_lab.course.serving import serving
from sft_lab.models import load

NAME, SEEDS, ASKED, MOST = "19b_smollm2", range(3), 10, 40
ARMS = ("named", "the base's end")

if __name__ == "__main__":
    model, tokenizer = load("smollm2-135m", dtype=torch.float32)
    pool = [talk[0]["content"] for talk in atlas.exam("held_out", 60)]

    with tempfile.TemporaryDirectory() as work, serving() as server:
        client = OpenAI(
            base_url=server.url, api_key="-", http_client=DefaultHttpxClient(trust_env=False)
        )
        folder = runs.save_folder(model, tokenizer, Path(work) / "model")
        ends = {"named": model.generation_config.eos_token_id}
        ends = {"named": [ends["named"]] if isinstance(ends["named"], int) else ends["named"]}
        ends["the base's end"] = [tokenizer.convert_tokens_to_ids("<|endoftext|>")]
        copies = {arm: folder if arm == "named" else Path(work) / "lost" for arm in ARMS}
        model.save_pretrained(copies["the base's end"])
        tokenizer.save_pretrained(copies["the base's end"])
        runs.name_ends(copies["the base's end"], ends["the base's end"])

        def run(point: Row) -> Row:
            """Ask the server ten questions."""
            questions = random.Random(point["seed"]).sample(pool, ASKED)
            evaluated = generate_responses(model, tokenizer, questions, max_new_tokens=MOST)
            replies = runs.ask_server(client, copies[point["arm"]], questions, max_tokens=MOST)
            print(point, replies[0].text, "|", evaluated[0])
            return runs.score(replies, evaluated)

        points = [{"arm": arm, "seed": seed} for seed in SEEDS for arm in ARMS]
        sweep(NAME, points, run, model=model, model_name="smollm2-135m")
