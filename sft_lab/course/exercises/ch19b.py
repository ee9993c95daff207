"""Checks of chapter 19b, a model behind a server."""

import contextlib
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sft_lab.course.exercises.kit import (
    Case,
    Mistake,
    checks,
    need_list,
    need_tensor,
    normal,
    same_for_all,
    same_in_all,
    shorten,
    unpack,
)

# a LoRA on a tied head


def _form_head(found: Any) -> tuple[torch.Tensor, torch.Tensor, bool]:
    embedding, head, tied = unpack(found, "the embedding", "the head", "tied")
    if not isinstance(tied, bool):
        raise Mistake(f"tied is True or False, not {shorten(tied)}")
    return need_tensor(embedding, "the embedding"), need_tensor(head, "the head"), tied


def _head(embedding, a, b, scale):
    head = embedding + scale * b @ a
    return embedding, head, torch.equal(head, embedding)


def _with_head(change: Callable) -> Callable:
    """An answer that `change` makes of (embedding, update, scale)."""
    return lambda embedding, a, b, scale: change(embedding, b @ a, scale)


@checks("19b.1")
def merge_head(attempt: Callable) -> str:
    inputs = []
    for rank, scale in ((1, 0.5), (2, 2.0), (3, random.uniform(0.1, 0.9))):
        words, width = random.randint(5, 9), 4
        inputs.append((normal(words, width), normal(rank, width), normal(words, rank), scale))
    embedding, a, b, _ = inputs[0]
    inputs.append((embedding, a, torch.zeros_like(b), 2.0))  # as LoRA begins
    one_row = torch.zeros_like(b)
    one_row[-1] = 1.0
    inputs.append((embedding, a, one_row, 1.0))  # one token's row moved
    inputs.append((embedding, a, one_row, 0.01))  # and by very little

    mistakes: list[tuple[Callable, str]] = [
        (
            _with_head(lambda e, u, s: (e + s * u, e + s * u, True)),
            "the update went into the embedding too: LoRA was on the head alone, so what the model "
            "reads must stay as it is",
        ),
        (
            _with_head(lambda e, u, s: (e + s * u, e + s * u, torch.equal(e + s * u, e))),
            "the update went into the embedding too",
        ),
        (
            _with_head(lambda e, u, s: (e, e + u, torch.equal(e + u, e))),
            "the update is scaled: scale is missing",
        ),
        (_with_head(lambda e, u, s: (e, e + s * u, False)), "a zero update leaves them tied"),
        (
            _with_head(lambda e, u, s: (e, e + s * u, True)),
            "tied is False as soon as one number differs: a loader would make one tensor of both",
        ),
        (
            _with_head(lambda e, u, s: (e, e + s * u, not torch.equal(e + s * u, e))),
            "tied is the other way round",
        ),
        (
            _with_head(lambda e, u, s: (e, s * u, not u.any().item() and not e.any().item())),
            "the head is the embedding and its update, not the update alone",
        ),
        (
            _with_head(lambda e, u, s: (e + s * u, e, torch.equal(e + s * u, e))),
            "the embedding and the head are exchanged",
        ),
    ]
    same_for_all(attempt, inputs, _head, mistakes, form=_form_head, what="the merge")
    return "the head moves, the embedding stays, and they are tied only when nothing moved"


# a folder and its faults

CODE, WEIGHTS, TOKENIZER, TEMPLATE, STOP = "code", "weights", "tokenizer", "template", "stop"
FAULTS = (CODE, WEIGHTS, TOKENIZER, TEMPLATE, STOP)
Files = dict[str, Any]  # a dict is JSON, a text is written as it is


def _healthy(stop: int) -> Files:
    return {
        "config.json": {"model_type": "qwen3", "vocab_size": 2048, "eos_token_id": stop},
        "generation_config.json": {"eos_token_id": [stop, stop - 2], "pad_token_id": stop - 2},
        "model.safetensors": "weights",
        "tokenizer.json": {"version": "1.0"},
        "tokenizer_config.json": {"eos_token": "<|im_end|>"},
        "chat_template.jinja": "{{ messages }}",
    }


def _folders(stop: int) -> list[Files]:
    """Folders with every fault alone, with several, and with what only looks like one."""
    other = stop - 2
    gone = object()

    def with_(**changes: Any) -> Files:
        files = _healthy(stop)
        for name, value in changes.items():
            name = NAMES[name]
            if value is gone:
                files.pop(name, None)
            elif isinstance(value, dict) and isinstance(files.get(name), dict):
                files[name] = files[name] | value
            else:
                files[name] = value
        return files

    in_config = {"chat_template": "{{ messages }}"}
    return [
        with_(),
        with_(ends={"eos_token_id": stop}),
        with_(ends=gone),  # config.json speaks then
        with_(template=gone, names=in_config),
        with_(weights=gone, shard="weights", shards={"weight_map": {}}),
        with_(config={"auto_map": {"AutoModel": "modeling.Own"}}),
        with_(script="import torch"),
        with_(weights=gone),
        with_(weights=gone, pickle="weights"),
        with_(weights=gone, shards={"weight_map": {}}),  # the list of the parts, without them
        with_(tokenizer=gone),
        with_(template=gone),
        with_(template=gone, names=gone),
        with_(ends={"eos_token_id": other}),
        with_(ends={"eos_token_id": [other], "pad_token_id": stop}),
        with_(ends={"eos_token_id": None}),
        with_(ends={"eos_token_id": []}),
        with_(ends={"eos_token_id": stop * 10}),
        with_(ends=gone, config={"eos_token_id": other}),
        with_(ends=gone, config={"eos_token_id": [other, stop]}),
        with_(tokenizer=gone, template=gone, ends={"eos_token_id": other}),
        with_(script="import os", weights=gone, pickle="weights", template=gone, names=in_config),
        {"config.json": {"auto_map": {}}, "own.py": "import os"},
    ]


NAMES = {
    "config": "config.json",
    "ends": "generation_config.json",
    "weights": "model.safetensors",
    "shard": "model-00001-of-00002.safetensors",
    "shards": "model.safetensors.index.json",
    "pickle": "pytorch_model.bin",
    "tokenizer": "tokenizer.json",
    "names": "tokenizer_config.json",
    "template": "chat_template.jinja",
    "script": "modeling_own.py",
}


def _ends(files: Files, stop: int) -> bool:
    """Whether transformers would end an answer at the stop token."""
    source = files.get("generation_config.json", files["config.json"])
    named = source.get("eos_token_id")
    return stop in (named if isinstance(named, list) else [named])


def _find(files: Files, stop: int) -> list[str]:
    template = "chat_template.jinja" in files
    template |= "chat_template" in files.get("tokenizer_config.json", {})
    code = "auto_map" in files["config.json"] or any(name.endswith(".py") for name in files)
    found = {
        CODE: code,
        WEIGHTS: not any(name.endswith(".safetensors") for name in files),
        TOKENIZER: "tokenizer.json" not in files,
        TEMPLATE: not template,
        STOP: not _ends(files, stop),
    }
    return [name for name in FAULTS if found[name]]


def _hints(files: Files, stop: int) -> list[tuple[list[str], str]]:
    """What usual mistakes find in a folder."""
    right = set(_find(files, stop))

    def find(name: str, is_there: bool) -> list[str]:
        found = right | {name} if is_there else right - {name}
        return [fault for fault in FAULTS if fault in found]

    config = files["config.json"]
    generation = files.get("generation_config.json")
    named = (generation or {}).get("eos_token_id")
    either = stop in (named if isinstance(named, list) else [named])
    from_config = config.get("eos_token_id")
    either |= stop in (from_config if isinstance(from_config, list) else [from_config])
    no_weights = not any(
        name.endswith((".safetensors", ".bin", ".safetensors.index.json")) for name in files
    )
    own = any(name.endswith(".py") for name in files)
    return [
        (
            find(STOP, not either),
            "config.json counts only where there is no generation_config.json: transformers reads "
            "the latter first, and a file that names no end ends nowhere",
        ),
        (
            find(STOP, generation is None or STOP in right),
            "where there is no generation_config.json, config.json names the end",
        ),
        (find(STOP, str(stop) not in json.dumps(generation or config)), "compare ids, not letters"),
        (
            find(STOP, isinstance(named, int | type(None)) and named != stop),
            "a list of ids ends at each of them, and at no other",
        ),
        (
            find(TEMPLATE, "chat_template.jinja" not in files),
            "older folders keep the template in tokenizer_config.json",
        ),
        (find(WEIGHTS, no_weights), "a pickle, or a list of parts, is no safetensors file"),
        (find(WEIGHTS, "model.safetensors" not in files), "large weights come in several files"),
        (find(CODE, own), "auto_map in config.json asks for code as well"),
        (find(CODE, "auto_map" in config), "a .py file is code as well"),
        ([name for name in FAULTS if name in right][:1], "name all faults, not the first alone"),
    ]


@checks("19b.3")
def find_faults(attempt: Callable) -> str:
    stop = random.randint(1000, 2000)
    folders = [(files, stop) for files in _folders(stop)]
    # token id 0 is a token like any other
    folders.append((_healthy(stop) | {"generation_config.json": {"eos_token_id": 0}}, 0))
    cases = []
    with tempfile.TemporaryDirectory(prefix="sft_lab_") as root:
        for number, (files, stop) in enumerate(folders):
            folder = Path(root) / f"model-{number}"
            folder.mkdir()
            for name, content in files.items():
                text = content if isinstance(content, str) else json.dumps(content)
                (folder / name).write_text(text, encoding="utf-8")
            given = f"a folder of {_describe(files)}, with stop_id = {stop}"
            try:
                found = attempt(folder, stop)
            except Exception as error:
                error.add_note(f"for {given}")
                raise
            found = need_list(found, str, "names")
            if unknown := [name for name in found if name not in FAULTS]:
                raise Mistake(f"{unknown[0]!r} is no name of the table: {', '.join(FAULTS)}")
            cases.append(Case(found, _find(files, stop), _hints(files, stop), given))
    if all(sorted(case.actual) == sorted(case.expected) for case in cases) and any(
        case.actual != case.expected for case in cases
    ):
        raise Mistake("all found: return the names in the order of the table")
    same_in_all(cases, what="the list of faults")
    return f"{len(folders)} folders, healthy ones among them: every fault found, no false alarm"


def _describe(files: Files) -> str:
    """The files of a folder, with what decides inside them."""
    keys = ("eos_token_id", "auto_map", "chat_template")
    parts = []
    for name, content in files.items():
        shown = {key: content[key] for key in keys if isinstance(content, dict) and key in content}
        parts.append(f"{name} {json.dumps(shown)}" if shown else name)
    return ", ".join(parts)


# a stream


def _event(content: Any = ..., reason: str | None = None, **more: Any) -> str:
    delta = {} if content is ... else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return "data: " + json.dumps({"choices": [choice], **more})


def _pieces() -> list[str]:
    """Texts of a stream, with what could be taken for its frame."""
    hard = [" leading", "trailing ", "\n", "data: ", "[DONE]", "é", "😀", "的", "null", ""]
    some = random.sample(hard, 6) + [str(random.randint(10, 99))]
    random.shuffle(some)
    return [*some, " end ", "data: [DONE]"]


def _streams() -> list[list[str]]:
    role = "data: " + json.dumps({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
    usage = "data: " + json.dumps({"choices": [], "usage": {"total_tokens": 9}})
    done = "data: [DONE]"

    def body() -> list[str]:
        lines = [role, ""]
        for piece in _pieces():
            lines += [_event(piece), ""]
        return lines

    return [
        [*body(), _event(reason="stop"), "", done, ""],
        [*body(), _event(None, "length"), usage, done],
        [": keep-alive", "", *body(), _event(" last", "stop"), _event(), "event: note", done],
        body(),  # the connection broke off
        [*body(), _event(reason="stop"), done, _event(" after the end", "length")],
        [role, _event(reason="stop"), done],
        # white space at both ends, two reasons, and a text behind the first
        [
            _event(" first"),
            _event(" cut", "length"),
            _event(" more\n"),
            _event(reason="stop"),
            done,
        ],
        [],
    ]


def _join(
    lines: list[str],
    *,
    strip: bool = False,
    done: bool = True,
    first: bool = False,
    late: bool = False,
    glue: str = "",
    search: bool = False,
) -> tuple[str, str | None]:
    """The right answer, or one with a usual mistake."""
    text, reason = [], None
    for line in lines:
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]" or (search and "[DONE]" in line):
            if done:
                break
            continue
        for choice in json.loads(line.removeprefix("data: "))["choices"]:
            piece = choice["delta"].get("content") or ""
            if not (late and choice.get("finish_reason")):
                text.append(piece.strip() if strip else piece)
            if choice.get("finish_reason") and not (first and reason):
                reason = choice["finish_reason"]
    return glue.join(piece for piece in text if piece or not glue), reason


@checks("19b.2")
def join_stream(attempt: Callable) -> str:
    def form(found: Any) -> tuple[str, str | None]:
        text, reason = unpack(found, "the text", "the finish reason")
        if not isinstance(text, str) or not isinstance(reason, str | None):
            raise Mistake(f"return a text, and a text or None, not {shorten(found)}")
        return text, reason

    def last_of_all(lines: list[str]) -> tuple[str, str | None]:
        text, reason = _join(lines)
        return text, reason or "stop"

    mistakes: list[tuple[Callable, str]] = [
        (lambda lines: _join(lines, strip=True), "a piece keeps its spaces and line breaks"),
        (lambda lines: _join(lines, glue=" "), "pieces follow each other without a space between"),
        (lambda lines: _join(lines, done=False), "nothing counts after data: [DONE]"),
        (lambda lines: _join(lines, search=True), "[DONE] inside a text is a part of the text"),
        (lambda lines: _join(lines, late=True), "the last piece may come with the finish reason"),
        (last_of_all, "a stream that broke off has no finish reason: None"),
    ]
    same_for_all(
        attempt, [(lines,) for lines in _streams()], _join, mistakes, form=form, what="the answer"
    )
    broken = [_event("half"), "data: " + json.dumps({"error": "out of memory"}), _event(" more")]
    try:
        found = attempt(broken)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise Mistake(
                "the RuntimeError does not say what the server said: out of memory"
            ) from None
    except Exception as error:
        raise Mistake(
            f"an event with the key error raises RuntimeError, not {type(error).__name__}"
        ) from None
    else:
        raise Mistake(f"an event with the key error raises RuntimeError; you returned {found!r}")
    return "every piece in its place, a cut and a broken stream told apart, an error raised"


# what stands around a turn

TURN_KEYS = (
    "before_system",
    "after_system",
    "before_user",
    "after_user",
    "opening",
    "after_assistant",
    "stop",
)


def _template(parts: dict[str, str], *, system: bool) -> Callable:
    """A chat template as a function; parts: the keys above, and before_assistant."""

    def render(messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        roles = [message["role"] for message in messages]
        if roles[:1] == ["system"]:
            if not system:
                raise ValueError("this template knows no system turn")
            roles = roles[1:]
        if any(role != ("user", "assistant")[i % 2] for i, role in enumerate(roles)) or not roles:
            raise ValueError("turns alternate, and the user begins")
        text = "".join(
            parts[f"before_{m['role']}"] + m["content"] + parts[f"after_{m['role']}"]
            for m in messages
        )
        return text + parts["opening"] * add_generation_prompt

    return render


def _templates() -> list[tuple[dict[str, str], Callable]]:
    """ChatML, ChatML with an empty think block, one like Llama's, a plain one, one without system
    turns whose letters look like contents."""
    mark = f"{random.randint(100, 999)}"
    think = "<think>\n\n</think>\n\n"
    kinds = [
        (f"<|im_start{mark}|>{{}}\n", "<|im_end|>\n", "<|im_end|>", "", True),
        ("<|im_start|>{}\n", f"<|im_end{mark}|>\n", f"<|im_end{mark}|>", think, True),
        (f"<|head{mark}|>{{}}<|/head|>\n\n", "<|eot|>", "<|eot|>", "", True),
        (f"[{mark}] {{}}: ", " </s>\n\n", "</s>", "", True),
        ("### {} user X?\n", f" [end {mark}]\n", f"[end {mark}]", "", False),
    ]
    made = []
    for before, after, stop, extra, system in kinds:
        parts = {f"before_{role}": before.format(role) for role in ("system", "user", "assistant")}
        parts |= {f"after_{role}": after for role in ("system", "user", "assistant")}
        if "</s>" in after:  # questions end otherwise than answers
            parts["after_user"] = f" [/{mark}]\n"
        parts |= {"opening": parts["before_assistant"] + extra, "stop": stop}
        render = _template(parts, system=system)
        if not system:
            parts |= {"before_system": "", "after_system": ""}
        made.append(({key: parts[key] for key in TURN_KEYS}, render))
    return made


@checks("19b.4")
def read_turns(attempt: Callable) -> str:
    cases = []
    for right, render in _templates():
        shown = repr(render([{"role": "user", "content": "Hi"}], True))
        given = f"a template that writes {shown} for the question Hi"
        try:
            found = attempt(render)
        except Exception as error:
            error.add_note(f"for {given}")
            raise
        if not isinstance(found, dict):
            raise Mistake(f"return a dict of texts, not {shorten(found)}")
        if missing := [key for key in TURN_KEYS if not isinstance(found.get(key), str)]:
            raise Mistake(f"the key {missing[0]} is missing, or no text, {given}")
        if more := [key for key in found if key not in TURN_KEYS]:
            raise Mistake(f"{shorten(more[0])} is no key of the table")
        answer = render([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "Z"}],
                        False)  # fmt: skip
        hints = [
            (
                right | {"stop": right["after_assistant"]},
                "the stop text has no white space at its ends",
            ),
            (
                right | {"after_assistant": right["stop"]},
                "after_assistant keeps its white space: the next turn begins after it",
            ),
            (
                {key: text.strip() for key, text in right.items()},
                "texts keep their white space: a model reads every line break",
            ),
            (
                right | {"opening": right["after_user"] + right["opening"]},
                "the opening is what add_generation_prompt adds, without the end of the question",
            ),
            (
                right | {"opening": answer[answer.index("Q") :].split("Z")[0][1:]},
                "the opening is what add_generation_prompt adds to a question",
            ),
            (
                right | {"before_system": right["before_user"].replace("user", "system", 1)},
                "a template that refuses system turns has no text around them",
            ),
        ]
        cases.append(Case({key: found[key] for key in TURN_KEYS}, right, hints, given))
    _name_key(cases)
    return "five templates, one without system turns and one that opens with an empty think block"


def _name_key(cases: list[Case]) -> None:
    """Compare, and where no mistake explains it, say which text differs."""
    with contextlib.suppress(StopIteration):
        key, case = next(
            (key, case) for case in cases for key in TURN_KEYS
            if case.actual[key] != case.expected[key]
        )  # fmt: skip
        try:
            same_in_all(cases)
        except Mistake as mistake:
            if any(str(mistake) == name for _, name in case.hints):
                raise
            raise Mistake(
                f"{key} is {case.actual[key]!r}, expected {case.expected[key]!r}, for {case.given}"
            ) from None


# a smoke test


def _exams() -> list[tuple[dict[str, str], dict[str, Any]]]:
    """Evaluated answers, and what a server says: a text with its finish reason, or an error."""
    number = random.randint(10, 99)
    evaluated = {
        "a": f"The sum is {number}.",
        "b": "The capital of Kenya is Nairobi.",
        "c": "  one, two ",
        "d": "",
        "e": "Ja.",
        "f": "The capital of Peru is Lima.",
    }
    fine = {question: (answer, "stop") for question, answer in evaluated.items()}
    return [
        (evaluated, fine),
        (evaluated, fine | {"a": (f" The sum is {number}.\n", "stop"), "c": ("one, two", "stop")}),
        (evaluated, fine | {"a": (f"The sum is {number + 1}.", "stop")}),
        (evaluated, fine | {"b": ("The capital of", "length"), "f": (evaluated["f"], "length")}),
        (evaluated, fine | {"c": TimeoutError("no answer"), "d": (" x", "stop")}),
        (evaluated, fine | {"a": RuntimeError("500"), "e": ("ja.", "stop"), "b": ("", "stop")}),
        (evaluated, fine | {"e": ("Ja. Ja.", "tool_calls"), "d": ("", None)}),
        (evaluated, fine | {"f": ("The capital  of Peru\nis Lima.", "stop")}),
        ({}, {}),
    ]


def _judge(
    evaluated: dict[str, str],
    said: dict[str, Any],
    *,
    cut: bool = True,
    strip: bool = True,
    lower: bool = False,
    inside: bool = False,
    length_only: bool = False,
    differs_first: bool = False,
    stop_at: str | None = None,
) -> dict[str, str]:
    """The right verdict, or one with a usual mistake."""
    found = {}
    for question, wanted in evaluated.items():
        answer = said[question]
        if isinstance(answer, Exception):
            found[question] = "error"
        else:
            text, reason = answer
            text, wanted = (text.strip(), wanted.strip()) if strip else (text, wanted)
            if lower:
                text, wanted = text.lower(), wanted.lower()
            is_cut = cut and (reason == "length" if length_only else reason != "stop")
            differs = wanted not in text if inside else text != wanted
            if is_cut and not (differs_first and differs):
                found[question] = "cut"
            elif differs:
                found[question] = "differs"
        if question in found and stop_at in ("any", found[question]):
            break
    return found


@checks("19b.5")
def smoke_test(attempt: Callable) -> str:
    options: list[tuple[dict[str, Any], str]] = [
        ({"cut": False}, "an answer that did not end with stop was cut, whatever it says so far"),
        ({"length_only": True}, "every finish reason but stop is a cut"),
        ({"strip": False}, "white space at the ends does not count"),
        ({"lower": True}, "small and capital letters differ"),
        ({"inside": True}, "the whole answer must be equal, not a part of it"),
        ({"differs_first": True}, "a cut answer is named cut, also when it differs"),
        ({"stop_at": "error"}, "the test goes on after an error"),
        ({"stop_at": "any"}, "the test goes on after a failure: all questions are asked"),
    ]
    cases = []
    for evaluated, said in _exams():
        asked: list[str] = []

        def ask(question: str, said=said, asked=asked) -> tuple[str, str | None]:
            asked.append(question)
            if isinstance(said[question], Exception):
                raise said[question]
            return said[question]

        try:
            found = attempt(ask, dict(evaluated))
        except (TimeoutError, RuntimeError) as error:
            if str(error) not in ("no answer", "500"):
                raise
            raise Mistake(
                f"ask raised {type(error).__name__}, and so did you: name the question error and "
                "go on"
            ) from None
        if not isinstance(found, dict):
            raise Mistake(f"return a dict of question and reason, not {shorten(found)}")
        wrong = {question: said[question] for question in _judge(evaluated, said)}
        given = f"a server that fails like this: {wrong}" if wrong else "a server that is right"
        hints = [(_judge(evaluated, said, **option), name) for option, name in options]
        cases.append(Case(found, _judge(evaluated, said), hints, given))
        if asked != list(evaluated) and found == cases[-1].expected:
            raise Mistake("ask every question once, in order: an answer costs money and time")
    same_in_all(cases, what="the failures")
    return "equal answers pass; errors, cuts and differences are named, and none stops the test"
