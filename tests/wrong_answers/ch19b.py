"""Wrong answers to the exercises of chapter 19b, each with what its reader is told."""

import json

import torch


def _merge(form):
    return lambda embedding, a, b, scale: form(embedding, b @ a, scale)


def _both_moved(e, u, s):
    return e + s * u, e + s * u, True


def _faults(folder, stop_id, *, config_too=False, letters=False, jinja=True, one=False,
            parts=True, code="both", kind=None, order=1):  # fmt: skip
    names = [path.name for path in folder.iterdir()]

    def read(name):
        return json.loads((folder / name).read_text()) if name in names else {}

    config, found = read("config.json"), []
    own, mapped = any(n.endswith(".py") for n in names), "auto_map" in config
    if {"both": own or mapped, "py": own, "map": mapped}[code]:
        found.append("code")
    ends = (".safetensors", ".bin") if kind == "pickle" else ".safetensors"
    if not (any(n.endswith(ends) for n in names) if parts else "model.safetensors" in names):
        found.append("weights")
    if "tokenizer.json" not in names:
        found.append("tokenizer")
    written = "chat_template.jinja" in names
    if not (written or (jinja and "chat_template" in read("tokenizer_config.json"))):
        found.append("template")
    sources = [read("generation_config.json") if "generation_config.json" in names else config]
    sources += [config] * config_too
    named = []
    for source in sources:
        value = source.get("eos_token_id")
        named += value if isinstance(value, list) else [value]
    if str(stop_id) not in json.dumps(sources[0]) if letters else stop_id not in named:
        found.append("stop")
    return found[:1] if one else found[::order]


def _stream(lines, *, strip=False, after=False, search=False, glue="", error=RuntimeError):
    text, reason = [], None
    for line in lines:
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]" or (search and "[DONE]" in line):
            if after:
                continue
            break
        event = json.loads(line[6:])
        if "error" in event and error:
            raise error(event["error"])
        for choice in event.get("choices", []):
            piece = choice["delta"].get("content")
            if piece:
                text.append(piece.strip() if strip else piece)
            reason = choice.get("finish_reason") or reason
    return glue.join(text), reason


def _turns(render, *, strip=False, raw_stop=False, end=False, trim_after=False, guess=False):
    user = {"role": "user", "content": "@1@"}
    answer = {"role": "assistant", "content": "@2@"}
    one = render([user], False)
    before_user, after_user = one.split("@1@")
    opening = render([user], True)[len(one) :]
    after = render([user, answer], False).split("@2@")[1]
    found = {
        "before_user": before_user,
        "after_user": after_user,
        "opening": after_user + opening if end else opening,
        "after_assistant": after.strip() if trim_after else after,
        "stop": after if raw_stop else after.strip(),
    }
    try:
        text = render([{"role": "system", "content": "@0@"}, user], False)
        found["before_system"], rest = text.split("@0@")
        found["after_system"] = rest[: rest.index(before_user)]
    except ValueError:
        found["before_system"] = before_user.replace("user", "system", 1) if guess else ""
        found["after_system"] = ""
    return {key: text.strip() for key, text in found.items()} if strip else found


def _smoke(ask, evaluated, *, cut=True, strip=True, inside=False, late=False, stop=False):
    found = {}
    for question, wanted in evaluated.items():
        try:
            text, reason = ask(question)
        except Exception:
            found[question] = "error"
            if stop:
                break
            continue
        if strip:
            text, wanted = text.strip(), wanted.strip()
        differs = wanted not in text if inside else text != wanted
        if cut and reason != "stop" and not (late and differs):
            found[question] = "cut"
        elif differs:
            found[question] = "differs"
    return found


WRONG_ANSWERS = {
    "19b.1": [
        (_merge(_both_moved), "the update went into the embedding too"),
        (_merge(lambda e, u, s: (e, e + u, torch.equal(e + u, e))), "scale is missing"),
        (_merge(lambda e, u, s: (e, e + s * u, False)), "a zero update leaves them tied"),
        (_merge(lambda e, u, s: (e, e + s * u, True)), "as soon as one number differs"),
        (_merge(lambda e, u, s: (e, e + s * u)), "return three things"),
    ],
    "19b.3": [
        (lambda f, s: _faults(f, s, config_too=True), "config.json counts only where"),
        (lambda f, s: _faults(f, s, letters=True), "compare ids, not letters"),
        (lambda f, s: _faults(f, s, jinja=False), "older folders keep the template"),
        (lambda f, s: _faults(f, s, kind="pickle"), "the list of faults"),
        (lambda f, s: _faults(f, s, parts=False), "large weights come in several files"),
        (lambda f, s: _faults(f, s, code="py"), "auto_map in config.json"),
        (lambda f, s: _faults(f, s, code="map"), "a .py file is code"),
        (lambda f, s: _faults(f, s, one=True), "name all faults"),
        (lambda f, s: _faults(f, s, order=-1), "in the order of the table"),
    ],
    "19b.2": [
        (lambda lines: _stream(lines, strip=True), "keeps its spaces"),
        (lambda lines: _stream(lines, glue=" "), "without a space between"),
        (lambda lines: _stream(lines, after=True), "nothing counts after"),
        (lambda lines: _stream(lines, search=True), "inside a text"),
        (lambda lines: _stream(lines, error=None), "raises RuntimeError; you returned"),
        (lambda lines: _stream(lines, error=ValueError), "not ValueError"),
        (lambda lines: (_stream(lines)[0], _stream(lines)[1] or "stop"), "broke off"),
    ],
    "19b.4": [
        (lambda r: _turns(r, strip=True), "keep their white space"),
        (lambda r: _turns(r, raw_stop=True), "no white space at its ends"),
        (lambda r: _turns(r, trim_after=True), "after_assistant keeps"),
        (lambda r: _turns(r, end=True), "without the end of the question"),
        (lambda r: _turns(r, guess=True), "refuses system turns"),
    ],
    "19b.5": [
        (lambda ask, e: _smoke(ask, e, cut=False), "was cut, whatever"),
        (lambda ask, e: _smoke(ask, e, strip=False), "white space at the ends"),
        (lambda ask, e: _smoke(ask, e, inside=True), "the whole answer"),
        (lambda ask, e: _smoke(ask, e, late=True), "also when it differs"),
        (lambda ask, e: _smoke(ask, e, stop=True), "goes on after an error"),
        (lambda ask, e: {q: "differs" for q, a in e.items() if ask(q)[0] != a}, "ask raised"),
    ],
}
