"""First station: Alpaca rows, pairs or messages become conversations, and every bad row is named by
file and row.

A row that is wrong and read all the same is trained on all the same, and the loss will not show it.
So nothing is guessed, dropped or repaired here: one call reports all the bad rows of a file, each
with its likely cause. `row_files` reads the files, `row_keys` lists what else a row can say.
"""

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

from sft_lab.row_files import BadRow, NumberedRow, list_problems, parse_json, read_file, show
from sft_lab.row_keys import (
    REASONING_TAGS,
    ROW_REASONING,
    carries_text,
    check_row_keys,
    is_absent,
    is_read,
    plain,
    read_reasoning,
    read_turn_keys,
    refuse_keys,
    says_nothing,
)
from sft_lab.row_shapes import FIELDS, INPUTS, OPTIONAL, find_shape

# [{"role": "system" | "user" | "assistant", "content": text}, ...]. An answer that is not to be
# learned has "weight": 0 as well, one with thoughts before it has them as "reasoning_content".
Conversation = list[dict[str, Any]]

ROLES = {  # theirs: ours; "human" and "gpt" are ShareGPT's
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
IN_A_TURN = " in a turn"
EMPTY = "empty, no row to read. Did the step that wrote it finish?"
FOLLOWERS = {  # the roles that may come after a role; None stands for the beginning
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user",),
}


class Turn(NamedTuple):
    """A turn as it is read, before it is checked. text: of any type. name: what an error calls the
    text. extra: what the conversation's turn has beside its role and its content."""

    role: str
    text: Any
    name: str
    extra: dict[str, Any] = {}


class ReadConversation(list):
    """A Conversation, equal to the plain list, that knows its `place`, "data.jsonl, row 20": an
    error can name the row of the file also after shuffling and cutting."""

    def __init__(self, turns: Conversation, place: str):
        super().__init__(turns)
        self.place = place


class RowRead(NamedTuple):
    """A good row. columns: its own; unread: those, and the keys of its turns, that hold text and
    are not read."""

    conversation: ReadConversation
    columns: Set[str]
    unread: list[str]


class RowProblem(NamedTuple):
    """A bad row, or a bad file: its place, what is wrong, what to do, the line of the file."""

    place: str
    what: str
    advice: str
    line: int | None
    unread: list[str]

    def __str__(self) -> str:
        line = f" (line {self.line})" if self.line else ""
        return f"{self.place}: {self.what}{line}. {self.advice}"


def load_conversations(
    source: str | Path | Iterable, *, columns: dict[str, str] | None = None
) -> list[Conversation]:
    """One conversation a row: an optional system turn, then user and assistant by turns, the
    assistant last.

    source: path to a .json (list of rows), .jsonl or .csv file in UTF-8, a list of rows, or a
    datasets.Dataset. columns: our field names to the file's, {"instruction": "q", "output": "a"};
    also settles which shape is meant. Each row is judged by its own columns. The shapes:
    - pairs: instruction + output (Alpaca), instruction + response (Dolly), prompt + response,
      question + answer, prompt + completion (texts, or lists of messages as in TRL, where only the
      completion is learned); optional input or context, and history ([[question, answer], ...]). As
      in LLaMA-Factory the user turn is question + "\\n" + input, or the question alone where the
      input is absent.
    - messages: [{"role", "content"}, ...], or ShareGPT's conversations: [{"from": "human" | "gpt",
      "value"}, ...]. An answer with weight 0 (or train or loss false) is read and not learned;
      thoughts beside it (reasoning_content, thinking) are learned as its template writes them.
    - with any of them: optional system. Lists may stand as JSON text, the only way a CSV cell can
    hold one. Texts are never changed. A blank, None or nan optional field is absent: CSV, Arrow and
    pandas fill columns so.
    `row_keys` lists what else a row may say, and what is refused: tools, pictures, preferences. A
    column that no one knows and that holds text is named by one warning, with how many rows have
    it. What follows the last answer to learn is left out.
    Raises RecordError naming every bad row, or why the file cannot be read. Rows and turns count
    from 1 (the header of a CSV is no row), lines count header and blank lines too, byte offsets
    begin at 0.
    """
    conversations, problems, unread, seen = [], [], Counter(), set()
    # every row is read although one was bad: who mends a file wants all that is wrong with it
    for read in read_rows(source, columns=columns):
        if isinstance(read, RowProblem):
            problems.append(str(read))
        else:
            conversations.append(read.conversation)
            seen |= read.columns
        unread.update(read.unread)
    name = name_source(source)
    if not problems and not conversations:
        problems.append(f"{name}: {EMPTY}")
    elif not problems and (missing := sorted({*(columns or {}).values()} - seen)):
        problems.append(f"{name}: columns names {missing}, which no row has. Mend the name.")
    if problems:
        raise RecordError(problems)
    if unread:
        warnings.warn(f"{name}: {list_unread(unread, len(conversations))}", stacklevel=2)
    return conversations


def read_rows(
    source: str | Path | Iterable, *, columns: dict[str, str] | None = None
) -> Iterator["RowRead | RowProblem"]:
    """Every row as `load_conversations` reads it, the good ones and the bad ones in their order.

    Raises RecordError, at the first row, for a source that is none and for `columns` that mean
    nothing; what is wrong with a file as a whole comes as a RowProblem.
    """
    columns = _check_columns(columns or {})
    name, rows = name_source(source), _open(source)
    for row_number, line, row in rows:
        place, ignored = f"{name}, row {row_number}" if row_number else name, set()
        try:
            conversation = ReadConversation(_read_row(row, columns, ignored), place)
        except (BadRow, RecursionError) as error:
            yield RowProblem(place, *_explain(error, line), line, sorted(ignored))
        else:
            yield RowRead(conversation, row.keys(), sorted(ignored))


def _explain(error: BadRow | RecursionError, line: int | None) -> tuple[str, str]:
    """What is wrong with a row, and what to do. line: of its file, None for no file."""
    if isinstance(error, BadRow):
        what, advice = error.args
        return what, advice
    if line:  # no file can hold a list that holds itself
        return "lists nested too deep", "A row is flat. Likely brackets were repeated."
    return "lists nested too deep", "Likely one holds itself."


def list_unread(unread: Counter, total: int) -> str:
    """The columns, and the keys of turns, that are not read, each with its number of rows."""
    columns, turns = [], []
    for key, count in unread.most_common():
        listed = turns if key.endswith(IN_A_TURN) else columns
        listed.append(f"{key} in {count} of {total} rows")
    parts = []
    if columns:
        parts.append(
            f"not read, though it holds text: {', '.join(columns)}. If one belongs to the "
            "question: columns={'input': its name}"
        )
    if turns:
        parts.append(
            f"not read: {', '.join(turns)}. Of a turn only role, content, weight and thoughts are"
        )
    return ". ".join(parts)


def _check_columns(columns: dict[str, str]) -> dict[str, str]:
    if unknown := [field for field in columns if field not in FIELDS]:
        raise RecordError(
            [f"columns: {unknown} not known. It maps our names, {list(FIELDS)}, to the file's."]
        )
    names = list(columns.values())
    if wrong := [name for name in names if not isinstance(name, str) or names.count(name) > 1]:
        raise RecordError(
            [f"columns: {wrong} must be the names of columns, each given to one field"]
        )
    return dict(columns)


def name_source(source: Any) -> str:
    """What errors call a source: the path of a file, or what kind of thing it is."""
    if isinstance(source, str | Path):
        return f"{source!s:.255}"
    return "rows" if isinstance(source, list) else type(source).__name__


def _open(source: Any) -> Iterator[NumberedRow]:
    """The rows of a source."""
    if isinstance(source, str | Path):
        return read_file(Path(source))
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        raise RecordError(
            [
                f"source: {show(source)} is not a path, a list of rows or a dataset. Choose one "
                'split of a DatasetDict (data["train"]); put a single row into a list.'
            ]
        )
    # pandas gives its column names
    if type(source).__name__ == "DataFrame" and hasattr(source, "iterrows"):
        if not source.columns.is_unique:
            twice = source.columns[source.columns.duplicated()].tolist()
            raise RecordError([f"DataFrame: columns named twice, {show(twice)}. Rename one."])
        source = source.to_dict("records")
    return ((number, None, row) for number, row in enumerate(source, start=1))


def _read_row(row: Any, columns: dict[str, str], unread: set[str]) -> Conversation:
    """The conversation of one row, or BadRow. Adds to `unread` what the row says beside it."""
    if isinstance(row, BadRow):
        raise row
    if not isinstance(row, Mapping):
        raise BadRow(
            f"the row is {show(row)}, not an object",
            "A row is {column: value}; a list of rows is .json.",
        )
    if odd := [column for column in row if not isinstance(column, str)]:
        raise BadRow(f"a column is named {show(odd[0])}, not by a text", "Give it a name.")
    row = plain(row)
    # our field -> the row's column; a column that `columns` gives to another field is no field by
    # its own name
    names = {
        field: columns.get(field, field)
        for field in FIELDS
        if field in columns or field not in columns.values()
    }
    others = {column: value for column, value in row.items() if column not in names.values()}
    chosen = bool(columns.keys() - {*OPTIONAL})  # the reader has said which text is what
    check_row_keys(others, chosen)
    thoughts = read_reasoning(others, "the row", ROW_REASONING)
    fields = {field: row[name] for field, name in names.items() if name in row}
    shape = find_shape(row, fields, columns)
    turns, used = _read_turns(shape, fields, names, thoughts, unread)
    rest = {names[field]: value for field, value in fields.items() if field not in used}
    texts = {turn.text.strip() for turn in turns if isinstance(turn.text, str)}
    for column, value in (rest | others).items():
        if is_absent(value) or isinstance(value, str) and value.strip() in texts:
            continue  # ultrachat has the first question once more, as its prompt
        if column in rest and not chosen:
            raise BadRow(
                f"{column!r}, {show(value)}, would be lost: a row of {' and '.join(shape)} has no "
                "place for it",
                "Put it into their text, drop it, or choose "
                f"columns={ {field: names[field] for field in shape} }.",
            )
        if column in rest or carries_text(value) and not is_read(column, value, ROW_REASONING):
            unread.add(repr(column))
    return _check_turns(turns)


def _read_turns(
    shape: tuple[str, ...],
    fields: dict[str, Any],
    names: dict[str, str],
    thoughts: str,
    unread: set[str],
) -> tuple[list[Turn], set[str]]:
    """The turns of a row of this shape, and the fields that went into them."""
    given = {field for field in OPTIONAL if not is_absent(fields.get(field))}
    inputs = [field for field in INPUTS if field in given]
    turns, used = [], {*shape}
    if "system" in given:
        turns.append(Turn("system", fields["system"], repr(names["system"])))
        used.add("system")
    if len(shape) == 2 and "history" in given:
        turns += _read_history(fields["history"], names["history"])
        used.add("history")
    trl = "completion" in shape and isinstance(fields["prompt"], str)
    trl = trl and _holds_turns(fields["prompt"])  # JSON text in a CSV cell
    for field, role in zip(shape, ("user", "assistant"), strict=False):
        text, name = fields[field], repr(names[field])
        if trl and isinstance(text, str) and _holds_turns(text):
            text = parse_json(text)
        # one list of all turns, or TRL's prompt and completion, each a list of turns
        if len(shape) == 1 or "completion" in shape and isinstance(text, list):
            # TRL learns the completion alone, whatever answers stand in its prompt
            learned = len(shape) == 1 or role == "assistant"
            turns += _read_messages(_read_list(text, name), name, learned, unread)
            continue
        if role == "user" and len(inputs) == 1:
            given_input = _check_text(fields[inputs[0]], repr(names[inputs[0]]))
            text = _check_text(text, name) + "\n" + given_input
            used.add(inputs[0])
        extra = {}
        if role == "assistant" and thoughts:
            extra, thoughts = {"reasoning_content": thoughts}, ""
        turns.append(Turn(role, text, name, extra))
    if thoughts:
        raise BadRow("the thoughts stand beside a list of turns", "Put them into their turn.")
    if "system" in given and [turn.role for turn in turns[1:2]] == ["system"]:
        return _join_systems(turns), used
    return turns, used


def _join_systems(turns: list[Turn]) -> list[Turn]:
    """The turns without the first, the row's system text, where their own says the same."""
    (_, beside, name, _), (_, own, own_name, _), *_ = turns
    if beside == own:
        return turns[1:]
    raise BadRow(
        f"two system turns: the column {name} is {show(beside)}, {own_name} is {show(own)}",
        "Keep one of them.",
    )


def _read_history(history: Any, column: str) -> list[Turn]:
    """The earlier rounds of an Alpaca row, [[question, answer], ...], as LLaMA-Factory has them,
    which learns their answers too."""
    turns = []
    for number, pair in enumerate(_read_list(history, repr(column)), start=1):
        name = f"pair {number} of {column!r}"
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRow(
                f"{name} is {show(pair)}, not [question, answer]",
                "An earlier round is two texts.",
            )
        question, answer = pair
        turns.append(Turn("user", question, f"the question in {name}"))
        turns.append(Turn("assistant", answer, f"the answer in {name}"))
    return turns


def _read_messages(messages: list, name: str, learned: bool, unread: set[str]) -> list[Turn]:
    """Turns from {"role", "content"}, or ShareGPT's {"from", "value"}. learned: False for a list
    whose answers are only read, never learned."""
    turns = []
    for number, turn in enumerate(messages, start=1):
        which = f"turn {number} of {name}"
        # Arrow fills the keys that only other rows have with None
        sharegpt = isinstance(turn, Mapping) and turn.get("from") is not None
        role_key, text_key = ("from", "value") if sharegpt else ("role", "content")
        rest = {}
        if isinstance(turn, Mapping):
            rest = {key: turn[key] for key in turn if key not in (role_key, text_key)}
            refuse_keys(rest, which)  # first: a tool call has no content
        if not isinstance(turn, Mapping) or not turn.keys() >= {role_key, text_key}:
            raise BadRow(
                f"{which} is {show(turn)}, without {role_key!r} and {text_key!r}",
                "Every turn needs both.",
            )
        role = turn[role_key]
        if not isinstance(role, str) or role not in ROLES:
            raise BadRow(
                f"{which} has the unknown role {show(role)}", f"Known: {list(ROLES)}; no tools."
            )
        extra = read_turn_keys(rest, which, ROLES[role] == "assistant", learned)
        turns.append(Turn(ROLES[role], turn[text_key], f"{text_key!r} in {which}", extra))
        unread |= {
            f"{key!r}{IN_A_TURN}"
            for key, value in rest.items()
            if not is_read(key, value) and not says_nothing(value)
            if value not in (role, turn[text_key])
        }
    return turns


def _holds_turns(text: str) -> bool:
    """Whether a text is the JSON text of a list of turns."""
    try:
        turns = parse_json(text) if text.lstrip().startswith("[") else None
    except BadRow:
        return False
    return bool(turns) and all(
        isinstance(turn, dict) and turn.keys() & {"role", "from"} for turn in turns
    )


def _check_turns(turns: list[Turn]) -> Conversation:
    """Turns in an order that a chat can have, as a conversation that ends with an answer to learn:
    nothing is learned from what follows the last one."""
    conversation, before, learned = [], None, 0
    for number, (role, text, name, extra) in enumerate(turns, start=1):
        if role not in FOLLOWERS[before]:
            what = {"system": "the system turn is not first", before: f"two {role} turns in a row"}
            raise BadRow(
                f"{what.get(role, 'an answer before any question')}: turn {number} is {role} "
                f"after {before}",
                "Likely a turn was lost or moved, or one text was cut in two.",
            )
        conversation.append({"role": role, "content": _check_text(text, name), **extra})
        if "reasoning_content" in extra:
            _check_text(extra["reasoning_content"], f"the reasoning beside {name}")
            if any(tag in text for tag in REASONING_TAGS):
                raise BadRow(f"{name} holds thoughts, and more stand beside it", "Keep one.")
        if role == "assistant" and extra.get("weight", 1):
            learned = number
        before = role
    if before != "assistant":
        raise BadRow(
            f"the answer is missing: the last turn is {before or 'not there'}",
            "Add it, or drop the row.",
        )
    if not learned:
        raise BadRow("no answer is to be learned: each has weight 0", "Drop the row.")
    return conversation[:learned]


def _check_text(value: Any, name: str) -> str:
    """The text, unchanged, if it is one that a tokenizer can read and a model can learn from."""
    if not isinstance(value, str):
        advice = "Write it as text, in quotes, or drop the row."
        if is_absent(value):
            advice = "That is usually an empty cell: write the text or drop the row."
        if isinstance(value, list):  # of parts, as models that see pictures have it
            advice = "Of a list of parts, join the texts; a picture cannot be read here."
        raise BadRow(f"{name} is {show(value)}, not a text", advice)
    if not value.strip():
        raise BadRow(f"{name} is empty", "Write the text or drop the row.")
    # half of a surrogate pair is no character: a tokenizer would crash on it
    if value.encode(errors="ignore") != value.encode(errors="surrogatepass"):
        raise BadRow(
            f"{name} holds half a character: {show(value)}",
            "Likely the text was cut inside an emoji.",
        )
    return str(value)  # numpy has texts of its own


def _read_list(value: Any, name: str) -> list:
    """A list, or its JSON text, the only form that a CSV cell has for one."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = parse_json(value)
        except BadRow as bad:
            what, advice = bad.args
            raise BadRow(f"{name}: {what}", advice) from None
    if not isinstance(value, list):
        raise BadRow(
            f"{name} is {show(value)}, not a list", "In a CSV cell, write it with json.dumps."
        )
    return value


class RecordError(ValueError):
    """Bad data. `.problems` holds every problem, one text each; the message names the first 20
    causes, each once."""

    def __init__(self, problems: list[str]):
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return list_problems(self.problems)
