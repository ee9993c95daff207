"""Right answers to the exercises of chapter 10, each in another style; written from the statements
alone."""

import bisect
import math
from collections import Counter, OrderedDict, defaultdict
from fractions import Fraction
from types import MappingProxyType

import numpy as np

STOP = "<|im_end|>"
THOUGHT = "<think>\n\n</think>\n\n"


# 10.1
def _from_the_end(file_name, rows):
    """The last two turns of a row are the user's and the assistant's."""
    column = next(
        key
        for key in rows[0]
        if isinstance(rows[0][key], list) and rows[0][key] and isinstance(rows[0][key][0], dict)
    )
    turns = [turn for row in rows for turn in row[column]]
    role, content = sorted(turns[0], key=lambda key: len({turn[key] for turn in turns}))
    *_, user, assistant = (turn[role] for turn in rows[0][column])
    tags = {"role_tag": role, "content_tag": content, "user_tag": user, "assistant_tag": assistant}
    others = {turn[role] for turn in turns} - {user, assistant}
    if others:
        tags["system_tag"] = others.pop()
    return {
        "file_name": file_name,
        "formatting": "sharegpt",
        "columns": {"messages": column},
        "tags": tags,
    }


def _counted(file_name, rows):
    """Columns, keys and words by counters."""
    columns = Counter(
        key
        for row in rows
        for key, value in row.items()
        if isinstance(value, list) and any(isinstance(item, dict) for item in value)
    )
    [(column, _)] = columns.most_common(1)
    words = defaultdict(Counter)
    for row in rows:
        for turn in row[column]:
            for key, value in turn.items():
                words[key][value] += 1
    role = min(words, key=lambda key: len(words[key]))
    content = max(words, key=lambda key: len(words[key]))
    assistant = rows[-1][column][-1][role]
    user = rows[-1][column][-2][role]
    entry = OrderedDict(file_name=file_name, formatting="sharegpt")
    entry["columns"] = {"messages": column}
    entry["tags"] = {"assistant_tag": assistant, "user_tag": user}
    entry["tags"].update(content_tag=content, role_tag=role)
    for word in words[role]:
        if word not in (user, assistant):
            entry["tags"]["system_tag"] = word
    return entry


def _by_the_first_turns(file_name, rows):
    """The system is who stands first in rows with an odd number of turns."""
    column = ""
    for key, value in rows[0].items():
        if isinstance(value, list) and value and all(type(item) is dict for item in value):
            column = key
    one, other = rows[0][column][0].keys()
    if len({t[one] for r in rows for t in r[column]}) > len(
        {t[other] for r in rows for t in r[column]}
    ):
        one, other = other, one
    system = user = assistant = None
    for row in rows:
        said = [turn[one] for turn in row[column]]
        if len(said) % 2:
            system = said.pop(0)
        user, assistant = said[:2]
    tags = dict(role_tag=one, content_tag=other, user_tag=user, assistant_tag=assistant)
    if system is not None:
        tags["system_tag"] = system
    columns = {"messages": column}
    return dict(file_name=file_name, formatting="sharegpt", columns=columns, tags=tags)


def _by_what_the_last_turns_say(file_name, rows):
    """The assistant ends every row: the role key has one value there, and one in front of it."""
    names = list(dict.fromkeys(name for row in rows for name in row))

    def holds_turns(name):
        values = [row.get(name) for row in rows]
        return all(isinstance(v, list) and v and isinstance(v[0], dict) for v in values)

    column = next(filter(holds_turns, names))
    every = [turn for row in rows for turn in row[column]]
    distinct = {key: {turn[key] for turn in every} for key in every[0]}
    role = next(key for key in distinct if len(distinct[key]) == min(map(len, distinct.values())))
    (content,) = distinct.keys() - {role}
    tags = {
        "role_tag": role,
        "content_tag": content,
        "user_tag": rows[0][column][-2][role],
        "assistant_tag": rows[0][column][-1][role],
    }
    third = [w for w in distinct[role] if w not in (tags["user_tag"], tags["assistant_tag"])]
    return {
        "file_name": file_name,
        "formatting": "sharegpt",
        "columns": {"messages": column},
        "tags": tags | dict.fromkeys(["system_tag"][: len(third)], *third),
    }


def _in_numpy(file_name, rows):
    column = [
        key
        for key in rows[0]
        if isinstance(rows[0][key], list) and any(isinstance(x, dict) for x in rows[0][key])
    ][0]
    turns = sum((list(row[column]) for row in rows), [])
    keys = list(turns[0])
    counts = [np.unique([turn[key] for turn in turns]).size for key in keys]
    role, content = keys[int(np.argmin(counts))], keys[int(np.argmax(counts))]
    words = np.unique([turn[role] for turn in turns]).tolist()
    assistant = turns[-1][role]
    user = turns[-2][role]
    tags = {"role_tag": role, "content_tag": content, "user_tag": user, "assistant_tag": assistant}
    if len(words) == 3:
        (tags["system_tag"],) = set(words) ^ {user, assistant}
    return {
        "tags": tags,
        "columns": {"messages": column},
        "formatting": "sharegpt",
        "file_name": file_name,
    }


# 10.2
def _fit(prompt, response, limit):
    if 2 * response < limit:
        room = limit
    elif 2 * prompt < limit:
        room = limit - prompt
    else:
        room = int(limit * (response / (prompt + response)))
    response = min(room, response)
    return min(max(limit - response, 0), prompt), response


def _tried_upwards(lengths):
    limit = 1
    while any(_fit(prompt, answer, limit)[1] < answer for prompt, answer in lengths):
        limit += 1
    return limit


def _tried_downwards(lengths):
    limit = max(prompt + answer for prompt, answer in lengths)
    while limit > 1 and all(_fit(p, a, limit - 1)[1] == a for p, a in lengths):
        limit -= 1
    return limit


def _bisected(lengths):
    limits = range(1, 2 * max(sum(pair) for pair in lengths) + 2)

    def whole(limit):
        return all(_fit(*pair, limit)[1] == pair[1] for pair in lengths)

    return limits[bisect.bisect_left(limits, True, key=whole)]


def _limits_in_numpy(lengths):
    prompts, answers = np.array(lengths).T
    return np.minimum(2 * answers + 1, prompts + answers).max()


def _limits_by_cases(lengths):
    smallest = 0
    for prompt, answer in lengths:
        if prompt > answer and 2 * answer + 1 > smallest:
            smallest = 2 * answer + 1
        elif prompt <= answer and prompt + answer > smallest:
            smallest = prompt + answer
    return smallest


def _limits_recursive(lengths):
    (prompt, answer), *rest = lengths
    need = answer + min(prompt, answer + 1)
    return max(need, _limits_recursive(rest)) if rest else need


# 10.3
def _graded_texts(messages, thought=""):
    return [thought + m["content"] + STOP for m in messages if m["role"] == "assistant"]


def _compared(messages, graded):
    """Write what each setting would grade, and compare."""
    seen = [text.removesuffix("\n") for text in graded]
    answers = _graded_texts(messages)
    if seen == answers:
        return "nothing"
    if seen == answers[-1:]:
        return "mask_history"
    if seen == _graded_texts(messages, THOUGHT):
        return "enable_thinking"
    if len(seen) == 1 and seen[0].startswith("<|im_start|>"):
        return "train_on_prompt"
    return "cutoff_len"


def _by_signs(messages, graded):
    rounds = sum(m["role"] == "assistant" for m in messages)
    if not graded or not graded[-1].rstrip("\n").endswith(STOP):
        return "cutoff_len"
    if "<|im_start|>" in graded[0]:
        return "train_on_prompt"
    if graded[0].startswith("<think>"):
        return "enable_thinking"
    return "nothing" if len(graded) == rounds else "mask_history"


def _by_counting_stops(messages, graded):
    stops = [text.count(STOP) for text in graded]
    if not stops or stops[-1] == 0:
        return "cutoff_len"
    if stops[-1] > 1:
        return "train_on_prompt"
    if all(text.startswith(THOUGHT) for text in graded):
        return "enable_thinking"
    return "mask_history" if len(stops) == 1 else "nothing"


def _by_elimination(messages, graded):
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    tails = [text.split(STOP) for text in graded]
    possible = {
        "nothing": len(tails) == len(answers)
        and all(a == t[0] for a, t in zip(answers, tails, strict=True)),
        "mask_history": len(tails) == 1 and tails[0][0] == answers[-1],
        "train_on_prompt": len(tails) == 1 and len(tails[0]) > 2,
        "enable_thinking": len(tails) == len(answers)
        and all(THOUGHT + a == t[0] for a, t in zip(answers, tails, strict=True)),
    }
    whole = bool(tails) and len(tails[-1]) > 1
    names = [name for name, fits in possible.items() if fits and whole]
    return names[0] if names else "cutoff_len"


def _by_match(messages, graded):
    rounds = len([m for m in messages if m["role"] == "user"])
    match graded:
        case [*_, last] if STOP not in last:
            return "cutoff_len"
        case []:
            return "cutoff_len"
        case [only] if "user\n" in only and only.count("<|im_start|>") >= rounds:
            return "train_on_prompt"
        case [_]:
            return "mask_history"
        case [first, *_] if first[:7] == "<think>":
            return "enable_thinking"
    return "nothing"


# 10.5
def _fractions_apart(macro, micro):
    macro, micro = Fraction(macro), Fraction(micro)
    right = math.ceil(macro / (1 - macro))  # of right + 1 rows
    graded = math.ceil(right / micro)
    return [(1, 1)] * right + [(0, max(1, graded - right))]


def _looped_apart(macro, micro):
    rows = [(0, 1)]
    while Fraction(len(rows) - 1, len(rows)) < Fraction(macro):
        rows.append((1, 1))
    right = len(rows) - 1
    while Fraction(right, right + rows[0][1]) > Fraction(micro):
        rows[0] = (0, 2 * rows[0][1])
    return rows


def _generous(macro, micro):
    many = int(1 / (1 - macro)) + 2
    rows = [(1, 1) for _ in range(many)]
    rows.insert(0, (0, int(many / micro) + 1))
    return rows


def _one_right_in_a_long_row(macro, micro):
    """The long row has a right token, and the short ones are of two."""
    many = math.ceil(2 / (1 - macro))
    return [(1, 2 + math.ceil((2 * many + 1) / micro)), *([(2, 2)] * many)]


def _two_long_rows(macro, micro):
    many = math.ceil(4 / (1 - macro))
    long = math.ceil(many / micro)
    return [(0, long)] + many * [(1, 1)] + [(0, long)]


def _in_numpy_apart(macro, micro):
    many = int(np.ceil(2 / (1 - macro)))
    graded = np.ones(many + 1, dtype=int)
    right = graded.copy()
    right[-1], graded[-1] = 0, int(np.ceil(2 * many / micro))
    return list(zip(right, graded, strict=True))


# 10.4
_SETTINGS = {
    "finetuning_type": "full",
    "template": "qwen3_nothink",
    "cutoff_len": 256,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "num_train_epochs": 2.0,
    "learning_rate": 1e-3,
}

RIGHT_ANSWERS = {
    "10.1": [
        _from_the_end,
        _counted,
        _by_the_first_turns,
        _by_what_the_last_turns_say,
        _in_numpy,
    ],
    "10.2": [
        _tried_upwards,
        _tried_downwards,
        _bisected,
        _limits_in_numpy,
        _limits_by_cases,
        _limits_recursive,
        lambda lengths: max(min(2 * answer + 1, prompt + answer) for prompt, answer in lengths),
        lambda lengths: sorted(min(sum(pair), pair[1] * 2 + 1) for pair in lengths)[-1],
    ],
    "10.3": [_compared, _by_signs, _by_counting_stops, _by_elimination, _by_match],
    "10.4": [  # few trainings: the check remembers what it trained
        _SETTINGS,
        OrderedDict(reversed(_SETTINGS.items())) | {"num_train_epochs": 2},
        MappingProxyType(_SETTINGS | {"lora_rank": 8, "lora_alpha": 16}),
        _SETTINGS | {"lora_rank": 16},
        _SETTINGS
        | {
            "per_device_train_batch_size": 16,
            "gradient_accumulation_steps": 1,
            "cutoff_len": 8192,
            "learning_rate": 2e-3,
        },
    ],
    "10.5": [
        _fractions_apart,
        _looped_apart,
        _generous,
        _one_right_in_a_long_row,
        _two_long_rows,
        _in_numpy_apart,
        lambda macro, micro: (
            [[1, 1]] * math.ceil(2 / (1 - macro)) + [[0, math.ceil(3 / (1 - macro) / micro)]]
        ),
    ],
}
