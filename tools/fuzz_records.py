"""Files as nobody should write them, given to `load_conversations`: rows of all shapes with keys,
types, nesting, bytes and encodings changed at random.

    python tools/fuzz_records.py --files 20000 --seed 0

Each file must give conversations that can be trained on, with every text of the file in them or
named in a warning, or a RecordError that names the file, and the row unless it is about the whole
file. Anything else is printed with the number that makes the file again, and the exit status is 1.
"""

import argparse
import csv
import io
import json
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from sft_lab.records import RecordError, load_conversations
from sft_lab.row_keys import ABOUT, LABELS, MASKS, REASONING, REFUSED, WEIGHTS
from sft_lab.row_shapes import FIELDS

WEIGHING = (*WEIGHTS, *MASKS)
KEYS = [*FIELDS, *WEIGHING, *LABELS, *REASONING, *sorted(REFUSED)]
KEYS += ["id", "source", "notes", "text", "query", "conversation", "role", "content", "from"]
KEYS += ["value", "name", "", " ", "Output", "MESSAGES", "answer ", "回答", "\ud83d", "a" * 300]
ROLES = [
    "system",
    "user",
    "assistant",
    "human",
    "gpt",
    "tool",
    "bot",
    "",
    "User",
    None,
    3,
    ["user"],
]
ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gbk", "latin-1", "utf-32"]
SPLINTERS = [
    b'"',
    b"\\",
    b"\n",
    b"\r\n",
    b"\0",
    b",",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\xff",
    b"\xef\xbb\xbf",
]
SPLINTERS += [
    b'""',
    b"NaN",
    b"\xe2\x80\xa8",
    b"1" * 5000,
    b"[" * 3000,
    b'{"a":' * 3000,
    b"\xed\xa0\xbd",
]
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet")


class Texts:
    """Texts that can be told apart, "⟨7⟩ …"."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.count = rng, 0

    def __call__(self) -> str:
        self.count += 1
        ending = self.rng.choice(["", " a", '"q"', "\nline", "，中文", "🙂", "\u2028", ",", "\t"])
        return f"⟨{self.count}⟩{ending}"


# rows


def make_turns(rng: random.Random, text: Texts) -> list[dict]:
    sharegpt = rng.random() < 0.3
    role, content = ("from", "value") if sharegpt else ("role", "content")
    names = ("human", "gpt") if sharegpt else ("user", "assistant")
    turns = [{role: "system", content: text()}] if rng.random() < 0.2 else []
    for _ in range(rng.randint(1, 3)):
        turns += [{role: name, content: text()} for name in names]
    return turns


def make_row(rng: random.Random, text: Texts) -> dict[str, Any]:
    pairs = [("instruction", "output"), ("instruction", "response"), ("prompt", "response")]
    pairs += [("prompt", "completion"), ("question", "answer")]
    shape = rng.randrange(8)
    if shape < len(pairs):
        row = dict.fromkeys(pairs[shape])
        row = {key: text() for key in row}
        if rng.random() < 0.3:
            row[rng.choice(["input", "context", "system", "thinking"])] = text()
        if rng.random() < 0.2:
            row["history"] = [[text(), text()]]
        return row
    if shape == 5:
        *prompt, last = make_turns(random.Random(rng.random()), text)
        return {"prompt": prompt, "completion": [last]}
    return {rng.choice(["messages", "conversations"]): make_turns(rng, text)}


def make_value(rng: random.Random, text: Texts) -> Any:
    deep: list = []
    for _ in range(rng.choice([3, 1500])):
        deep = [deep]
    makers: list[Callable[[], Any]] = [
        text,
        lambda: rng.choice([None, "", " \n", 0, 1, 0.5, -1, True, False, float("nan")]),
        lambda: rng.choice([10**30, "0", "1", "false", "[]", "{}", "null", "nan", "\ud83d"]),
        lambda: [text(), text()],
        lambda: {"a": text()},
        lambda: [[text(), text()]],
        lambda: make_turns(rng, text),
        lambda: [{"type": "text", "text": text()}],
        lambda: json.dumps(make_turns(rng, text)),
        lambda: rng.choice([deep, [], {}, [[]], [None], text() * rng.choice([1, 20_000])]),
    ]
    return rng.choice(makers)()


def find_holders(value: Any) -> Iterator[dict]:
    """The value's dicts: a row and its turns."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from find_holders(item)
    elif isinstance(value, list) and len(value) > 1:
        for item in value:
            yield from find_holders(item)


def mutate_rows(rows: list, rng: random.Random, text: Texts) -> list:
    """The rows with keys, values and turns changed in one to three places."""
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(rows))
        holders = list(find_holders(rows[place]))
        if not holders or rng.random() < 0.03:
            rows[place] = make_value(rng, text) if rng.random() < 0.5 else [rows[place]]
            continue
        holder = rng.choice(holders)
        keys = list(holder) or [""]
        change = rng.randrange(6)
        if change == 0:
            holder[rng.choice(KEYS)] = make_value(rng, text)
        elif change == 1:
            holder[rng.choice(keys)] = make_value(rng, text)
        elif change == 2:
            holder[rng.choice(KEYS)] = holder.pop(rng.choice(keys), None)
        elif change == 3:
            holder.pop(rng.choice(keys), None)
        elif change == 4:
            holder[rng.choice(["role", "from"])] = rng.choice(ROLES)
        else:
            lists = [value for value in holder.values() if isinstance(value, list) and value]
            for turns in lists:
                turns.insert(rng.randrange(len(turns) + 1), rng.choice(turns))
    return rows


# files


def write_rows(rows: list, suffix: str, rng: random.Random) -> bytes:
    if suffix == ".csv":
        names = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
        names = names or ["question"]
        if rng.random() < 0.02:
            names.append(rng.choice(names))
        file = io.StringIO(newline="")
        writer = csv.writer(file, lineterminator=rng.choice(["\n", "\r\n"]))
        writer.writerow(names)
        for row in rows:
            cells = [row.get(name, "") for name in names] if isinstance(row, dict) else [row]
            cells = ["" if cell is None else cell for cell in cells]
            writer.writerow([c if isinstance(c, str) else _to_json(c) for c in cells])
        return file.getvalue().encode(errors="surrogatepass")
    ascii_only = rng.random() < 0.3
    lines = [_to_json(row, ascii_only) for row in rows]
    if rng.random() < 0.05:  # a key twice
        lines[0] = lines[0].replace("{", '{"output": "⟨0⟩", ', 1)
    text = "[" + ", ".join(lines) + "]" if suffix == ".json" else "\n".join(lines)
    return text.encode(errors="surrogatepass")


def _to_json(value: Any, ascii_only: bool = False) -> str:
    try:
        return json.dumps(value, ensure_ascii=ascii_only)
    except RecursionError:
        return "[" * 3000 + "]" * 3000


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.1:
        text = data.decode(errors="replace")
        return text.encode(rng.choice(ENCODINGS), errors="replace")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice([1, 1, 2, 10, 100]))
        change = rng.randrange(5)
        if change == 0:
            data = data[:at] + data[end:]
        elif change == 1:
            data = data[:at] + rng.choice(SPLINTERS) + data[at:]
        elif change == 2:
            data = data[:at] + bytes([rng.randrange(256)]) + data[end:]
        elif change == 3:
            data = data[:at] + data[at:end] * 2 + data[end:]
        else:
            data = data[:at] if rng.random() < 0.3 else data[:at] + data[at:][:1] * 3 + data[at:]
    return data


def make_source(number: int, seed: int, folder: Path) -> tuple[Any, str]:
    """A file, or the rows that pandas reads from one, and its kind."""
    rng = random.Random(f"{seed} {number}")
    text, suffix = Texts(rng), rng.choices(SUFFIXES, weights=(4, 4, 4, 1))[0]
    rows: list = [make_row(rng, text) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.75:
        rows = mutate_rows(rows, rng, text)
    if suffix == ".parquet":
        return _read_parquet(rows, folder / "x.parquet"), "parquet"
    data = write_rows(rows, suffix, rng)
    if rng.random() < 0.4:
        data = mutate_bytes(data, rng)
    path = folder / f"x{rng.choice([suffix] * 50 + ['.json', '.csv', '.txt', ''])}"
    path.write_bytes(data)
    return path, suffix.removeprefix(".")


def _read_parquet(rows: list, path: Path) -> pd.DataFrame | list:
    """What pandas reads from a Parquet file of the rows; its frame, or the rows themselves, where
    it has no place for them (mixed types, half a character)."""
    source: pd.DataFrame | list = rows
    try:
        source = pd.DataFrame([row if isinstance(row, dict) else {"row": row} for row in rows])
        source.to_parquet(path)
        return pd.read_parquet(path)
    except (ValueError, TypeError, OverflowError, RecursionError, NotImplementedError, OSError):
        return source


# what came of it


def judge(source: Any) -> tuple[str, str]:
    """("read" or "refused", "" or what is wrong with that)."""
    name = str(source) if isinstance(source, Path) else type(source).__name__
    name = "rows" if name == "list" else name
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            conversations = load_conversations(source)
    except RecordError as error:
        return "refused", _judge_error(error, name)
    except Exception as error:  # the very thing that is looked for
        return "broken", f"{type(error).__name__}: {error}"
    for conversation in conversations:
        if wrong := _judge_conversation(conversation, name):
            return "read", wrong
    named = " ".join(str(warning.message) for warning in caught)
    return "read", _find_lost(source, conversations, named)


def _judge_error(error: RecordError, name: str) -> str:
    whole = ("not UTF-8", "no such file", "file type", "the file holds", "the header", "empty, no")
    whole += ("broken JSON at line", "an integer", "JSON nested", "the key")  # no list of rows
    for problem in error.problems:
        about_file = problem.startswith(tuple(f"{name}: {start}" for start in whole))
        if not (problem.startswith(f"{name}, row ") or about_file):
            return f"no file or no row: {problem[:200]}"
        if len(problem) > 1200:
            return f"a problem of {len(problem)} characters: {problem[:200]}"
    return ""


def _judge_conversation(conversation: list, name: str) -> str:
    roles = [turn["role"] for turn in conversation]
    order = (["system"] if roles[0] == "system" else []) + ["user", "assistant"] * len(roles)
    last = conversation[-1]
    if roles != order[: len(roles)] or last["role"] != "assistant" or last.get("weight") == 0:
        return f"no chat: {roles}"
    for turn in conversation:
        if turn.keys() - {"role", "content", "weight", "reasoning_content"}:
            return f"keys {list(turn)}"
        if not isinstance(turn["content"], str) or not turn["content"].strip():
            return f"content {turn['content']!r:.80}"
        turn["content"].encode()  # raises for half a character
    return "" if conversation.place.startswith(f"{name}, row ") else f"place {conversation.place}"


def _find_lost(source: Any, conversations: list, named: str) -> str:
    """A text of the source that is neither in its conversation nor under a key that was named."""
    for row, conversation in zip(_read_again(source), conversations, strict=True):
        # a role once more, under a key that a mutation has made, is no loss
        said = "system user assistant human gpt\n" + "\n".join(
            turn["content"] + turn.get("reasoning_content", "") for turn in conversation
        )
        texts = list(_find_texts(row))
        for path, value in texts:
            if value not in said and (turns := _unpack(value)):
                texts += _find_texts(turns, path)  # judged in their turn
            elif value.strip() not in said and not _is_known(path, str(row)):
                if any(f"{key!r} in" in named for key in path):
                    continue
                return f"{'/'.join(path)} lost: {value!r:.80}"
    return ""


def _is_known(path: tuple[str, ...], row: str) -> bool:
    """Whether a text belongs to a key that is no text, or to a turn that may be left out."""
    keys = [key.casefold() for key in path]
    if any(key in ABOUT or key.endswith("_id") for key in keys):
        return True
    # turns after the last answer to learn are left out
    weighed = any(f"'{key}'" in row.casefold() or f'"{key}"' in row.casefold() for key in WEIGHING)
    return keys[-1] in (*LABELS, *WEIGHING, "role", "from") or weighed and len(path) > 1


def _read_again(source: Any) -> list:
    """The rows of a source that was read, by Python's own readers."""
    if isinstance(source, list):
        return source
    if isinstance(source, pd.DataFrame):
        return source.to_dict("records")
    text = source.read_bytes().decode("utf-8-sig")
    if source.suffix == ".json":
        return json.loads(text)
    if source.suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _unpack(value: str) -> list | None:
    """The list that stands as JSON text in a cell."""
    try:
        inside = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return inside if isinstance(inside, list) else None


def _find_texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The keys that lead to each text of a row that is not blank, and the text."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _find_texts(item, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _find_texts(item, path)
    elif isinstance(value, str) and value.strip() not in ("", "[]", "{}", "null"):
        yield path, value


def fuzz(files: int, seed: int, folder: Path) -> tuple[Counter, list[str]]:
    """Counts of (kind of file, what came of it), and what must not be."""
    counts: Counter = Counter()
    wrong = []
    for number in range(files):
        source, kind = make_source(number, seed, folder)
        outcome, problem = judge(source)
        counts[kind, outcome] += 1
        if problem:
            wrong.append(f"file {number} of seed {seed} ({kind}, {outcome}): {problem}")
    return counts, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        counts, wrong = fuzz(arguments.files, arguments.seed, Path(folder))
    seconds = time.perf_counter() - begin
    print(f"{arguments.files} files of seed {arguments.seed} in {seconds:.0f} s")
    for (kind, outcome), count in sorted(counts.items()):
        print(f"  {kind:8}{outcome:8}{count:7}")
    print("\n".join(wrong[:50]) or "nothing else came of them, and no text was lost")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
