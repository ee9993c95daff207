"""Healthy files of many shapes, and faults planted into them as honest data sets get them.

    python tests/doctor_cases.py        the whole table: every fault in every shape that has room

Written from what the doctor promises, not from how it looks: a fault says which rows it spoiled and
which finding must name them, and anything else that the doctor then says is a false alarm.
"""

import csv
import html
import io
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import doctor_texts as texts
from doctor_texts import Conversations

Turns = list[dict[str, Any]]
SHARE_GPT = {"user": "human", "assistant": "gpt", "system": "system"}


# layouts: a conversation as a row


def two_columns(question: str, answer: str, *, given: str = "") -> Callable[[Turns], dict]:
    """A row with these columns. given: the column for what follows the question's first line."""

    def write(turns: Turns) -> dict:
        *before, asked, told = turns
        row: dict[str, Any] = {}
        if before and before[0]["role"] == "system":
            row["system"] = before.pop(0)["content"]
        text = asked["content"]
        if given:
            first, _, rest = text.partition("\n")
            text, row[given] = (first, rest) if first.strip() and rest.strip() else (text, "")
        row = {question: text} | row | {answer: told["content"]}
        if before:
            said = [turn["content"] for turn in before]
            row["history"] = [list(two) for two in zip(said[::2], said[1::2], strict=True)]
        if "reasoning_content" in told:
            row["reasoning_content"] = told["reasoning_content"]
        return row

    return write


def write_messages(turns: Turns) -> dict:
    return {"messages": [dict(turn) for turn in turns]}


def write_share_gpt(turns: Turns) -> dict:
    said = []
    for turn in turns:
        rest = {key: turn[key] for key in turn if key not in ("role", "content")}
        said.append({"from": SHARE_GPT[turn["role"]], "value": turn["content"]} | rest)
    return {"id": f"chat-{len(said)}", "conversations": said}


def write_trl(turns: Turns) -> dict:
    return {"prompt": [dict(turn) for turn in turns[:-1]], "completion": [dict(turns[-1])]}


LAYOUTS = {
    "alpaca": two_columns("instruction", "output", given="input"),
    "alpaca without input": two_columns("instruction", "output"),
    "dolly": two_columns("instruction", "response", given="context"),
    "prompt and response": two_columns("prompt", "response"),
    "prompt and completion": two_columns("prompt", "completion"),
    "question and answer": two_columns("question", "answer"),
    "messages": write_messages,
    "sharegpt": write_share_gpt,
    "trl": write_trl,
}


def write_file(rows: list[dict], suffix: str) -> str:
    if suffix == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if suffix == "json":
        return json.dumps(rows, indent=2)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    page = io.StringIO()
    writer = csv.writer(page)
    writer.writerow(columns)
    for row in rows:
        cells = [row.get(column, "") for column in columns]
        writer.writerow(
            json.dumps(cell, ensure_ascii=False) if isinstance(cell, list) else cell
            for cell in cells
        )
    return page.getvalue()


class Shape(NamedTuple):
    """What the rows say, how they say it, in which kind of file."""

    content: Callable[[], Conversations]
    layout: str
    suffix: str

    @property
    def name(self) -> str:
        words = self.content.__name__.replace("_", " ")
        return f"{words}, {self.layout}, {self.suffix}"

    @property
    def folder(self) -> str:
        """The healthy model folder that can read it (doctor_folders.HEALTHY)."""
        long = {"very_long_rows": "long", "reasoning_beside": "thinking"}
        return long.get(self.content.__name__, "atlas")


SHAPES = [
    Shape(getattr(texts, content), layout, suffix)
    for content, layout, suffix in (
        ("english", "alpaca", "json"),
        ("english", "messages", "jsonl"),
        ("english", "dolly", "csv"),
        ("english", "trl", "jsonl"),
        ("with_input", "alpaca", "jsonl"),
        ("with_input", "alpaca", "csv"),
        ("chinese", "alpaca", "jsonl"),
        ("chinese", "sharegpt", "json"),
        ("chinese", "question and answer", "csv"),
        ("atlas", "question and answer", "jsonl"),
        ("atlas", "prompt and completion", "csv"),
        ("several_turns", "messages", "jsonl"),
        ("several_turns", "sharegpt", "json"),
        ("several_turns", "alpaca", "jsonl"),
        ("several_turns", "trl", "json"),
        ("personas", "messages", "jsonl"),
        ("personas", "alpaca", "csv"),
        ("turns_with_system", "sharegpt", "jsonl"),
        ("turns_with_system", "messages", "csv"),
        ("world", "messages", "json"),
        ("world", "prompt and response", "csv"),
        ("code", "alpaca without input", "jsonl"),
        ("code", "prompt and completion", "csv"),
        ("web", "messages", "jsonl"),
        ("web", "question and answer", "json"),
        ("markdown", "sharegpt", "jsonl"),
        ("markdown", "alpaca", "csv"),
        ("json_answers", "prompt and completion", "jsonl"),
        ("json_answers", "messages", "csv"),
        ("two_labels", "alpaca", "csv"),
        ("two_labels", "messages", "jsonl"),
        ("four_labels", "prompt and response", "json"),
        ("choices", "question and answer", "csv"),
        ("long_rows", "sharegpt", "json"),
        ("long_rows", "prompt and completion", "csv"),
        ("very_long_rows", "messages", "jsonl"),
        ("short_rows", "prompt and response", "jsonl"),
        ("arithmetic", "question and answer", "jsonl"),
        ("arithmetic", "messages", "csv"),
        ("languages", "alpaca without input", "json"),
        ("poetry", "alpaca without input", "csv"),
        ("quatrains", "sharegpt", "jsonl"),
        ("translations", "alpaca", "json"),
        ("think_blocks", "messages", "jsonl"),
        ("think_blocks", "question and answer", "csv"),
        ("think_turns", "sharegpt", "json"),
        ("reasoning_beside", "messages", "jsonl"),
        ("reasoning_beside", "prompt and response", "csv"),
        ("latex", "alpaca without input", "jsonl"),
        ("addresses", "sharegpt", "json"),
        ("dates", "prompt and completion", "jsonl"),
        ("settings", "messages", "jsonl"),
        ("windows_lines", "dolly", "csv"),
        ("refusals", "alpaca", "json"),
    )
]


# faults


@dataclass
class Draft:
    """A file on its way: conversations, then rows, then text, and what was spoiled in it.

    spoiled: numbers of the rows that a finding must name. beside: rows that it may name as well,
    such as the first of two equal ones. test: conversations of a test file, and in exam the rows of
    it that stand in the data. options: of `diagnose`.
    """

    shape: Shape
    conversations: Conversations
    rng: random.Random
    rows: list[dict] = field(default_factory=list)
    text: str | bytes = ""
    test: Conversations = field(default_factory=list)
    spoiled: set[int] = field(default_factory=set)
    beside: set[int] = field(default_factory=set)
    exam: set[int] = field(default_factory=set)
    whole: bool = False  # the file as a whole is spoiled, and no row has a number
    options: dict[str, Any] = field(default_factory=dict)

    def pick(self, count: int = 5, *, where: Callable[[Turns], bool] = bool) -> list[int]:
        """Places of `count` rows that fit, in order; none where fewer fit."""
        fitting = [i for i, turns in enumerate(self.conversations) if where(turns)]
        return sorted(self.rng.sample(fitting, count)) if len(fitting) >= count else []

    def spoil(self, places: list[int]) -> None:
        self.spoiled |= {place + 1 for place in places}


class Fault(NamedTuple):
    """plant: changes the draft at a stage, "turns", "rows" or "text"; a draft that it cannot be
    planted in keeps `spoiled` empty. entails: what else the doctor may say because of it."""

    name: str
    code: str
    severity: str
    stage: str
    plant: Callable[[Draft], None]
    entails: tuple[str, ...] = ()


FAULTS: list[Fault] = []


def fault(
    name: str, code: str, stage: str = "turns", *, severity: str = "warning", entails: tuple = ()
) -> Callable:
    def keep(plant: Callable[[Draft], None]) -> Callable[[Draft], None]:
        FAULTS.append(Fault(name, code, severity, stage, plant, entails))
        return plant

    return keep


def last_answer(turns: Turns) -> str:
    return turns[-1]["content"]


def question(turns: Turns) -> str:
    return turns[-2]["content"]


def put(turns: Turns, change: Callable[[str], str], at: int = -1) -> None:
    """Change the text of a turn; of an answer with a think block what stands behind the block."""
    block, mark, text = turns[at]["content"].rpartition("</think>\n\n")
    turns[at] = turns[at] | {"content": block + mark + change(text)}


def each(
    draft: Draft,
    changes: list[Callable[[str], str]],
    *,
    at: int = -1,
    where: Callable[[Turns], bool] = bool,
) -> None:
    """Spoil a few rows, by each of the changes in turn."""
    places = draft.pick(where=where)
    for number, place in enumerate(places):
        put(draft.conversations[place], changes[number % len(changes)], at)
    draft.spoil(places)


def append(*endings: str) -> list[Callable[[str], str]]:
    # what follows a closing fence on its line would open it again
    return [
        lambda text, ending=ending: text + "\n" * text.endswith("```") + ending
        for ending in endings
    ]


def replace(*others: str) -> list[Callable[[str], str]]:
    return [lambda text, other=other: other for other in others]


def prepend(*beginnings: str) -> list[Callable[[str], str]]:
    return [lambda text, beginning=beginning: beginning + text for beginning in beginnings]


@fault("a template's stop token left in the answers", "control-token")
def plant_stop_token(draft: Draft) -> None:
    each(draft, append("<|im_end|>", "<|endoftext|>"))


@fault("a user who types control tokens", "control-token")
def plant_typed_token(draft: Draft) -> None:
    each(draft, append(" What does <|im_start|> do?", "<|im_end|>"), at=-2)


@fault("control tokens of Llama, Mistral and Gemma", "control-token")
def plant_other_tokens(draft: Draft) -> None:
    if "model" not in draft.options:  # another family's are letters to this tokenizer
        each(draft, append("<|eot_id|>", "</s>", "<end_of_turn>", " [/INST]", "<|end_of_text|>"))


def no_lines_of_names(turns: Turns) -> bool:
    """Whether the answer is no scene or list in which another speaker might well stand."""
    return not re.match(r"[\w ]{1,20}: ", last_answer(turns)) and "scene" not in question(turns)


@fault("chats run together: User:", "turn-marker")
def plant_user(draft: Draft) -> None:
    endings = append("\n\nUser: And then?\nAssistant: Nothing more.", "\nUser: Thanks!")
    each(draft, endings, where=no_lines_of_names)


@fault("chats run together: Human:", "turn-marker")
def plant_human(draft: Draft) -> None:
    endings = append("\n\nHuman: Tell me more.\n\nAssistant: Gladly.")
    each(draft, endings, where=no_lines_of_names)


@fault("an Alpaca prompt behind the answer", "turn-marker")
def plant_instruction(draft: Draft) -> None:
    each(draft, append("\n\n### Instruction:\nName a city.\n\n### Response:\nOslo"))


@fault("ChatML behind the answer", "turn-marker", entails=("control-token",))
def plant_chatml(draft: Draft) -> None:
    each(draft, append("<|im_end|>\n<|im_start|>user\nAnd then?"))


def copy(turns: Turns) -> Turns:
    return [dict(turn) for turn in turns]


def insert(draft: Draft, copies: list[tuple[int, Turns]]) -> None:
    """Append changed copies of rows, which become the spoiled ones; the originals may be named."""
    for place, turns in copies:
        draft.conversations.append(turns)
        draft.spoil([len(draft.conversations) - 1])
        draft.beside.add(place + 1)


@fault("the file exported twice", "duplicate")
def plant_export(draft: Draft) -> None:
    insert(draft, [(i, copy(turns)) for i, turns in enumerate([*draft.conversations])])


@fault("some rows twice", "duplicate")
def plant_duplicates(draft: Draft) -> None:
    insert(draft, [(place, copy(draft.conversations[place])) for place in draft.pick()])


@fault("some rows twice, with other blanks", "duplicate")
def plant_respaced(draft: Draft) -> None:
    changes = [*append("  ", "\n"), *prepend(" ")]
    copies = [(place, copy(draft.conversations[place])) for place in draft.pick()]
    for number, (_, turns) in enumerate(copies):
        put(turns, changes[number % 3], -2)
    insert(draft, copies)


def has_words(least: int) -> Callable[[Turns], bool]:
    """Whether the question has so many words; a Chinese character is one."""

    def count(turns: Turns) -> bool:
        spaced = re.sub(r"([\u3400-\u9fff])", r" \1 ", question(turns))
        return sum(any(letter.isalnum() for letter in word) for word in spaced.split()) >= least

    return count


@fault("some rows with a word more", "near-duplicate", severity="note")
def plant_near(draft: Draft) -> None:
    copies = [(p, copy(draft.conversations[p])) for p in draft.pick(where=has_words(14))]
    for _, turns in copies:
        put(turns, lambda text: "Please: " + text, -2)
    insert(draft, copies)
    draft.beside = set(range(1, len(draft.conversations) + 1))  # rows of a template are near, too


@fault("some questions with two answers", "conflict", entails=())
def plant_conflict(draft: Draft) -> None:
    copies = []
    for place in draft.pick():
        turns = copy(draft.conversations[place])
        others = [other[-1] for other in draft.conversations if other[-1] != turns[-1]]
        others = [other for other in others if other["content"] != turns[-1]["content"]]
        copies.append((place, [*turns[:-1], dict(draft.rng.choice(others))]))
    insert(draft, copies)


def hold_back(draft: Draft, count: int = 14) -> None:
    """Give the draft a test file: rows of its own, no longer in the data."""
    rows = draft.conversations
    if draft.shape.content is texts.personas:  # with each question all who answer it
        asked = {question(turns) for turns in rows[: count // 4]}
        held = [place for place, turns in enumerate(rows) if question(turns) in asked]
    else:
        held = sorted(draft.rng.sample(range(len(rows)), count))
    draft.test = [rows[place] for place in held]
    rows[:] = [turns for place, turns in enumerate(rows) if place not in held]


def copy_exam(
    draft: Draft, where: Callable[[Turns], bool], change: Callable[[Turns], None]
) -> None:
    hold_back(draft)
    fitting = [number for number, turns in enumerate(draft.test) if where(turns)]
    for number in fitting[:4]:
        turns = copy(draft.test[number])
        change(turns)
        place = draft.rng.randrange(len(draft.conversations))
        draft.conversations.insert(place, turns)
        draft.spoiled = {row + (row > place) for row in draft.spoiled}
        draft.spoil([place])
        draft.exam.add(number + 1)


@fault("exam rows copied into the data", "test-overlap", severity="error")
def plant_exam(draft: Draft) -> None:
    copy_exam(draft, bool, lambda turns: None)


@fault("exam questions in the data, with the answers of a model", "test-overlap", severity="error")
def plant_answered_exam(draft: Draft) -> None:
    copy_exam(draft, bool, lambda turns: put(turns, lambda text: f"Answer: {text}"))


@fault("exam questions in the data, with a word more", "test-near-overlap")
def plant_near_exam(draft: Draft) -> None:
    copy_exam(draft, has_words(14), lambda t: put(t, lambda text: "Please: " + text, -2))


@fault("the question in place of the answer", "echo", entails=("think-mixed",))
def plant_echo(draft: Draft) -> None:
    places = draft.pick(where=has_words(3))
    for place in places:
        turns = draft.conversations[place]
        turns[-1]["content"] = question(turns)
    draft.spoil(places)


@fault("answers that begin with their prompt", "echo")
def plant_full_text(draft: Draft) -> None:
    places = draft.pick(where=has_words(8))
    for place in places:
        turns = draft.conversations[place]
        turns[-1]["content"] = f"{question(turns)}\n{last_answer(turns)}"
    draft.spoil(places)


@fault("answers never written", "placeholder")
def plant_todo(draft: Draft) -> None:
    each(draft, replace("TODO", "N/A", "...", "TODO: write the answer", "n/a"))


@fault("the voice of another model", "placeholder")
def plant_voice(draft: Draft) -> None:
    each(
        draft, prepend("As an AI language model, I have no opinion. ", "As an AI language model: ")
    )


@fault("filler of a layout", "placeholder")
def plant_lorem(draft: Draft) -> None:
    each(draft, replace("Lorem ipsum dolor sit amet, consectetur adipiscing elit."))


def misread(text: str) -> str:
    """UTF-8 read as Windows' cp1252, where that has no letter as Latin-1."""
    letters = []
    for byte in text.encode():
        raw = bytes([byte])
        try:
            letters.append(raw.decode("cp1252"))
        except UnicodeDecodeError:
            letters.append(raw.decode("latin-1"))
    return "".join(letters)


def respell(draft: Draft, change: Callable[[str], str]) -> None:
    """Change the text of all turns in rows that have letters beyond ASCII."""

    def changes(turns: Turns) -> bool:
        said = " ".join(turn["content"] for turn in turns)
        return sum(ord(letter) > 127 for letter in said) >= 2

    places = draft.pick(where=changes)
    for place in places:
        for turn in draft.conversations[place]:
            turn["content"] = change(turn["content"])
    draft.spoil(places)


@fault("UTF-8 read as Windows' encoding", "encoding", entails=("invisible",))
def plant_mojibake(draft: Draft) -> None:
    respell(draft, misread)


@fault("curly quotes read as Windows' encoding", "encoding")
def plant_quotes(draft: Draft) -> None:
    each(draft, append(misread(" It’s done."), misread(" – “so” – it’s"), misread(" café")))


@fault("letters lost in a conversion", "encoding")
def plant_lost_letters(draft: Draft) -> None:
    each(draft, append(" caf\ufffd", " na\ufffdve", " it\ufffds"))


@fault("Chinese in UTF-8 read as GBK", "encoding")
def plant_gbk(draft: Draft) -> None:
    def read_as_gbk(text: str) -> str:
        return text.encode().decode("gbk", errors="ignore")

    if draft.shape.content in (texts.chinese, texts.quatrains):
        respell(draft, read_as_gbk)


@fault("zero-width blanks of a web page", "invisible")
def plant_zero_width(draft: Draft) -> None:
    each(draft, append(" for\u200b all", "\u200b and\u2060 so", " x\u200by"))


@fault("a byte-order mark in the texts", "invisible")
def plant_bom(draft: Draft) -> None:
    each(draft, prepend("\ufeff"), at=-2)


@fault("control characters in the texts", "invisible")
def plant_controls(draft: Draft) -> None:
    each(draft, append(" a\x08b", " \x1b[31mred\x1b[0m", " x\x01y"))


@fault("NUL in the texts", "invisible")
def plant_nul(draft: Draft) -> None:
    if draft.shape.suffix != "csv":
        each(draft, append(" a\x00b"))


@fault("joiners between Latin letters", "invisible")
def plant_joiners(draft: Draft) -> None:
    each(draft, append(" hel\u200dlo", " wa\u200cter"))


@fault("thoughts that never end", "think-unclosed", severity="error", entails=("think-mixed",))
def plant_unclosed(draft: Draft) -> None:
    places = draft.pick()
    for place in places:
        turn = draft.conversations[place][-1]
        if "reasoning_content" in turn:
            return
        text = turn["content"]
        opened = "<think>" in text
        turn["content"] = text.replace("\n</think>", "") if opened else "<think>\nSo: " + text
    draft.spoil(places)


@fault("nothing behind the thoughts", "think-alone", entails=("think-mixed",))
def plant_thoughts_alone(draft: Draft) -> None:
    places = draft.pick()
    for place, end in zip(places, ("", "\n", "\n\n", " ", "\n\n\n"), strict=False):
        turn = draft.conversations[place][-1]
        beside = turn.pop("reasoning_content", "Let me think.")
        thoughts, closed, _ = turn["content"].rpartition("</think>")
        turn["content"] = (thoughts if closed else f"<think>\n{beside}\n") + "</think>" + end
    draft.spoil(places)


@fault("some answers with thoughts", "think-mixed")
def plant_mixed(draft: Draft) -> None:
    places = draft.pick(20)
    for place in places:
        turn = draft.conversations[place][-1]
        if turn.pop("reasoning_content", ""):
            continue
        *_, text = turn["content"].rpartition("</think>\n\n")
        block = "<think>\nLet me think.\n</think>\n\n"
        turn["content"] = text if text != turn["content"] else block + text
    draft.spoil(places)
    draft.beside = set(range(1, len(draft.conversations) + 1))


CUT = ("fence-unclosed", "edge-space", "think-unclosed", "think-mixed")


@fault("an export that cuts texts", "cut-at-length", entails=CUT)
def plant_cut(draft: Draft) -> None:
    """At the greatest usual length that a third of the answers pass: of texts from a template many
    have one length by themselves, and a few more are no trace."""
    lengths = sorted((len(last_answer(turns)) for turns in draft.conversations), reverse=True)
    limits = [
        n
        for n in (4000, 2000, 1000, 512, 256, 255, 128, 100, 64, 60)
        if lengths[len(lengths) // 3] > n
    ]
    if limits:
        for place, turns in enumerate(draft.conversations):
            for turn in turns:
                if turn["role"] == "assistant" and len(turn["content"]) > limits[0]:
                    turn["content"] = turn["content"][: limits[0]]
                    draft.beside.add(place + 1)
            # where the cut meets the end of a sentence nobody sees it
            text = last_answer(turns)
            if len(text) == limits[0] and (text[-1].isalnum() or text[-1] == ","):
                draft.spoil([place])
        if 2 * len(draft.spoiled) < len(draft.beside):
            draft.spoiled.clear()  # most were cut where a line or a list ends


@fault("a code block that stays open", "fence-unclosed")
def plant_fence(draft: Draft) -> None:
    each(draft, append("\n\n```python\nprint(1)", "\n```\n$ ls"))


@fault("the last fence lost", "fence-unclosed", entails=("edge-space",))
def plant_lost_fence(draft: Draft) -> None:
    """By a pattern that takes what stands before the last fence."""
    places = draft.pick(where=lambda turns: len(re.findall(r"^```", last_answer(turns), re.M)) == 2)
    for place in places:
        put(draft.conversations[place], lambda text: text[: text.rindex("\n```")])
    draft.spoil(places)


@fault("completions that begin with a blank", "edge-space")
def plant_blank(draft: Draft) -> None:
    for turns in draft.conversations:
        turns[-1]["content"] = " " + last_answer(turns)
    draft.spoil(range(len(draft.conversations)))


@fault("a line break behind some answers", "edge-space")
def plant_line_break(draft: Draft) -> None:
    each(draft, append("\n", "  ", "\n\n", "\t"))


@fault("a join that gives most rows one answer", "one-answer")
def plant_one_answer(draft: Draft) -> None:
    answers = [last_answer(turns) for turns in draft.conversations]
    if len(set(answers)) < 20:
        return
    places = draft.pick(42)
    for place in places:
        for turn in draft.conversations[place]:
            if turn["role"] == "assistant":
                _, _, text = draft.conversations[places[0]][-1]["content"].rpartition(
                    "</think>\n\n"
                )
                block, mark, _ = turn["content"].rpartition("</think>\n\n")
                turn["content"] = block + mark + text
    draft.spoil(places)
    # a row may have had that answer before
    draft.beside = set(range(1, len(draft.conversations) + 1))


@fault("a sample in place of the file", "few-rows", severity="note")
def plant_sample(draft: Draft) -> None:
    draft.conversations[:] = draft.conversations[:12]
    draft.spoil(range(12))
    draft.whole = True


@fault("texts scraped from a page", "html", severity="note or warning")
def plant_entities(draft: Draft) -> None:
    def scrape(text: str) -> str:
        return (
            html.escape(text.replace("\n", "<br>"))
            + "&lt;br&gt;Tom &amp; Ida&nbsp;said &#39;so&#39;."
        )

    if draft.shape.content is not texts.web:  # there an entity is what is taught
        each(draft, [scrape])


# faults of rows: each spoils what one row says, or cannot be said in a layout


def some_rows(draft: Draft, change: Callable[[dict], None], count: int = 4) -> None:
    places = draft.pick(count)
    for place in places:
        change(draft.rows[place])
    draft.spoil(places)


def answer_column(draft: Draft) -> str:
    """The column of the answers, "" for a layout of turns."""
    names = ("output", "response", "completion", "answer")
    return next((n for n in names if isinstance(draft.rows[0].get(n), str)), "")


def turn_list(draft: Draft) -> str:
    return next((name for name in ("messages", "conversations") if name in draft.rows[0]), "")


def bad_row(name: str, stage: str = "rows") -> Callable:
    return fault(name, "bad-row", stage, severity="error")


@bad_row("answers that are empty")
def plant_empty(draft: Draft) -> None:
    def empty(row: dict) -> None:
        if name := answer_column(draft):
            row[name] = draft.rng.choice(["", "  \n"])
        else:
            turn = row.get("messages", row.get("conversations", row.get("completion")))[-1]
            turn["content" if "content" in turn else "value"] = ""

    some_rows(draft, empty)


@bad_row("answers that are no text")
def plant_numbers(draft: Draft) -> None:
    if draft.shape.suffix != "csv" and (name := answer_column(draft)):
        some_rows(draft, lambda row: row.update({name: draft.rng.choice([42, ["a"], True, None])}))


@bad_row("a column missing in some rows")
def plant_missing(draft: Draft) -> None:
    name = answer_column(draft) or turn_list(draft)
    if draft.shape.suffix != "csv" and name:
        some_rows(draft, lambda row: row.pop(name))


@bad_row("columns with other names")
def plant_renamed(draft: Draft) -> None:
    if name := answer_column(draft):
        some_rows(draft, lambda row: row.update(gold=row.pop(name)), len(draft.rows))


@bad_row("an unknown role")
def plant_role(draft: Draft) -> None:
    if name := turn_list(draft):
        some_rows(
            draft,
            lambda row: row[name][-1].update(
                {"role" if name == "messages" else "from": draft.rng.choice(["bot", "tool"])}
            ),
        )


@bad_row("a turn lost")
def plant_lost_turn(draft: Draft) -> None:
    if (name := turn_list(draft)) and any(len(row[name]) > 3 for row in draft.rows):
        places = [p for p, row in enumerate(draft.rows) if len(row[name]) > 3][:5]
        for place in places:
            del draft.rows[place][name][-2]  # two answers in a row
        draft.spoil(places)


@bad_row("conversations that end with the user")
def plant_user_last(draft: Draft) -> None:
    if name := turn_list(draft):
        some_rows(draft, lambda row: row[name].pop())


@bad_row("a system turn in the middle")
def plant_late_system(draft: Draft) -> None:
    if turn_list(draft) == "messages":
        some_rows(
            draft,
            lambda row: row["messages"].insert(-1, {"role": "system", "content": "Be brief."}),
        )


@bad_row("calls of tools")
def plant_tools(draft: Draft) -> None:
    if turn_list(draft) == "messages":
        call = {"type": "function", "function": {"name": "look", "arguments": "{}"}}
        some_rows(draft, lambda row: row["messages"][-1].update(content=None, tool_calls=[call]))


@bad_row("pictures")
def plant_pictures(draft: Draft) -> None:
    some_rows(draft, lambda row: row.update(image="photos/17.png"), len(draft.rows))


@bad_row("a picture's part in a content")
def plant_parts(draft: Draft) -> None:
    if turn_list(draft) == "messages" and draft.shape.suffix != "csv":
        parts = [{"type": "text", "text": "What is it?"}, {"type": "image"}]
        some_rows(draft, lambda row: row["messages"][-2].update(content=parts))


@bad_row("preferences")
def plant_preferences(draft: Draft) -> None:
    if name := answer_column(draft):
        some_rows(
            draft,
            lambda row: row.update(chosen=row.pop(name), rejected="No idea."),
            len(draft.rows),
        )


@bad_row("rows marked as not wanted")
def plant_unwanted(draft: Draft) -> None:
    if draft.shape.suffix != "csv":
        some_rows(draft, lambda row: row.update(label=False))


@bad_row("half an emoji")
def plant_half(draft: Draft) -> None:
    if draft.shape.suffix == "json" and (name := answer_column(draft)):
        some_rows(draft, lambda row: row.update({name: row[name] + " \ud83d"}))


# faults of the file


@bad_row("a download cut off", "text")
def plant_cut_off(draft: Draft) -> None:
    if draft.shape.suffix != "csv":
        end = draft.text.rstrip("]} \n").rindex('"')
        draft.text = draft.text[:end]
        draft.spoil([len(draft.rows) - 1])


@bad_row("Python's quotes for JSON's", "text")
def plant_repr(draft: Draft) -> None:
    if draft.shape.suffix == "jsonl":
        places = draft.pick(3)
        lines = draft.text.split("\n")
        for place in places:
            lines[place] = str(draft.rows[place])
        draft.text = "\n".join(lines)
        draft.spoil(places)


@bad_row("two objects on a line", "text")
def plant_joined(draft: Draft) -> None:
    if draft.shape.suffix == "jsonl":
        lines = draft.text.split("\n")
        lines[20:22] = [lines[20] + lines[21]]
        draft.text = "\n".join(lines)
        draft.spoil([20])


@bad_row("quotes not doubled in a CSV", "text")
def plant_csv_quote(draft: Draft) -> None:
    """In the last row, for what stands behind a stray quote can no longer be told apart."""
    if draft.shape.suffix == "csv":
        cells = ",".join('"say "yes", or "no""' for _ in draft.rows[0])
        draft.text = draft.text + cells + "\r\n"
        draft.spoil([len(draft.rows)])


@bad_row("cells too many in a CSV", "text")
def plant_cells(draft: Draft) -> None:
    if draft.shape.suffix == "csv":
        cells = ",".join("so" for _ in range(len(draft.rows[0]) + 3))
        draft.text = draft.text + (cells + "\r\n") * 2
        draft.spoil([len(draft.rows), len(draft.rows) + 1])


@bad_row("saved as UTF-16", "text")
def plant_utf16(draft: Draft) -> None:
    draft.text = draft.text.encode("utf-16")
    draft.spoil(range(len(draft.rows)))
    draft.whole = True


@bad_row("an empty file", "text")
def plant_nothing(draft: Draft) -> None:
    draft.text = "[]" if draft.shape.suffix == "json" else ""
    draft.spoil(range(len(draft.rows)))
    draft.whole = True


# drafts and files


@cache
def read_content(content: Callable[[], Conversations]) -> Conversations:
    return content()


def make_draft(shape: Shape, seed: str, **options: Any) -> Draft:
    fresh = [copy(turns) for turns in read_content(shape.content)]
    return Draft(shape, fresh, random.Random(seed), options=options)


def plant(fault: Fault, shape: Shape, **options: Any) -> Draft:
    """The shape with the fault in it. options: of `diagnose`, so that a fault may look at them."""
    draft = make_draft(shape, f"{fault.name} {shape.name}", **options)
    if fault.stage == "turns":
        fault.plant(draft)
    write(draft, fault.plant if fault.stage == "rows" else None)
    if fault.stage == "text":
        fault.plant(draft)
    return draft


def write(draft: Draft, change: Callable[[Draft], None] | None = None) -> Draft:
    """Rows and text of the draft's conversations. change: of the rows, before they are text."""
    draft.rows = [LAYOUTS[draft.shape.layout](turns) for turns in draft.conversations]
    if change:
        change(draft)
    draft.text = write_file(draft.rows, draft.shape.suffix)
    return draft


def healthy(shape: Shape, *, with_test: bool = False) -> Draft:
    draft = make_draft(shape, shape.name)
    if with_test:
        hold_back(draft)
    return write(draft)


def healthy_mixture(seed: int) -> Draft:
    """A random part of two or three healthy contents together, in a random layout and file."""
    rng = random.Random(seed)
    # thoughts in some answers and not in others would be a fault
    contents = [c for c in texts.CONTENTS if c not in texts.SPECIAL]
    layouts = [*LAYOUTS]
    shape = Shape(rng.choice(contents), rng.choice(layouts), rng.choice(["jsonl", "json", "csv"]))
    draft = Draft(shape, [], rng)
    for content in rng.sample(contents, rng.randint(2, 3)):
        rows = read_content(content)
        draft.conversations += [copy(t) for t in rng.sample(rows, rng.randint(25, len(rows)))]
    rng.shuffle(draft.conversations)
    asked = {json.dumps(turns[:-1]): turns for turns in draft.conversations}
    draft.conversations = [*asked.values()]
    return write(draft)


def save(draft: Draft, folder: Path) -> dict[str, Any]:
    """Write the draft's files; the arguments of `diagnose` for them."""
    data = folder / f"data.{draft.shape.suffix}"
    text = draft.text
    data.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = {"data": data} | draft.options
    if draft.test:
        rows = [LAYOUTS[draft.shape.layout](turns) for turns in draft.test]
        found["test"] = folder / f"test.{draft.shape.suffix}"
        found["test"].write_bytes(write_file(rows, draft.shape.suffix).encode())
    return found


# what the doctor must say

PLACE = re.compile(r"(data|test)\.\w+, row (\d+)")


def judge(
    fault_code: str, severity: str, entails: tuple, draft: Draft, findings: list
) -> list[str]:
    """What is wrong with the findings of a planted fault; [] where it was found and no more."""
    found = [finding for finding in findings if finding.code == fault_code]
    wrong = [
        f"false alarm {f.code} ({f.severity}): {f.title} {f.places[:3]}"
        for f in findings
        if f.severity != "note" and f.code not in (fault_code, *entails)
    ]
    if not found:
        return [f"missed {fault_code}", *wrong]
    wrong += [f"{f.code} is a {f.severity}" for f in found if f.severity not in severity]
    if fault_code == "bad-row" and len(found) > 4:  # of one fault: None, 42, a list and a yes
        wrong.append(f"{len(found)} findings for one cause: {[f.title for f in found][:3]}")
    about_no_row = draft.whole or not draft.spoiled
    return wrong if about_no_row else wrong + judge_places(fault_code, draft, found)


def judge_places(code: str, draft: Draft, found: list) -> list[str]:
    """Whether the findings name the planted rows and no healthy ones."""
    wrong = []
    places = PLACE.findall("\n".join(place for finding in found for place in finding.places))
    named = {file: {int(row) for name, row in places if name == file} for file in ("data", "test")}
    if stray := named["data"] - draft.spoiled - draft.beside:
        wrong.append(f"{code} names healthy rows {sorted(stray)[:5]}")
    if stray := named["test"] - draft.exam:
        wrong.append(f"{code} names healthy rows of the test file {sorted(stray)[:5]}")
    count = sum(finding.count for finding in found)
    if not len(draft.spoiled) <= count <= len(draft.spoiled | draft.beside):
        wrong.append(f"{code} counts {count} rows, planted {len(draft.spoiled)}")
    listed = named["data"] & draft.spoiled
    least = min(len(draft.spoiled), 10)
    if not named["test"] and not draft.beside and len(listed) < least:
        wrong.append(f"{code} names {len(listed)} of {len(draft.spoiled)} planted rows")
    return wrong


def alarms(findings: list) -> list[str]:
    return [
        f"{f.code} ({f.severity}): {f.title} {f.places[:3]}"
        for f in findings
        if f.severity != "note"
    ]
