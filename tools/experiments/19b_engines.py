"""Chapter 19b: one tuned model in two engines, its stop token named rightly and wrongly.

    pip install --no-deps xllamacpp     # llama.cpp as a wheel, 34 MB; only this script needs it
    python tools/experiments/19b_engines.py

Each row: 40 questions that were not trained on, asked over an engine's chat API at temperature 0,
against the greedy answers of `generate_responses`.
"""

import copy
import json
import tempfile
from pathlib import Path

from openai import DefaultHttpxClient, OpenAI
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from sft_lab import atlas
from sft_lab.chat import generate_responses
from sft_lab.course import deploy_runs as runs
from sft_lab.course.results import Row, sweep
from sft_lab.course.serving import serving
from sft_lab.gguf_files import write_gguf
from sft_lab.lora import merge_lora
from sft_lab.models import load

NAME, SEEDS, ASKED = "19b_engines", range(3), 40
SERVE, LLAMA = "transformers serve", "llama.cpp"
UNKNOWN = "<|over|>"  # a stop token by a name that no engine knows
ARMS = [
    *((SERVE, ends) for ends in ("named", "the base's end", "none")),
    *((LLAMA, ends) for ends in ("named", "the base's end", "the base's end, unknown name")),
    *((LLAMA, ends) for ends in ("named, f16", "named, q8_0")),
]


def rename_stop(tokenizer):
    """The same tokenizer with another name for its stop token."""
    text = tokenizer.backend_tokenizer.to_str().replace("<|im_end|>", UNKNOWN)
    renamed = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(text), eos_token=UNKNOWN, pad_token="<|endoftext|>"
    )
    renamed.chat_template = tokenizer.chat_template.replace("<|im_end|>", UNKNOWN)
    return renamed


def ask_llama(path: Path, questions: list[str]) -> list[runs.Reply]:
    """Greedy answers of llama.cpp."""
    from xllamacpp import CommonParams, Server

    settings = CommonParams()
    settings.model.path, settings.n_ctx, settings.n_parallel = str(path), 1024, 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    server, replies = Server(settings), []
    for question in questions:
        said = server.handle_chat_completions(
            {
                "messages": [{"role": "user", "content": question}],
                "temperature": 0,
                "max_tokens": runs.MOST,
            }
        )
        said = json.loads(said) if isinstance(said, str) else said
        choice, usage = said["choices"][0], said["usage"]
        replies.append(
            runs.Reply(
                choice["message"]["content"],
                choice["finish_reason"],
                usage["prompt_tokens"],
                usage["completion_tokens"],
            )
        )
    return replies


if __name__ == "__main__":
    base, tokenizer = load("atlas-base")
    questions = [talk[0]["content"] for talk in atlas.exam("held_out", ASKED)]
    models = {}

    def tuned(seed: int):
        """The merged model of a seed, and its evaluated answers."""
        if seed not in models:
            model = merge_lora(runs.tune_adapter(base, tokenizer, seed))
            answers = generate_responses(model, tokenizer, questions, max_new_tokens=runs.MOST)
            models[seed] = model, answers
        return models[seed]

    with tempfile.TemporaryDirectory() as work, serving() as server:
        client = OpenAI(
            base_url=server.url, api_key="-", http_client=DefaultHttpxClient(trust_env=False)
        )

        def run(point: Row) -> Row:
            """Ask one engine about one model."""
            engine, ends, seed = point["engine"], point["ends"], point["seed"]
            model, answers = tuned(seed)
            stop, base_end = tokenizer.eos_token_id, tokenizer.pad_token_id
            folder = Path(work) / f"{ARMS.index((engine, ends))}-{seed}"
            if engine == SERVE:
                runs.save_folder(copy.deepcopy(model), tokenizer, folder)
                if ends != "named":
                    runs.name_ends(folder, [] if ends == "none" else [base_end])
                return runs.score(runs.ask_server(client, folder, questions), answers)
            folder.mkdir()
            names = rename_stop(tokenizer) if "unknown" in ends else tokenizer
            kind = ends.partition(", ")[2] if ends.startswith("named, ") else "f32"
            file = write_gguf(
                model,
                names,
                folder / "model.gguf",
                kind=kind,
                stop_id=stop if ends.startswith("named") else base_end,
            )
            return runs.score(ask_llama(file, questions), answers)

        points = [
            {"engine": engine, "ends": ends, "seed": seed}
            for seed in SEEDS
            for engine, ends in ARMS
        ]
        sweep(NAME, points, run, model=base)
