"""Right answers to the exercises of chapter 19b, written from their statements."""

import copy
import json
from pathlib import Path

import numpy as np
import torch

# 19b.1


def _plain(embedding, A, B, scale):
    head = embedding + scale * (B @ A)
    return embedding, head, torch.equal(embedding, head)


def _in_double(embedding, A, B, scale):
    update = scale * (B.double() @ A.double())
    head = (embedding.double() + update).to(embedding.dtype)
    return embedding.clone(), head, bool((embedding == head).all())


def _row_by_row(embedding, A, B, scale):
    rows = [
        embedding[v] + scale * sum(B[v, k] * A[k] for k in range(len(A))) for v in range(len(B))
    ]
    head = torch.stack(rows)
    tied = all(bool((embedding[v] == head[v]).all()) for v in range(len(head)))
    return embedding, head, tied


def _through_a_layer(embedding, A, B, scale):
    layer = torch.nn.Linear(*embedding.shape[::-1], bias=False, dtype=embedding.dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.addmm(embedding, B, A, alpha=scale))
    head = layer.weight.detach()
    return embedding.detach(), head, not bool((embedding != head).any())


def _in_numpy(embedding, A, B, scale):
    e, a, b = (part.detach().numpy() for part in (embedding, A, B))
    head = (e + np.float32(scale) * (b @ a)).astype(e.dtype)
    return embedding, torch.from_numpy(head), bool(np.array_equal(e, head))


def _einsum(embedding, A, B, scale):
    head = embedding + scale * torch.einsum("vr,rd->vd", B, A)
    return copy.deepcopy(embedding), head, int((head != embedding).sum()) == 0


# 19b.2


def _loop(lines):
    text, reason = "", None
    for line in lines:
        if line == "data: [DONE]":
            break
        if not line.startswith("data: "):
            continue
        event = json.loads(line[6:])
        if "error" in event:
            raise RuntimeError(str(event["error"]))
        for choice in event.get("choices", []):
            text += choice["delta"].get("content") or ""
            reason = choice.get("finish_reason") or reason
    return text, reason


def _before_done(lines):
    end = lines.index("data: [DONE]") if "data: [DONE]" in lines else len(lines)
    events = [json.loads(s.removeprefix("data: ")) for s in lines[:end] if s.startswith("data: ")]
    for event in events:
        if "error" in event:
            raise RuntimeError(f"the server said: {event['error']}")
    choices = [choice for event in events for choice in event["choices"]]
    contents = [choice["delta"].get("content") for choice in choices]
    reasons = [choice.get("finish_reason") for choice in choices]
    reasons = [reason for reason in reasons if reason is not None]
    return "".join(c for c in contents if c is not None), reasons[-1] if reasons else None


def _events(lines):
    for line in lines:
        head, data, rest = line.partition("data: ")
        if head or not data:
            continue
        if rest == "[DONE]":
            return
        event = json.loads(rest)
        if "error" in event:
            raise RuntimeError(json.dumps(event["error"], ensure_ascii=False))
        yield from event["choices"]


def _generator(lines):
    parts, reason = [], None
    for choice in _events(lines):
        content = choice["delta"].get("content")
        if isinstance(content, str):
            parts.append(content)
        if isinstance(choice.get("finish_reason"), str):
            reason = choice["finish_reason"]
    return "".join(parts), reason


def _recursive(lines):
    if not lines or lines[0] == "data: [DONE]":
        return "", None
    event = json.loads(lines[0][6:]) if lines[0][:6] == "data: " else {"choices": []}
    if "error" in event:
        raise RuntimeError(f"{event['error']}")
    text, reason = _recursive(lines[1:])
    for choice in reversed(event["choices"]):
        text = (choice["delta"].get("content") or "") + text
        reason = reason if reason is not None else choice.get("finish_reason")
    return text, reason


class _State:
    def __init__(self):
        self.text, self.reason, self.open = "", None, True

    def feed(self, line):
        if line == "data: [DONE]":
            self.open = False
        elif line.startswith("data: "):
            event = json.loads(line[len("data: ") :])
            if "error" in event:
                raise RuntimeError("error in the stream: " + str(event["error"]))
            if event["choices"]:
                [choice] = event["choices"]
                self.text += choice["delta"].get("content") or ""
                if choice.get("finish_reason"):
                    self.reason = choice["finish_reason"]


def _machine(lines):
    state = _State()
    for line in lines:
        if state.open:
            state.feed(line)
    return (state.text, state.reason)


# 19b.3


def _ends_of(path):
    value = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _in_order(folder, stop_id):
    names = [path.name for path in folder.iterdir()]
    config = json.loads((folder / "config.json").read_text())
    faults = []
    if "auto_map" in config or any(name.endswith(".py") for name in names):
        faults.append("code")
    if not any(name.endswith(".safetensors") for name in names):
        faults.append("weights")
    if "tokenizer.json" not in names:
        faults.append("tokenizer")
    inside = "tokenizer_config.json" in names and "chat_template" in json.loads(
        (folder / "tokenizer_config.json").read_text()
    )
    if "chat_template.jinja" not in names and not inside:
        faults.append("template")
    source = "generation_config.json" if "generation_config.json" in names else "config.json"
    if stop_id not in _ends_of(folder / source):
        faults.append("stop")
    return faults


def _read(path):
    return json.loads(path.read_bytes()) if path.exists() else {}


def _table(folder, stop_id):
    config, tokenizer = _read(folder / "config.json"), _read(folder / "tokenizer_config.json")
    generation = folder / "generation_config.json"
    ends = (_read(generation) if generation.exists() else config).get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    template = (folder / "chat_template.jinja").exists() or "chat_template" in tokenizer
    tests = {
        "code": "auto_map" in config or [*folder.glob("*.py")] != [],
        "weights": not [*folder.glob("*.safetensors")],
        "tokenizer": not (folder / "tokenizer.json").exists(),
        "template": not template,
        "stop": stop_id not in ends,
    }
    return [name for name, broken in tests.items() if broken]


def _generator_of_faults(folder, stop_id):
    files = {path.name: path for path in Path(folder).iterdir()}
    suffixes = {path.suffix for path in files.values()}
    config = json.loads(files["config.json"].read_text(encoding="utf-8"))
    if ".py" in suffixes or "auto_map" in config:
        yield "code"
    if ".safetensors" not in suffixes:
        yield "weights"
    if "tokenizer.json" not in files:
        yield "tokenizer"
    if "chat_template.jinja" not in files:
        path = files.get("tokenizer_config.json")
        if path is None or "chat_template" not in json.loads(path.read_text(encoding="utf-8")):
            yield "template"
    path = files.get("generation_config.json", files["config.json"])
    value = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    if not (value == stop_id or (isinstance(value, list) and stop_id in value)):
        yield "stop"


def _lazily(folder, stop_id):
    return list(_generator_of_faults(folder, stop_id))


def _sets(folder, stop_id):
    order = ["code", "weights", "tokenizer", "template", "stop"]
    return sorted(set(_generator_of_faults(folder, stop_id)), key=order.index)


def _sieve(folder, stop_id):
    faults = ["code", "weights", "tokenizer", "template", "stop"]
    for path in folder.iterdir():
        if path.name.endswith(".safetensors") and "weights" in faults:
            faults.remove("weights")
        if path.name == "tokenizer.json":
            faults.remove("tokenizer")
        if path.name == "chat_template.jinja" and "template" in faults:
            faults.remove("template")
        if path.name == "tokenizer_config.json" and "chat_template" in _read(path):
            faults = [fault for fault in faults if fault != "template"]
    own = any(p.name.endswith(".py") for p in folder.iterdir())
    if not own and "auto_map" not in _read(folder / "config.json"):
        faults.remove("code")
    generation = folder / "generation_config.json"
    if stop_id in _ends_of(generation if generation.is_file() else folder / "config.json"):
        faults.remove("stop")
    return faults


# 19b.4


def _user(text):
    return {"role": "user", "content": text}


def _assistant(text):
    return {"role": "assistant", "content": text}


def _with_marks(render):
    system, question, answer = "SYSTEMTEXT", "QUESTIONTEXT", "ANSWERTEXT"
    before_user, after_user = render([_user(question)], False).split(question)
    opening = render([_user(question)], True)[len(before_user + question + after_user) :]
    full = render([_user(question), _assistant(answer)], False)
    after_assistant = full.split(answer)[1]
    try:
        text = render([{"role": "system", "content": system}, _user(question)], False)
        before_system, rest = text.split(system)
        after_system = rest[: len(rest) - len(before_user + question + after_user)]
    except ValueError:
        before_system = after_system = ""
    return {
        "before_system": before_system,
        "after_system": after_system,
        "before_user": before_user,
        "after_user": after_user,
        "opening": opening,
        "after_assistant": after_assistant,
        "stop": after_assistant.strip(),
    }


def _by_lengths(render):
    mark = "Zq7xQz"
    one = render([_user(mark)], False)
    at = one.find(mark)
    turns = {"before_user": one[:at], "after_user": one[at + len(mark) :]}
    turns["opening"] = render([_user(mark)], True).removeprefix(one)
    two = render([_user(mark), _assistant("Yq7yQy")], False).removeprefix(one)
    turns["after_assistant"] = two.partition("Yq7yQy")[2]
    turns["stop"] = turns["after_assistant"].strip()
    try:
        three = render([{"role": "system", "content": "Xq7xXx"}, _user(mark)], False)
    except ValueError:
        return turns | {"before_system": "", "after_system": ""}
    before, _, after = three.removesuffix(one).partition("Xq7xXx")
    return turns | {"before_system": before, "after_system": after}


def _around(text, mark):
    first = text.index(mark)
    return text[:first], text[first + len(mark) :]


def _rounds(render):
    talk = [_user("u-u-u"), _assistant("a-a-a"), _user("v-v-v")]
    before_user, rest = _around(render(talk, False), "u-u-u")
    _, after_user = _around(rest, "v-v-v")
    middle, _ = _around(rest, "v-v-v")
    after_user_and_opening, after = _around(middle, "a-a-a")
    after_assistant = after.removesuffix(before_user)
    opening = render(talk, True)[len(render(talk, False)) :]
    assert after_user_and_opening.startswith(after_user)
    keys = dict(before_system="", after_system="")
    try:
        with_system = render([{"role": "system", "content": "s-s-s"}, *talk], False)
    except ValueError:
        pass
    else:
        keys["before_system"], tail = _around(with_system, "s-s-s")
        keys["after_system"] = tail[: -len(render(talk, False))]
    return keys | dict(
        before_user=before_user,
        after_user=after_user,
        opening=opening,
        after_assistant=after_assistant,
        stop=after_assistant.strip(),
    )


def _system_of(render, user):
    try:
        text = render([{"role": "system", "content": "«sys»"}, _user("«q»")], False)
    except ValueError:
        return "", ""
    return tuple(_around(text[: len(text) - len(user)], "«sys»"))


def _helpers(render):
    user = render([_user("«q»")], False)
    asked = render([_user("«q»")], True)
    answered = render([_user("«q»"), _assistant("«a»")], False)
    system = _system_of(render, user)
    question = _around(user, "«q»")
    end = _around(answered, "«a»")[1]
    names = ("before_system", "after_system", "before_user", "after_user")
    return {
        **dict(zip(names, system + question, strict=True)),
        "opening": asked[len(user) :],
        "after_assistant": end,
        "stop": end.strip(),
    }


def _two_questions(render):
    turns = _helpers(render)
    again = render([_user("one"), _assistant("two"), _user("three")], True)
    assert again.endswith(turns["opening"])
    return dict(sorted(turns.items()))


# 19b.5


def _smoke_loop(ask, evaluated):
    failed = {}
    for question, answer in evaluated.items():
        try:
            text, reason = ask(question)
        except Exception:
            failed[question] = "error"
            continue
        if reason != "stop":
            failed[question] = "cut"
        elif text.strip() != answer.strip():
            failed[question] = "differs"
    return failed


def _reason_of(ask, question, answer):
    try:
        text, reason = ask(question)
    except Exception:
        return "error"
    if reason != "stop":
        return "cut"
    return None if text.strip() == answer.strip() else "differs"


def _smoke_comprehension(ask, evaluated):
    reasons = {q: _reason_of(ask, q, answer) for q, answer in evaluated.items()}
    return {question: reason for question, reason in reasons.items() if reason}


def _smoke_walrus(ask, evaluated):
    return {q: why for q in evaluated if (why := _reason_of(ask, q, evaluated[q])) is not None}


def _collect(ask, evaluated):
    replies = []
    for question in evaluated:
        try:
            replies.append(ask(question))
        except Exception as error:
            replies.append(error)
    return replies


def _smoke_in_two_passes(ask, evaluated):
    failed = {}
    for (question, answer), reply in zip(evaluated.items(), _collect(ask, evaluated), strict=True):
        if isinstance(reply, Exception):
            failed[question] = "error"
        elif reply[1] != "stop":
            failed[question] = "cut"
        elif reply[0].strip() != answer.strip():
            failed[question] = "differs"
    return failed


def _smoke_match(ask, evaluated):
    failed = dict.fromkeys(evaluated, "error")
    for question, reply in zip(list(evaluated), _collect(ask, evaluated), strict=True):
        match reply:
            case (text, "stop") if text.strip() == evaluated[question].strip():
                del failed[question]
            case (_, "stop"):
                failed[question] = "differs"
            case (_, _):
                failed[question] = "cut"
    return failed


RIGHT_ANSWERS = {
    "19b.1": [_plain, _in_double, _row_by_row, _through_a_layer, _in_numpy, _einsum],
    "19b.2": [_loop, _before_done, _generator, _recursive, _machine],
    "19b.3": [_in_order, _table, _lazily, _sets, _sieve],
    "19b.4": [_with_marks, _by_lengths, _rounds, _helpers, _two_questions],
    "19b.5": [
        _smoke_loop,
        _smoke_comprehension,
        _smoke_walrus,
        _smoke_in_two_passes,
        _smoke_match,
    ],
}
