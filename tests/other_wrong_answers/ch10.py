"""Wrong answers to the exercises of chapter 10, written from the statements alone."""

import math
from collections import Counter

STOP = "<|im_end|>"
THOUGHT = "<think>\n\n</think>\n\n"


# 10.1
def _column_of(rows):
    for key, value in rows[0].items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return key


def _keys_of(rows, column):
    turns = [turn for row in rows for turn in row[column]]
    return sorted(turns[0], key=lambda key: len({turn[key] for turn in turns}))


def _entry(file_name, column, role, content, user, assistant, system=None):
    tags = {"role_tag": role, "content_tag": content, "user_tag": user, "assistant_tag": assistant}
    if system is not None:
        tags["system_tag"] = system
    columns = {"messages": column}
    return {"file_name": file_name, "formatting": "sharegpt", "columns": columns, "tags": tags}


def _right(file_name, rows, columns=_column_of, keys=_keys_of):
    column = columns(rows)
    role, content = keys(rows, column)
    user, assistant = (turn[role] for turn in rows[0][column][-2:])
    words = {turn[role] for row in rows for turn in row[column]} - {user, assistant}
    return _entry(file_name, column, role, content, user, assistant, *words)


def _usual_names(file_name, rows):
    return _entry(file_name, "conversations", "from", "value", "human", "gpt")


def _usual_names_of_openai(file_name, rows):
    return _entry(file_name, "messages", "role", "content", "user", "assistant", "system")


def _first_list(file_name, rows):
    def column_of(rows):
        return next(key for key, value in rows[0].items() if isinstance(value, list))

    column = column_of(rows)
    if not isinstance(rows[0][column][0], dict):
        return _entry(file_name, column, "from", "value", "human", "gpt")
    return _right(file_name, rows, columns=column_of)


def _first_column(file_name, rows):
    right = _right(file_name, rows)
    return right | {"columns": {"messages": next(iter(rows[0]))}}


def _last_column(file_name, rows):
    right = _right(file_name, rows)
    return right | {"columns": {"messages": list(rows[0])[-1]}}


def _first_key_is_the_role(file_name, rows):
    return _right(file_name, rows, keys=lambda rows, column: list(rows[0][column][0]))


def _second_key_is_the_role(file_name, rows):
    return _right(file_name, rows, keys=lambda rows, column: list(rows[0][column][0])[::-1])


def _keys_in_alphabetical_order(file_name, rows):
    return _right(file_name, rows, keys=lambda rows, column: sorted(rows[0][column][0]))


def _keys_of_the_first_row_alone(file_name, rows):
    return _right(file_name, rows, keys=lambda rows, column: _keys_of(rows[:1], column))


def _shorter_texts_are_the_roles(file_name, rows):
    def keys(rows, column):
        turns = [turn for row in rows for turn in row[column]]
        return sorted(turns[0], key=lambda key: sum(len(turn[key]) for turn in turns))

    return _right(file_name, rows, keys=keys)


def _first_turn_is_the_users(file_name, rows):
    """Also where the first row has a system turn."""
    entry = _right(file_name, rows)
    column, role = entry["columns"]["messages"], entry["tags"]["role_tag"]
    user, assistant = (turn[role] for turn in rows[0][column][:2])
    words = {turn[role] for row in rows for turn in row[column]} - {user, assistant}
    return _entry(
        file_name, column, role, entry["tags"]["content_tag"], user, assistant, *sorted(words)
    )


def _system_always(file_name, rows):
    entry = _right(file_name, rows)
    entry["tags"].setdefault("system_tag", None)
    return entry


def _system_word_always(file_name, rows):
    entry = _right(file_name, rows)
    entry["tags"].setdefault("system_tag", "system")
    return entry


def _system_never(file_name, rows):
    entry = _right(file_name, rows)
    entry["tags"].pop("system_tag", None)
    return entry


def _system_of_the_first_row(file_name, rows):
    entry = _right(file_name, rows)
    column, role = entry["columns"]["messages"], entry["tags"]["role_tag"]
    if entry["tags"].get("system_tag") not in {turn[role] for turn in rows[0][column]}:
        entry["tags"].pop("system_tag", None)
    return entry


def _system_of_the_last_row(file_name, rows):
    entry = _right(file_name, rows)
    column, role = entry["columns"]["messages"], entry["tags"]["role_tag"]
    if entry["tags"].get("system_tag") not in {turn[role] for turn in rows[-1][column]}:
        entry["tags"].pop("system_tag", None)
    return entry


def _user_and_assistant_swapped(file_name, rows):
    entry = _right(file_name, rows)
    tags = entry["tags"]
    tags["user_tag"], tags["assistant_tag"] = tags["assistant_tag"], tags["user_tag"]
    return entry


def _role_and_content_swapped(file_name, rows):
    entry = _right(file_name, rows)
    tags = entry["tags"]
    tags["role_tag"], tags["content_tag"] = tags["content_tag"], tags["role_tag"]
    return entry


def _words_in_alphabetical_order(file_name, rows):
    entry = _right(file_name, rows)
    column, role = entry["columns"]["messages"], entry["tags"]["role_tag"]
    words = sorted({turn[role] for row in rows for turn in row[column]})
    assistant, *others = words
    return _entry(
        file_name, column, role, entry["tags"]["content_tag"], others[-1], assistant, *others[:-1]
    )


def _words_by_count(file_name, rows):
    """The user and the assistant speak equally often."""
    entry = _right(file_name, rows)
    column, role = entry["columns"]["messages"], entry["tags"]["role_tag"]
    counts = Counter(turn[role] for row in rows for turn in row[column])
    words = sorted(counts, key=lambda word: (-counts[word], word))
    return _entry(file_name, column, role, entry["tags"]["content_tag"], *words)


def _under_its_name(file_name, rows):
    return {file_name.removesuffix(".json"): _right(file_name, rows)}


def _tags_beside_columns(file_name, rows):
    entry = _right(file_name, rows)
    return entry | entry.pop("tags")


def _tags_in_columns(file_name, rows):
    entry = _right(file_name, rows)
    entry["columns"] |= entry.pop("tags")
    return entry


def _without_formatting(file_name, rows):
    entry = _right(file_name, rows)
    del entry["formatting"]
    return entry


def _alpaca_formatting(file_name, rows):
    return _right(file_name, rows) | {"formatting": "alpaca"}


def _no_suffix(file_name, rows):
    return _right(file_name.rsplit(".", 1)[0], rows)


def _rows_turned(file_name, rows):
    rows.append(rows.pop(0))
    return _right(file_name, rows)


def _systems_removed(file_name, rows):
    entry = _right(file_name, rows)
    column = entry["columns"]["messages"]
    for row in rows:
        if len(row[column]) % 2:
            row[column].pop(0)
        else:
            row[column].pop()
    return entry


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


def _over(need, combine=max):
    return lambda lengths: combine(need(prompt, answer) for prompt, answer in lengths)


def _cuts_no_prompt_either(lengths):
    limit = 1
    while any(_fit(prompt, answer, limit) != (prompt, answer) for prompt, answer in lengths):
        limit += 1
    return limit


def _one_row_is_enough(lengths):
    limit = 1
    while all(_fit(prompt, answer, limit)[1] < answer for prompt, answer in lengths):
        limit += 1
    return limit


def _longest_answer_alone(lengths):
    prompt, answer = max(lengths, key=lambda pair: pair[1])
    return min(2 * answer + 1, prompt + answer)


def _longest_row_alone(lengths):
    prompt, answer = max(lengths, key=sum)
    return min(2 * answer + 1, prompt + answer)


def _longest_parts(lengths):
    prompt, answer = (max(part) for part in zip(*lengths, strict=True))
    return min(2 * answer + 1, prompt + answer)


def _last_limit_that_cuts(lengths):
    limit = 1
    while any(_fit(prompt, answer, limit)[1] < answer for prompt, answer in lengths):
        limit += 1
    return limit - 1


def _in_steps_of_eight(lengths):
    limit = 8
    while any(_fit(prompt, answer, limit)[1] < answer for prompt, answer in lengths):
        limit += 8
    return limit


def _at_most_256(lengths):
    for limit in range(1, 257):
        if all(_fit(prompt, answer, limit)[1] == answer for prompt, answer in lengths):
            return limit
    return 256


def _from_the_longest_prompt(lengths):
    limit = max(prompt for prompt, _ in lengths)
    while any(_fit(prompt, answer, limit)[1] < answer for prompt, answer in lengths):
        limit += 1
    return limit


def _sorted_in_place(lengths):
    lengths.sort(key=lambda pair: min(2 * pair[1] + 1, sum(pair)))
    prompt, answer = lengths[-1]
    return min(2 * answer + 1, prompt + answer)


def _popped(lengths):
    limit = 0
    while lengths:
        prompt, answer = lengths.pop()
        limit = max(limit, min(2 * answer + 1, prompt + answer))
    return limit


def _first_row(lengths):
    prompt, answer = lengths[0]
    return min(2 * answer + 1, prompt + answer)


# 10.3
def _which(messages, graded, ends=None, asked=None, thought=None, last=None):
    """The right answer, with one question asked in another way."""
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    if not (ends(answers, graded) if ends else graded and STOP in graded[-1]):
        return "cutoff_len"
    if asked(messages, graded) if asked else graded[0].startswith("<|im_start|>"):
        return "train_on_prompt"
    if thought(graded) if thought else graded[0].startswith(THOUGHT):
        return "enable_thinking"
    if last(answers, graded) if last else len(graded) < len(answers):
        return "mask_history"
    return "nothing"


def _variant(**questions):
    return lambda messages, graded: _which(messages, graded, **questions)


def _renamed(**names):
    def answer(messages, graded):
        name = _which(messages, graded)
        return names.get(name, name)

    return answer


def _cut_where_fewer_runs(messages, graded):
    answers = [m for m in messages if m["role"] == "assistant"]
    if 1 <= len(graded) < len(answers) and "<|im_start|>" not in graded[0]:
        return "cutoff_len"
    return _which(messages, graded)


def _one_run_is_mask_history(messages, graded):
    return "mask_history" if len(graded) == 1 else _which(messages, graded)


def _one_run_is_train_on_prompt(messages, graded):
    return "train_on_prompt" if len(graded) == 1 else _which(messages, graded)


def _names_in_the_texts(messages, graded):
    """Finds the names in the texts."""
    for name in ("mask_history", "train_on_prompt", "enable_thinking", "cutoff_len"):
        if any(name in text for text in graded):
            return name
    return _which(messages, graded)


def _graded_popped(messages, graded):
    name = _which(messages, graded)
    graded.pop()
    return name


def _messages_changed(messages, graded):
    name = _which(messages, graded)
    for message in messages:
        message["content"] = message["content"] + STOP
    return name


def _messages_popped(messages, graded):
    name = _which(messages, graded)
    messages.pop(0)
    return name


def _all_names(messages, graded):
    return [_which(messages, graded)]


def _none_for_nothing(messages, graded):
    name = _which(messages, graded)
    return None if name == "nothing" else name


# 10.4
_FULL = {
    "finetuning_type": "full",
    "template": "qwen3_nothink",
    "cutoff_len": 256,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4,
    "num_train_epochs": 2.0,
    "learning_rate": 1e-3,
}


def _without(key):
    return {name: value for name, value in _FULL.items() if name != key}


# 10.5
def _apart(count, graded):
    def answer(macro, micro):
        right = count(macro)
        return [(1, 1)] * right + [(0, graded(right, micro))]

    return answer


def _enough(macro):
    return math.ceil(2 / (1 - macro))


def _long(right, micro):
    return math.ceil(2 * right / micro)


def _means_swapped(macro, micro):
    """A long row that is right, and short ones that are wrong: the token mean is the higher."""
    wrong = _enough(macro)
    return [(_long(wrong, micro),) * 2] + [(0, 1)] * wrong


def _one_row(macro, micro):
    return [(round(100 * macro), 100)]


def _two_rows(macro, micro):
    return [(1, 1), (0, math.ceil(2 / micro))]


def _rates_as_rows(macro, micro):
    return [(macro, 1), (micro, 1)]


def _nothing_graded(macro, micro):
    return [(0, 0), *([(1, 1)] * _enough(macro)), (0, _long(_enough(macro), micro))]


def _more_right_than_graded(macro, micro):
    return [(_enough(macro), 1), (0, _long(_enough(macro), micro))]


def _less_than_none_right(macro, micro):
    return [(-1, _long(_enough(macro), micro)), *([(1, 1)] * _enough(macro))]


def _in_floats(macro, micro):
    right = 2 / (1 - macro)
    return [(right, right)] * _enough(macro) + [(0.0, 2 * right * _enough(macro) / micro)]


def _pairs_turned(macro, micro):
    return [(graded, right) for right, graded in _apart(_enough, _long)(macro, micro)]


def _empty(macro, micro):
    return []


def _rates_of_the_rows(macro, micro):
    return _apart(_enough, _long)(macro, micro), macro, micro


NINE_OF_TEN = [(1, 1)] * 9 + [(0, 91)]

OTHER_WRONG_ANSWERS = {
    "10.1": [
        _usual_names,
        _usual_names_of_openai,
        _first_list,
        _first_column,
        _last_column,
        _first_key_is_the_role,
        _second_key_is_the_role,
        _keys_in_alphabetical_order,
        _keys_of_the_first_row_alone,
        _shorter_texts_are_the_roles,
        _first_turn_is_the_users,
        _system_always,
        _system_word_always,
        _system_never,
        _system_of_the_first_row,
        _system_of_the_last_row,
        _user_and_assistant_swapped,
        _role_and_content_swapped,
        _words_in_alphabetical_order,
        _words_by_count,
        _under_its_name,
        _tags_beside_columns,
        _tags_in_columns,
        _without_formatting,
        _alpaca_formatting,
        _no_suffix,
        _rows_turned,
        _systems_removed,
        lambda file_name, rows: _right("data.json", rows),
    ],
    "10.2": [
        _over(lambda prompt, answer: prompt + answer),
        _over(lambda prompt, answer: answer),
        _over(lambda prompt, answer: 2 * answer),
        _over(lambda prompt, answer: 2 * answer + 1),
        _over(lambda prompt, answer: max(2 * answer + 1, prompt + answer)),
        _over(lambda prompt, answer: min(2 * answer, prompt + answer)),
        _over(lambda prompt, answer: min(2 * answer + 1, prompt + answer) + 1),
        _over(lambda prompt, answer: min(2 * answer + 1, prompt + answer) - 1),
        _over(lambda prompt, answer: min(2 * answer + 2, prompt + answer)),
        _over(lambda prompt, answer: min(2 * answer + 1, prompt + answer + 1)),
        _over(lambda prompt, answer: 2 * answer + 1 if prompt > 2 * answer else prompt + answer),
        _over(lambda prompt, answer: 2 * answer + 1 if prompt >= answer else prompt + answer),
        _over(lambda prompt, answer: min(2 * prompt + 1, prompt + answer)),
        _over(lambda prompt, answer: min(2 * answer + 1, prompt + answer), min),
        _over(lambda prompt, answer: min(2 * answer + 1, prompt + answer), sum),
        _cuts_no_prompt_either,
        _one_row_is_enough,
        _longest_answer_alone,
        _longest_row_alone,
        _longest_parts,
        _last_limit_that_cuts,
        _in_steps_of_eight,
        _at_most_256,
        _from_the_longest_prompt,
        _sorted_in_place,
        _popped,
        _first_row,
    ],
    "10.3": [
        _variant(ends=lambda answers, graded: graded and graded[-1].endswith(STOP)),
        _variant(ends=lambda answers, graded: graded and STOP in graded[0]),
        _variant(ends=lambda answers, graded: graded and answers[-1] in graded[-1]),
        _variant(ends=lambda answers, graded: graded and STOP in "".join(graded)),
        _variant(ends=lambda answers, graded: len(graded) == len(answers)),
        _variant(ends=lambda answers, graded: True),
        _variant(asked=lambda messages, graded: "user" in graded[0]),
        _variant(asked=lambda messages, graded: "assistant" in graded[0]),
        _variant(asked=lambda messages, graded: messages[0]["content"] in graded[0]),
        _variant(asked=lambda messages, graded: len(graded) == 1),
        _variant(asked=lambda messages, graded: False),
        _variant(thought=lambda graded: "think" in graded[0]),
        _variant(thought=lambda graded: graded[0].startswith("think")),
        _variant(thought=lambda graded: graded[0] == THOUGHT),
        _variant(last=lambda answers, graded: len(graded) < 3),
        _variant(last=lambda answers, graded: len(graded) != 2),
        _variant(last=lambda answers, graded: graded[0].startswith(answers[-1])),
        _variant(last=lambda answers, graded: not graded[0].startswith(answers[0])),
        _variant(last=lambda answers, graded: len(set(graded)) == 1),
        _variant(last=lambda answers, graded: len(set(graded)) < len(answers)),
        _variant(last=lambda answers, graded: False),
        _renamed(enable_thinking="template"),
        _renamed(mask_history="train_on_prompt", train_on_prompt="mask_history"),
        _renamed(nothing=""),
        _cut_where_fewer_runs,
        _one_run_is_mask_history,
        _one_run_is_train_on_prompt,
        _names_in_the_texts,
        _graded_popped,
        _messages_changed,
        _messages_popped,
        _all_names,
        _none_for_nothing,
        lambda messages, graded: "nothing",
    ],
    "10.4": [
        _FULL | {"finetuning_type": "lora", "learning_rate": 5e-3},
        _FULL | {"template": "empty"},
        _FULL | {"finetuning_type": "freeze"},
        _FULL | {"template": "llama3"},
        _FULL | {"num_train_epochs": 3.0},
        _FULL | {"num_train_epochs": 2.1},
        _FULL | {"gradient_accumulation_steps": 8},
        _FULL | {"per_device_train_batch_size": 17, "gradient_accumulation_steps": 1},
        _FULL | {"gradient_accumulation_steps": 1},
        _FULL | {"learning_rate": "1e-3"},
        _FULL | {"finetuning_type": "lora", "template": "llama3", "lora_rank": 8},
        _FULL | {"learning_rate": 0.0},
        _FULL | {"learning_rate": -1e-3},
        _FULL | {"gradient_accumulation_steps": 0},
        _FULL | {"model_name_or_path": "base_own_row"},
        _FULL | {"additional_target": "embed_tokens"},
        *(_without(key) for key in _FULL),
        "\n".join(f"{key}: {value}" for key, value in _FULL.items()),
        list(_FULL.items()),
        {},
    ],
    "10.5": [
        lambda macro, micro: NINE_OF_TEN,
        _apart(lambda macro: math.floor(macro / (1 - macro)), _long),
        _apart(lambda macro: math.floor(1 / (1 - macro)) - 1, _long),
        _apart(lambda macro: 9, _long),
        _apart(_enough, lambda right, micro: 100),
        _apart(_enough, lambda right, micro: math.floor(right / micro - right)),
        _apart(_enough, lambda right, micro: math.ceil(1 / micro)),
        _apart(_enough, lambda right, micro: right),
        _means_swapped,
        _one_row,
        _two_rows,
        _rates_as_rows,
        _nothing_graded,
        _more_right_than_graded,
        _less_than_none_right,
        _in_floats,
        _pairs_turned,
        _empty,
        _rates_of_the_rows,
    ],
}
