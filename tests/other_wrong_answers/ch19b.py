"""Wrong answers to the exercises of chapter 19b, written from the statements alone."""

import json

import torch

# 19b.1


def _of_head(form):
    def answer(embedding, A, B, scale):
        head = form(embedding, A, B, scale)
        return embedding, head, torch.equal(embedding, head)

    return answer


_no_scale = _of_head(lambda e, A, B, scale: e + B @ A)
_scale_twice = _of_head(lambda e, A, B, scale: e + scale * scale * (B @ A))
_divided = _of_head(lambda e, A, B, scale: e + (B @ A) / scale)
_scaled_embedding = _of_head(lambda e, A, B, scale: scale * (e + B @ A))
_update_alone = _of_head(lambda e, A, B, scale: scale * (B @ A))
_minus = _of_head(lambda e, A, B, scale: e - scale * (B @ A))
_by_rank = _of_head(lambda e, A, B, scale: e + scale / len(A) * (B @ A))


def _merged_into_both(embedding, A, B, scale):
    head = embedding + scale * (B @ A)
    return head, head, True


def _always_untied(embedding, A, B, scale):
    return embedding, embedding + scale * (B @ A), False


def _always_tied(embedding, A, B, scale):
    return embedding, embedding + scale * (B @ A), True


def _in_place(embedding, A, B, scale):
    before = embedding.clone()
    embedding += scale * (B @ A)
    return before, embedding, torch.equal(before, embedding)


def _by_identity(embedding, A, B, scale):
    head = embedding + scale * (B @ A)
    return embedding, head, head is embedding


def _nearly_tied(embedding, A, B, scale):
    head = embedding + scale * (B @ A)
    return embedding, head, torch.allclose(embedding, head, atol=1.0, rtol=1.0)


def _some_row_equal(embedding, A, B, scale):
    head = embedding + scale * (B @ A)
    return embedding, head, bool((embedding == head).any())


def _tied_by_a(embedding, A, B, scale):
    return embedding, embedding + scale * (B @ A), bool((A == 0).all())


def _swapped(embedding, A, B, scale):
    head = embedding + scale * (B @ A)
    return head, embedding, torch.equal(embedding, head)


# 19b.2


def _join(lines, *, done="data: [DONE]", stop=True, prefix="data: ", error=RuntimeError):
    text, reason = "", None
    for line in lines:
        if line == done:
            if stop:
                break
            continue
        if not line.startswith(prefix):
            continue
        try:
            event = json.loads(line[len(prefix) :])
        except ValueError:
            continue
        if "error" in event and error:
            raise error(str(event["error"]))
        for choice in event.get("choices", []):
            text += choice["delta"].get("content") or ""
            reason = choice.get("finish_reason") or reason
    return text, reason


def _after_done_too(lines):
    return _join(lines, stop=False)


def _errors_ignored(lines):
    return _join(lines, error=None)


def _value_error(lines):
    return _join(lines, error=ValueError)


def _error_without_words(lines):
    try:
        return _join(lines)
    except RuntimeError:
        raise RuntimeError("the stream failed") from None


def _reason_of_the_last(lines):
    text, _ = _join(lines)
    last = None
    for line in lines:
        if line == "data: [DONE]":
            break
        if line.startswith("data: "):
            event = json.loads(line[6:])
            if event.get("choices"):
                last = event["choices"][0].get("finish_reason")
    return text, last


def _first_reason(lines):
    text, _ = _join(lines)
    for line in lines:
        if line.startswith("data: {"):
            for choice in json.loads(line[6:]).get("choices", []):
                if choice.get("finish_reason"):
                    return text, choice["finish_reason"]
    return text, None


def _joined_by_spaces(lines):
    parts = [_join([line])[0] for line in lines[: _end(lines)]]
    return " ".join(part for part in parts if part), _join(lines)[1]


def _end(lines):
    return lines.index("data: [DONE]") if "data: [DONE]" in lines else len(lines)


def _stripped(lines):
    text, reason = _join(lines)
    return text.strip(), reason


def _last_content(lines):
    contents = [_join([line])[0] for line in lines[: _end(lines)]]
    contents = [content for content in contents if content]
    return (contents or [""])[-1], _join(lines)[1]


def _null_as_word(lines):
    text = ""
    for line in lines[: _end(lines)]:
        if line.startswith("data: "):
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(str(event["error"]))
            for choice in event["choices"]:
                text += str(choice["delta"].get("content", ""))
    return text, _join(lines)[1]


def _empty_choices_fail(lines):
    for line in lines[: _end(lines)]:
        if line.startswith("data: "):
            event = json.loads(line[6:])
            if "error" not in event:
                event["choices"][0]
    return _join(lines)


def _reason_stop_by_default(lines):
    text, reason = _join(lines)
    return text, reason or "stop"


def _ends_at_a_reason(lines):
    for number, line in enumerate(lines[: _end(lines)]):
        if line.startswith("data: ") and _join([line])[1]:
            return _join(lines[: number + 1])
    return _join(lines)


def _text_alone(lines):
    return _join(lines)[0]


def _done_anywhere(lines):
    for number, line in enumerate(lines):
        if "[DONE]" in line:
            return _join(lines[:number])
    return _join(lines)


# 19b.3


def _read(path):
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _faults(folder, stop_id, *, ends="first", code="both", weights=".safetensors", template="both"):
    names = {path.name for path in folder.iterdir()}
    config, tokenizer = _read(folder / "config.json"), _read(folder / "tokenizer_config.json")
    generation = _read(folder / "generation_config.json")
    faults = []
    python = any(name.endswith(".py") for name in names)
    found = {"both": python or "auto_map" in config, "py": python, "map": "auto_map" in config}
    if found[code]:
        faults.append("code")
    if not any(name.endswith(weights) for name in names):
        faults.append("weights")
    if "tokenizer.json" not in names:
        faults.append("tokenizer")
    has = {"both": "chat_template.jinja" in names or "chat_template" in tokenizer}
    has |= {"file": "chat_template.jinja" in names, "key": "chat_template" in tokenizer}
    if not has[template]:
        faults.append("template")
    stops = {
        "first": generation if "generation_config.json" in names else config,
        "generation": generation,
        "config": config,
        "either": {"eos_token_id": [*_list(generation), *_list(config)]},
        "fallback": generation if _list(generation) else config,
    }[ends]
    if stop_id not in _list(stops):
        faults.append("stop")
    return faults


def _list(settings):
    value = settings.get("eos_token_id")
    return [] if value is None else value if isinstance(value, list) else [value]


def _with(**options):
    return lambda folder, stop_id: _faults(folder, stop_id, **options)


_generation_alone = _with(ends="generation")
_config_alone = _with(ends="config")
_either = _with(ends="either")
_null_falls_back = _with(ends="fallback")
_no_python = _with(code="map")
_no_map = _with(code="py")
_model_safetensors = _with(weights="model.safetensors")
_jinja_alone = _with(template="file")
_key_alone = _with(template="key")


def _first_fault(folder, stop_id):
    return _faults(folder, stop_id)[:1]


def _alphabetical(folder, stop_id):
    return sorted(_faults(folder, stop_id))


def _backwards(folder, stop_id):
    return _faults(folder, stop_id)[::-1]


def _zero_is_no_token(folder, stop_id):
    settings = _read(folder / "generation_config.json") or _read(folder / "config.json")
    faults = [fault for fault in _faults(folder, stop_id) if fault != "stop"]
    ends = settings.get("eos_token_id") or []
    ends = ends if isinstance(ends, list) else [ends]
    return faults + ([] if stop_id in ends else ["stop"])


def _first_of_a_list(folder, stop_id):
    path = folder / "generation_config.json"
    ends = _list(_read(path if path.exists() else folder / "config.json"))[:1]
    faults = [fault for fault in _faults(folder, stop_id) if fault != "stop"]
    return faults + ([] if stop_id in ends else ["stop"])


def _numbers_only(folder, stop_id):
    path = folder / "generation_config.json"
    value = _read(path if path.exists() else folder / "config.json").get("eos_token_id")
    faults = [fault for fault in _faults(folder, stop_id) if fault != "stop"]
    return faults + ([] if value == stop_id else ["stop"])


def _pickles_count(folder, stop_id):
    faults = _faults(folder, stop_id)
    if any(path.suffix in (".bin", ".pt") for path in folder.iterdir()):
        faults = [fault for fault in faults if fault != "weights"]
    return faults


def _healthy(folder, stop_id):
    return []


# 19b.4


def _user(text):
    return {"role": "user", "content": text}


def _assistant(text):
    return {"role": "assistant", "content": text}


def _turns(render):
    before_user, after_user = render([_user("qQq")], False).split("qQq")
    user = before_user + "qQq" + after_user
    opening = render([_user("qQq")], True)[len(user) :]
    end = render([_user("qQq"), _assistant("aAa")], False).split("aAa")[1]
    try:
        text = render([{"role": "system", "content": "sSs"}, _user("qQq")], False)
        before_system, rest = text.split("sSs")
        after_system = rest[: len(rest) - len(user)]
    except ValueError:
        before_system = after_system = ""
    return {
        "before_system": before_system,
        "after_system": after_system,
        "before_user": before_user,
        "after_user": after_user,
        "opening": opening,
        "after_assistant": end,
        "stop": end.strip(),
    }


def _but(change):
    return lambda render: _turns(render) | change(_turns(render), render)


_opening_in_after_user = _but(lambda t, r: {"after_user": t["after_user"] + t["opening"]})
_opening_from_answer = _but(
    lambda t, r: {"opening": r([_user("qQq"), _assistant("aAa")], False).split("aAa")[0]}
)
_unstripped_stop = _but(lambda t, r: {"stop": t["after_assistant"]})
_stripped_end = _but(lambda t, r: {"after_assistant": t["stop"]})
_system_with_user = _but(lambda t, r: {"after_system": t["after_system"] + t["before_user"]})
_stop_is_first_line = _but(lambda t, r: {"stop": t["after_user"].strip()})
_no_system = _but(lambda t, r: {"before_system": "", "after_system": ""})
_none_for_no_system = _but(
    lambda t, r: {k: t[k] or None for k in ("before_system", "after_system")}
)
_stripped_everywhere = _but(lambda t, r: {k: text.strip() for k, text in t.items()})
_swapped_sides = _but(lambda t, r: {"before_user": t["after_user"], "after_user": t["before_user"]})
_system_as_user = _but(
    lambda t, r: {"before_system": t["before_user"], "after_system": t["after_user"]}
)
_chatml = lambda render: {  # noqa: E731, a wrong answer without a name of its own
    "before_system": "<|im_start|>system\n",
    "after_system": "<|im_end|>\n",
    "before_user": "<|im_start|>user\n",
    "after_user": "<|im_end|>\n",
    "opening": "<|im_start|>assistant\n",
    "after_assistant": "<|im_end|>\n",
    "stop": "<|im_end|>",
}


def _no_catch(render):
    render([{"role": "system", "content": "s"}, _user("q")], False)
    return _turns(render)


def _without_stop(render):
    turns = _turns(render)
    del turns["stop"]
    return turns


# 19b.5


def _smoke(ask, evaluated, *, order=("cut", "differs"), strip=True, stops=("stop",), compare=None):
    failed = {}
    for question, answer in evaluated.items():
        try:
            text, reason = ask(question)
        except Exception:
            failed[question] = "error"
            continue
        if strip:
            text, answer = text.strip(), answer.strip()
        equal = compare(text, answer) if compare else text == answer
        reasons = {"cut": reason not in stops, "differs": not equal}
        why = [name for name in order if reasons[name]]
        if why:
            failed[question] = why[0]
    return failed


def _smoke_with(**options):
    return lambda ask, evaluated: _smoke(ask, evaluated, **options)


_differs_first = _smoke_with(order=("differs", "cut"))
_cut_ignored = _smoke_with(order=("differs",))
_text_ignored = _smoke_with(order=("cut",))
_unstripped = _smoke_with(strip=False)
_length_is_fine = _smoke_with(stops=("stop", "length"))
_only_length_is_cut = _smoke_with(stops=("stop", None, "content_filter", "tool_calls"))
_contained = _smoke_with(compare=lambda text, answer: answer in text)
_without_case = _smoke_with(compare=lambda text, answer: text.lower() == answer.lower())
_white_space_inside = _smoke_with(compare=lambda text, answer: text.split() == answer.split())
_begins_alike = _smoke_with(compare=lambda text, answer: answer.startswith(text))


def _stops_at_the_first(ask, evaluated):
    for question, answer in evaluated.items():
        failed = _smoke(ask, {question: answer})
        if failed:
            return failed
    return {}


def _asks_again(ask, evaluated):
    failed = _smoke(ask, evaluated)
    return {
        question: why
        for question, why in failed.items()
        if _smoke(ask, {question: evaluated[question]})
    }


def _lets_errors_through(ask, evaluated):
    failed = {}
    for question, answer in evaluated.items():
        text, reason = ask(question)
        if reason != "stop" or text.strip() != answer.strip():
            failed[question] = "cut" if reason != "stop" else "differs"
    return failed


def _only_runtime_errors(ask, evaluated):
    failed = {}
    for question, answer in evaluated.items():
        try:
            text, reason = ask(question)
        except RuntimeError:
            failed[question] = "error"
            continue
        if reason != "stop" or text.strip() != answer.strip():
            failed[question] = "cut" if reason != "stop" else "differs"
    return failed


def _errors_as_cut(ask, evaluated):
    return {q: "cut" if why == "error" else why for q, why in _smoke(ask, evaluated).items()}


def _all_questions(ask, evaluated):
    failed = _smoke(ask, evaluated)
    return {question: failed.get(question, "ok") for question in evaluated}


def _sorted_questions(ask, evaluated):
    return _smoke(ask, dict(sorted(evaluated.items(), reverse=True)))


def _names_alone(ask, evaluated):
    return list(_smoke(ask, evaluated))


OTHER_WRONG_ANSWERS = {
    "19b.1": [
        _no_scale,
        _scale_twice,
        _divided,
        _scaled_embedding,
        _update_alone,
        _minus,
        _by_rank,
        _merged_into_both,
        _always_untied,
        _always_tied,
        _in_place,
        _by_identity,
        _nearly_tied,
        _some_row_equal,
        _tied_by_a,
        _swapped,
    ],
    "19b.2": [
        _after_done_too,
        _errors_ignored,
        _value_error,
        _error_without_words,
        _reason_of_the_last,
        _first_reason,
        _joined_by_spaces,
        _stripped,
        _last_content,
        _null_as_word,
        _empty_choices_fail,
        _reason_stop_by_default,
        _ends_at_a_reason,
        _text_alone,
        _done_anywhere,
    ],
    "19b.3": [
        _generation_alone,
        _config_alone,
        _either,
        _null_falls_back,
        _no_python,
        _no_map,
        _model_safetensors,
        _jinja_alone,
        _key_alone,
        _first_fault,
        _alphabetical,
        _backwards,
        _zero_is_no_token,
        _first_of_a_list,
        _numbers_only,
        _pickles_count,
        _healthy,
    ],
    "19b.4": [
        _opening_in_after_user,
        _opening_from_answer,
        _unstripped_stop,
        _stripped_end,
        _system_with_user,
        _stop_is_first_line,
        _no_system,
        _none_for_no_system,
        _stripped_everywhere,
        _swapped_sides,
        _system_as_user,
        _chatml,
        _no_catch,
        _without_stop,
    ],
    "19b.5": [
        _differs_first,
        _cut_ignored,
        _text_ignored,
        _unstripped,
        _length_is_fine,
        _only_length_is_cut,
        _contained,
        _without_case,
        _white_space_inside,
        _begins_alike,
        _stops_at_the_first,
        _asks_again,
        _lets_errors_through,
        _only_runtime_errors,
        _errors_as_cut,
        _all_questions,
        _sorted_questions,
        _names_alone,
    ],
}
