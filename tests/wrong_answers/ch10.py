"""Wrong answers to the exercises of chapter 10, each with what its reader is told."""

from sft_lab.course.exercises.ch10 import _register


def _entry(**mistake):
    return lambda file_name, rows: _register(file_name, rows, **mistake)


def _by_row(of):
    return lambda lengths: max(of(prompt, answer) for prompt, answer in lengths)


def _smaller_too_late(lengths):
    return min(max(2 * a + 1 for _, a in lengths), max(p + a for p, a in lengths))


def _replies(messages):
    return sum(turn["role"] == "assistant" for turn in messages)


def _key(messages, graded):
    if not graded[-1].rstrip("\n").endswith("<|im_end|>"):
        return "cutoff_len"
    if graded[0].startswith("<|im_start|>"):
        return "train_on_prompt"
    if graded[0].startswith("<think>"):
        return "enable_thinking"
    return "nothing" if len(graded) == _replies(messages) else "mask_history"


def _fewer_runs_are_masked(messages, graded):
    cut = _key(messages, graded) == "cutoff_len"
    return "mask_history" if cut and len(graded) < _replies(messages) else _key(messages, graded)


def _counts_texts(messages, graded):
    right = _key(messages, graded)
    several = len(graded) > 1 and right != "cutoff_len"
    return "mask_history" if several and len(set(graded)) < _replies(messages) else right


def _knows_no_prompt(messages, graded):
    right = _key(messages, graded)
    return "mask_history" if right == "train_on_prompt" else right


def _knows_no_thought(messages, graded):
    right = _key(messages, graded)
    return "nothing" if right == "enable_thinking" else right


RUN = {
    "finetuning_type": "full",
    "template": "qwen3_nothink",
    "cutoff_len": 256,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 2,
    "learning_rate": 1e-3,
}


def _apart(count, length):
    return lambda macro, micro: [(1, 1)] * count + [(0, length)]


WRONG_ANSWERS = {
    "10.1": [
        (_entry(first_is_user=True), "the first turn may be the system's"),
        (_entry(swapped=True), "exchanged: the assistant ends"),
        (_entry(system="first row"), "look at all rows"),
        (_entry(system="never"), 'add "system_tag"'),
        (_entry(system="always"), "there is a system_tag where nobody else speaks"),
        (_entry(keys=("role", "content")), "not always role and content"),
    ],
    "10.2": [
        (_by_row(lambda p, a: p + a), "a prompt may be cut"),
        (
            _by_row(lambda p, a: min(2 * a, p + a)),
            "at 2 · answer the first branch of fit is not taken",
        ),
        (_by_row(lambda p, a: 2 * a + 1), "a row that fits is not cut"),
        (_smaller_too_late, "take the smaller for each row"),
        (_by_row(lambda p, a: a), "this is the longest answer"),
        (_by_row(lambda p, a: min(2 * a + 1, p + a) + 0.5), "cutoff_len is a whole number"),
    ],
    "10.3": [
        (_fewer_runs_are_masked, "did the last run come to its stop token"),
        (_counts_texts, "count the runs"),
        (_knows_no_prompt, "does it begin with a control token"),
        (_knows_no_thought, "nobody wrote that thought"),
        (lambda messages, graded: "template", "return one of"),
    ],
    "10.4": [
        (
            {**RUN, "finetuning_type": "lora", "lora_rank": 8, "learning_rate": 5e-3},
            "LoRA does not train the stop token's row",
        ),
        ({**RUN, "cutoff_len": 12}, "cutoff_len took the stop token of"),
        ({**RUN, "learning_rate": 2e-2}, "too high for a whole model"),
        ({**RUN, "learning_rate": 1e-4}, "too little was learned"),
        ({**RUN, "num_train_epochs": 3}, "90 steps: the budget is 60"),
        ({**RUN, "gradient_accumulation_steps": 8}, "a step takes 128 rows"),
        ({**RUN, "learning_rate": "1e-3"}, "YAML reads 1e-4 so"),
        ({**RUN, "warmup_ratio": 0.1}, "does not know warmup_ratio"),
    ],
    "10.5": [
        (_apart(9, 90), "the mean over rows is"),
        (_apart(400, 10), "the accuracy over tokens is"),
        (lambda macro, micro: [(10**6, 10**6)] + [(0, 1)] * 1000, "exchanged"),
        (lambda macro, micro: [(2, 1)], "more right tokens than graded"),
        (lambda macro, micro: [(1, 1), (0, 0)], "no graded token"),
        (lambda macro, micro: [(1.0, 2.0)], "a pair of whole numbers"),
    ],
}
