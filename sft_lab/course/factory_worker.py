"""LLaMA-Factory's own functions, called in its own environment: what its command line does not
print.

`sft_lab.course.factory` starts this file with the Python of .venv/llamafactory and never imports
it: `transformers` is another version there. The first argument names a JSON file with questions
{name: settings}, the second the file for the answers. The setting "command" says what is asked:

    rows     the token ids and labels that `llamafactory-cli train` would make of these settings
    parse    whether `chat` and `export` accept these keys
    train    what `llamafactory-cli train` does; several runs share one start of Python
    export   what `llamafactory-cli export` does
    fit      for "lengths", a list of [prompt, answer, cutoff_len]: what is left of the first two

An answer is {"rows": [{"input_ids": [...], "labels": [...]}, ...]}, {"left": [[...], ...]},
{"done": true}, or {"error": "ValueError: ..."}.
"""

import json
import sys
from pathlib import Path
from typing import Any


def read_rows(settings: dict[str, Any]) -> list[dict[str, list[int]]]:
    """Every row of the training data, as `llamafactory-cli train` makes it of these settings."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    model_args, data_args, training_args, _, _ = get_train_args(settings)
    parts = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(parts["tokenizer"], data_args)
    made = get_dataset(template, model_args, data_args, training_args, stage="sft", **parts)
    return [
        {name: [int(x) for x in row[name]] for name in ("input_ids", "labels")}
        for row in made["train_dataset"]
    ]


def answer(settings: dict[str, Any]) -> dict[str, Any]:
    """The answer to one question; an error of LLaMA-Factory is an answer too."""
    from llamafactory.data.processor.processor_utils import infer_seqlen
    from llamafactory.hparams import get_infer_args
    from llamafactory.train.tuner import export_model, run_exp

    settings = dict(settings)
    command = settings.pop("command")
    try:
        if command == "rows":
            return {"rows": read_rows(settings)}
        if command == "fit":
            return {"left": [infer_seqlen(*lengths) for lengths in settings["lengths"]]}
        {"parse": get_infer_args, "train": run_exp, "export": export_model}[command](settings)
        return {"done": True}
    except Exception as error:  # whatever it is, the reader is to see it
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    asked, answered = map(Path, sys.argv[1:3])
    questions = json.loads(asked.read_text("utf-8"))
    answers = {name: answer(settings) for name, settings in questions.items()}
    answered.write_text(json.dumps(answers), encoding="utf-8")
