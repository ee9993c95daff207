"""Checks of chapter 10, LLaMA-Factory."""

import contextlib
import copy
import functools
import io
import math
import numbers
import random
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.chat import generate_ids
from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_list,
    need_whole,
    need_word,
    same_for_all,
    shorten,
)
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.lora import add_lora
from sft_lab.models import load
from sft_lab.train import train

SPEAKERS = [
    ("human", "gpt", "system"),
    ("user", "assistant", "developer"),
    ("Q", "A", "note"),
    ("customer", "agent", "rules"),
]
KEYS = [("from", "value"), ("role", "content"), ("speaker", "text"), ("who", "what")]
COLUMNS = ["conversations", "messages", "dialogue", "turns"]
WORDS = ["yes", "no", "human", "user", "Q", "cutoff_len", "mask_history", "think", "Paris", "3 + 4"]


def random_text() -> str:
    """A few words; often a word that elsewhere names a speaker or a key."""
    return " ".join(random.choices(WORDS, k=2)) + f" {random.randrange(10**6)}"


# 10.1


def random_file(
    system: str, speakers: tuple[str, str, str], keys: tuple[str, str], column: str, case: int
) -> tuple[str, list[dict]]:
    """A file name and its rows. system: "never", "first" (in the first row and some others) or
    "later" (in others only). case: in odd cases the first row begins with other columns, its turns
    with the content; cases 2 and 3 have contents that are shorter than most speakers' words."""
    user, assistant, third = speakers
    role, content = keys
    rows = []
    for number in range(random.randint(5, 7)):
        said = [user, assistant] * (number % 2 + 1)
        if system == "first" and number in (0, 3) or system == "later" and number in (2, 4):
            said = [third, *said]
        texts = [
            random_text() if case not in (2, 3) else str(number * 9 + place)
            for place in range(len(said))
        ]
        turns = [{role: speaker, content: text} for speaker, text in zip(said, texts, strict=True)]
        if (number + case) % 2:  # the order of keys says nothing
            turns = [dict(reversed(turn.items())) for turn in turns]
        row = {"id": number, "tags": ["a", "b"], "source": random_text(), column: turns}
        rows.append(row if (number + case) % 2 else dict(reversed(row.items())))
    return f"file_{random.randrange(1000)}.json", rows


def _register(
    file_name: str,
    rows: list[dict],
    *,
    first_is_user: bool = False,
    swapped: bool = False,
    system: str = "present",
    keys: tuple[str, str] | None = None,
) -> dict:
    """The right entry, or that of a usual mistake."""
    column = next(
        name
        for name, value in rows[0].items()
        if isinstance(value, list) and isinstance(value[0], dict)
    )
    turns = [turn for row in rows for turn in row[column]]
    role, content = sorted(turns[0], key=lambda key: len({turn[key] for turn in turns}))
    first = rows[0][column]
    user, assistant = first[-2][role], first[-1][role]
    speakers = {turn[role] for turn in (first if system == "first row" else turns)}
    third = speakers - {user, assistant}
    if first_is_user:
        user, assistant = first[0][role], first[1][role]
    if swapped:
        user, assistant = assistant, user
    role, content = keys or (role, content)
    tags = {"role_tag": role, "content_tag": content, "user_tag": user, "assistant_tag": assistant}
    if third and system != "never":
        tags["system_tag"] = third.pop()
    elif system == "always":
        tags["system_tag"] = "system"
    return {
        "file_name": file_name,
        "formatting": "sharegpt",
        "columns": {"messages": column},
        "tags": tags,
    }


@checks("10.1")
def register(attempt: Callable) -> str:
    systems = ("never", "first", "later", "first", "never")
    # each pair of keys, each three words and each column in some file
    names = [random.sample(few, len(few)) for few in (SPEAKERS, KEYS, COLUMNS)]
    inputs = [
        random_file(system, *(few[case % len(few)] for few in names), case)
        for case, system in enumerate(systems)
    ]
    wrong = functools.partial
    mistakes = [
        (
            wrong(_register, first_is_user=True),
            "the first turn may be the system's: the user and the assistant are the last two",
        ),
        (wrong(_register, swapped=True), "user and assistant are exchanged: the assistant ends"),
        (
            wrong(_register, system="first row"),
            "a system turn may stand in another row than the first: look at all rows",
        ),
        (wrong(_register, system="never"), 'the third speaker has no tag: add "system_tag"'),
        (
            wrong(_register, system="always"),
            "there is a system_tag where nobody else speaks: add it only where one does",
        ),
        (
            wrong(_register, keys=("role", "content")),
            "the keys are read from the rows: they are not always role and content",
        ),
        (
            wrong(_register, keys=("from", "value")),
            "the keys are read from the rows: they are not always from and value",
        ),
    ]
    same_for_all(attempt, inputs, _register, mistakes, what="the entry")
    return "column, keys and speakers found, whoever speaks first"


# 10.2


@checks("10.2")
def smallest_cutoff(attempt: Callable) -> str:
    few, many = random.randint(5, 12), random.randint(200, 300)
    inputs = [
        ([(many, few)],),  # the first branch of `fit` decides
        ([(few, many), (many, few)],),  # the row must fit
        ([(1, 1)],),
        ([(few + 1, few), (few, 1)],),  # both give the same
        ([(many, many + 3), (3 * many, 2), (few, 2 * few)],),
        ([(many + i, random.randint(20, 60)) for i in range(5)],),
        # the maximum of each way is another row's: the smaller must be taken row by row
        ([(10 * many, few), (1, many)],),
        ([(many + few, many)],),  # the first branch, with a prompt hardly longer than the answer
        ([(1, many), (10 * many, many - few)],),  # the longest answer's row does not decide
        ([(many, few), (few, 2 * few)],),  # nor the longest row
    ]

    def by_row(of: Callable[[int, int], int]) -> Callable:
        return lambda lengths: max(of(prompt, answer) for prompt, answer in lengths)

    def late(lengths):
        return min(max(2 * a + 1 for _, a in lengths), max(p + a for p, a in lengths))

    mistakes = [
        (by_row(lambda p, a: p + a), "this keeps whole rows: a prompt may be cut"),
        (
            by_row(lambda p, a: min(2 * a, p + a)),
            "at 2 · answer the first branch of fit is not taken: it asks for 2 · answer < limit",
        ),
        (
            by_row(lambda p, a: 2 * a + 1),
            "a row that fits is not cut: prompt + answer may be less than 2 · answer + 1",
        ),
        (late, "take the smaller for each row, and then the largest of all rows"),
        (by_row(lambda p, a: a), "this is the longest answer: the rule leaves it less than all"),
    ]
    same_for_all(
        attempt,
        inputs,
        by_row(lambda p, a: min(2 * a + 1, p + a)),
        mistakes,
        form=lambda found: need_whole(found, "cutoff_len", low=1),
        what="cutoff_len",
    )
    return "each answer whole by the first branch or because its row fits; the largest decides"


# 10.3

END, THOUGHT = "<|im_end|>", "<think>\n\n</think>\n\n"
NAMES = ("nothing", "mask_history", "train_on_prompt", "enable_thinking", "cutoff_len")


def random_rounds(rounds: int, *, equal: bool = False) -> list[dict[str, str]]:
    """Questions and answers; with `equal` all answers are the same text. Otherwise each repeats
    the first question and says the words that a reader may look for."""
    reply, first = random_text(), random_text()
    messages = []
    for number in range(rounds):
        question = random_text() if number else first
        talk = f"user asks, assistant may think: {first} {random_text()}"
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": reply if equal else talk})
    return messages


def runs_under(name: str, messages: list[dict], cut_round: int = -1) -> list[str]:
    """The graded runs of a conversation under one setting."""
    replies = [turn["content"] for turn in messages if turn["role"] == "assistant"]
    whole = [f"{reply}{END}\n" for reply in replies]
    if name == "mask_history":
        return whole[-1:]
    if name == "train_on_prompt":
        return ["".join(f"<|im_start|>{m['role']}\n{m['content']}{END}\n" for m in messages)]
    if name == "enable_thinking":
        return [THOUGHT + run for run in whole]
    if name == "cutoff_len":
        place = cut_round % len(replies)
        reply = replies[place]
        # of two answers, all of the last is left but its stop token
        left = len(reply) if place == 1 else random.randint(1, len(reply))
        return [*whole[:place], reply[:left]]
    return whole


@checks("10.3")
def which_key(attempt: Callable) -> str:
    asked = [
        (name, rounds, equal) for name in NAMES for rounds in (2, 3) for equal in (False, True)
    ]
    inputs, expected = [], {}
    for name, rounds, equal in random.sample(asked, len(asked)):
        messages = random_rounds(rounds, equal=equal)
        # of equal answers the first is cut: then later rounds are missing
        graded = runs_under(name, messages, cut_round=0 if equal else -1)
        inputs.append((messages, graded))
        expected[id(graded)] = name

    def right(messages, graded):
        return expected[id(graded)]

    same_for_all(
        attempt,
        inputs,
        right,
        [(_told(right, when, name), mistake) for when, name, mistake in KEY_MISTAKES],
        form=lambda found: need_word(found, *NAMES),
        what="the setting",
    )
    return "the end of the last run, the beginning of the first, and their number"


def _told(right: Callable, when: Callable, name: str) -> Callable:
    """An answer that is right but for the conversations where when(right name, runs, number of
    answers) holds: there it says `name`."""

    def answer(messages, graded):
        replies = sum(turn["role"] == "assistant" for turn in messages)
        wrong = when(right(messages, graded), graded, replies)
        return name if wrong else right(messages, graded)

    return answer


KEY_MISTAKES = [
    (
        lambda key, runs, replies: key == "cutoff_len" and len(runs) < replies,
        "mask_history",
        "a missing answer is not always masked: did the last run come to its stop token?",
    ),
    (
        lambda key, runs, replies: (
            key != "cutoff_len" and len(runs) > 1 and len(set(runs)) < replies
        ),
        "mask_history",
        "two answers may be the same text: count the runs, not the different texts",
    ),
    (
        lambda key, runs, replies: key == "cutoff_len" and len(runs) == replies,
        "nothing",
        "the last run does not come to its stop token: something was cut",
    ),
    (
        lambda key, runs, replies: key == "train_on_prompt",
        "mask_history",
        "one run may be the whole conversation: does it begin with a control token?",
    ),
    (
        lambda key, runs, replies: key == "enable_thinking",
        "nothing",
        "nobody wrote that thought: look at the beginning of a run",
    ),
    (
        lambda key, runs, replies: "think" in runs[0] and key in ("nothing", "mask_history"),
        "enable_thinking",
        "an answer may say the word think: look for the token at the beginning",
    ),
]


# 10.4

TEMPLATES = ("qwen3_nothink", "qwen3", "empty")
STEPS, ROWS, QUESTIONS, ENOUGH = 60, 16, 100, 75
WHOLE = ("per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs")
NEEDED = ("finetuning_type", "template", "cutoff_len", *WHOLE, "learning_rate")
OF_LORA = ("lora_rank", "lora_alpha")


@checks("10.4")
def my_settings(attempt: Mapping) -> str:
    settings = _read_settings(attempt)
    lost, loss, says, right = _tuned(tuple(sorted(settings.items())))
    if right >= ENOUGH:
        return f"{right} of {QUESTIONS} answered and stopped; last loss {loss:.2f}"
    result = f"{right} of {QUESTIONS} right and stopped, last loss {loss:.2f}: "
    if settings["template"] != "qwen3_nothink":
        raise Mistake(result + "the model learned another template than it is asked in")
    if lost:
        raise Mistake(result + f"cutoff_len took the stop token of {lost} of 480 rows")
    if settings["finetuning_type"] == "lora" and says > right:
        raise Mistake(
            result + f"{says} answers begin rightly and do not stop: LoRA does not train the stop "
            "token's row"
        )
    if settings["finetuning_type"] == "full" and settings["learning_rate"] > 2e-3:
        raise Mistake(result + "the learning rate is too high for a whole model")
    raise Mistake(
        result + "too little was learned: look at the rate, the epochs, and what can be trained"
    )


def _read_settings(found: object) -> dict:
    """The settings, when each key is known and has a value of its kind."""
    if not isinstance(found, Mapping):
        raise Mistake(f"my_settings is a dict of keys and values, not {shorten(found)}")
    settings = dict(found)
    if unknown := [key for key in settings if key not in (*NEEDED, *OF_LORA)]:
        raise Mistake(f"this check does not know {', '.join(map(str, unknown))}")
    if settings.get("finetuning_type") == "lora":
        settings.setdefault("lora_rank", 8)  # LLaMA-Factory's defaults
        settings.setdefault("lora_alpha", 2 * settings["lora_rank"])
    else:
        settings = {key: value for key, value in settings.items() if key not in OF_LORA}
    if missing := [key for key in NEEDED if key not in settings]:
        raise Mistake(f"missing: {', '.join(missing)}")
    if settings["finetuning_type"] not in ("lora", "full"):
        raise Mistake('finetuning_type is "lora" or "full" here')
    if settings["template"] not in TEMPLATES:
        raise Mistake(f"template is one of {', '.join(TEMPLATES)} here")
    settings["cutoff_len"] = need_whole(settings["cutoff_len"], "cutoff_len", low=1)
    for key in (*WHOLE, *(k for k in OF_LORA if k in settings)):
        settings[key] = need_whole(settings[key], key, low=1, high=4096)
    rate = settings["learning_rate"]
    if isinstance(rate, str):
        raise Mistake(f"learning_rate is the text {rate!r}: YAML reads 1e-4 so; write 1.0e-4")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1:
        raise Mistake(f"learning_rate is between 0 and 1, not {shorten(rate)}")
    rows = settings["per_device_train_batch_size"] * settings["gradient_accumulation_steps"]
    if rows != ROWS:
        raise Mistake(f"a step takes {rows} rows, batch times accumulation: 16 are asked for")
    steps = settings["num_train_epochs"] * 480 // rows
    if steps > STEPS:
        raise Mistake(f"{steps} steps: the budget is {STEPS}, and an epoch has 30")
    return settings


@functools.cache
def _inputs() -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[list[dict[str, str]]]]:
    """The base, its tokenizer, and the chapter's 480 rounds."""
    with contextlib.redirect_stdout(io.StringIO()):  # the line that says where the model is
        base, tokenizer = load("atlas-base")
    short = [
        turns
        for turns in atlas.training_conversations(seed=0)
        if sum(len(turn["content"]) for turn in turns) < 140
    ]
    return base, tokenizer, short[:480]


@functools.cache
def _tuned(frozen: tuple[tuple[str, object], ...]) -> tuple[int, float, int, int]:
    """Stop tokens that the limit took, last loss, answers that begin rightly, right answers."""
    settings = dict(frozen)
    base, tokenizer, rounds = _inputs()
    examples, lost = [], 0
    for turns in rounds:
        example, whole = _encode(turns, tokenizer, settings["template"], settings["cutoff_len"])
        examples.append(example)
        lost += not whole
    model = copy.deepcopy(base)
    if settings["finetuning_type"] == "lora":
        add_lora(model, rank=settings["lora_rank"], alpha=settings["lora_alpha"])
    try:
        history = train(
            model,
            tokenizer,
            examples,
            epochs=settings["num_train_epochs"],
            learning_rate=settings["learning_rate"],
            batch_size=settings["per_device_train_batch_size"],
            accumulation_steps=settings["gradient_accumulation_steps"],
            progress=False,
        )
    except FloatingPointError:
        return lost, math.nan, 0, 0
    exam = atlas.exam("held_out", QUESTIONS)
    written = generate_ids(model, tokenizer, [turns[:1] for turns in exam], max_new_tokens=40)
    texts = [tokenizer.decode(ids) for ids in written]
    golds = [turns[1]["content"] for turns in exam]
    says = sum(text.startswith(gold) for text, gold in zip(texts, golds, strict=True))
    right = sum(text == gold + END for text, gold in zip(texts, golds, strict=True))
    return lost, sum(history.losses[-5:]) / 5, says, right


def _encode(
    turns: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase, template: str, limit: int
) -> tuple[Example, bool]:
    """One round as LLaMA-Factory encodes it, and whether a stop token is left in its answer."""
    question, reply = (turn["content"] for turn in turns)
    if template != "empty":
        question = f"<|im_start|>user\n{question}{END}\n<|im_start|>assistant\n"
        reply = f"{THOUGHT if template == 'qwen3' else ''}{reply}{END}\n"
    prompt, response = tokenizer(question).input_ids, tokenizer(reply).input_ids
    if 2 * len(response) < limit:
        room = limit
    elif 2 * len(prompt) < limit:
        room = limit - len(prompt)
    else:
        room = int(limit * (len(response) / (len(prompt) + len(response))))
    kept = response[:room]
    asked = prompt[: max(limit - len(kept), 0)]
    labels = [IGNORE_INDEX] * len(asked) + kept
    return Example(asked + kept, labels), tokenizer.eos_token_id in kept


# 10.5


@checks("10.5")
def rows_apart(attempt: Callable) -> str:
    wanted = [
        (random.uniform(0.7, 0.9), random.uniform(0.1, 0.3)),
        (random.uniform(0.95, 0.98), random.uniform(0.01, 0.05)),
        (0.5, 0.5),
        (random.uniform(0.2, 0.4), random.uniform(0.6, 0.9)),
        (0.995, 0.001),
    ]
    for macro, micro in wanted:
        rows = need_list(attempt(macro, micro), tuple | list, "pairs (right, graded)")
        given = f"macro = {macro:.4g}, micro = {micro:.4g}"
        if not rows:
            raise Mistake(f"there is no row, for {given}")
        rows = [_read_row(row) for row in rows]
        over_rows = sum(Fraction(right, graded) for right, graded in rows) / len(rows)
        over_tokens = Fraction(sum(row[0] for row in rows), sum(row[1] for row in rows))
        if over_rows <= micro < macro <= over_tokens:
            raise Mistake("the two means are exchanged: many long right rows make the other one")
        if over_rows < macro - 1e-12:
            raise Mistake(f"the mean over rows is {float(over_rows):.4f}, for {given}")
        if over_tokens > micro + 1e-12:
            raise Mistake(f"the accuracy over tokens is {float(over_tokens):.4f}, for {given}")
    return "short right rows carry one mean, long wrong rows the other"


def _read_row(row: Sequence) -> tuple[int, int]:
    whole = len(row) == 2 and all(
        isinstance(n, numbers.Integral) and not isinstance(n, bool) for n in row
    )
    if not whole:
        raise Mistake(f"a row is a pair of whole numbers, not {shorten(row)}")
    right, graded = map(int, row)  # numpy's would overflow
    if graded < 1:
        raise Mistake(f"the row {row} has no graded token: its accuracy would be 0/0")
    if not 0 <= right <= graded:
        raise Mistake(f"the row {row} has more right tokens than graded ones, or less than none")
    return right, graded
