"""Station "show": of a reader's own conversations, some are kept back to be asked after training.

An answer to a question that was learned shows what was remembered, and a reference that no answer
can equal shows nothing; so both are looked for before a row is kept back. `keep_back` asks one row
a question; `keep_groups`, derived in chapter 19, keeps whole groups of rows that belong together.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import encode_prompts
from sft_lab.duplicates import near_duplicates, shingles
from sft_lab.metrics import normalise
from sft_lab.records import Conversation
from sft_lab.rendering import encode_text

MOST_QUESTIONS = 2000
# An answer may have as many tokens as the longest reference, within these limits.
NEW_TOKENS, MOST_NEW_TOKENS = 40, 256
NEAR = 0.8  # of their runs of three words: questions as alike as this belong together
MOST_PAIRS = 20_000_000  # looked at; where questions share a form, there are too many
Key = tuple[tuple[str, str], ...]


def keep_back(
    conversations: Sequence[Conversation], why_not: Callable[[Conversation], str], seed: int
) -> tuple[list[int], list[int], Counter[str]]:
    """Indices of what is asked, a tenth of the questions, and of what is learned; and what became
    of other rows that were drawn, in words, with their number.

    Rows with one question stay together, and a question that stands inside a longer conversation is
    not asked. Of the rows with a question that is asked, one is asked and none is learned. why_not:
    what speaks against asking a row, or "". Nothing is asked where no row can be, or where all rows
    have one question.
    """
    rows_of: dict[Key, list[int]] = {}
    inside: set[Key] = set()
    for index, turns in enumerate(conversations):
        *earlier, last = (end for end, turn in enumerate(turns) if turn["role"] == "assistant")
        rows_of.setdefault(_key(turns[:last]), []).append(index)
        inside |= {_key(turns[:end]) for end in earlier}
    order = list(rows_of)
    random.Random(seed).shuffle(order)
    count = min(MOST_QUESTIONS, max(1, len(order) // 10), len(order) - 1)
    asked: list[int] = []
    left_out: set[int] = set()
    notes: Counter[str] = Counter()
    for key in order:
        if len(asked) == count:
            break
        rows = rows_of[key]
        if key in inside:
            reasons = ["stand inside a longer conversation: learned, not asked"] * len(rows)
        else:
            reasons = [why_not(conversations[index]) for index in rows]
        if "" not in reasons:
            notes.update(reasons)
            continue
        asked.append(rows[reasons.index("")])
        left_out.update(rows)
        if len(rows) > 1:
            notes["repeat a question that is asked: neither learned nor asked"] += len(rows) - 1
    learned = [index for index in range(len(conversations)) if index not in left_out]
    return asked, learned, notes


def _key(turns: Conversation) -> Key:
    """The same for prompts that differ in white space, case or final punctuation alone."""
    texts = [(turn["role"], turn["content"]) for turn in turns]
    return tuple((role, normalise(text).casefold() or text) for role, text in texts)


def keep_groups(
    count: int, pairs: Iterable[tuple[int, int]], order: Iterable[int], wanted: int
) -> list[int]:
    """Places of rows to keep back: whole groups, until at least `wanted` rows are kept.

    Rows 0 to count - 1; pairs: rows that belong together, which is passed on: with (0, 3) and
    (3, 5), three rows are one group. Groups come in the `order` of their first row there; one of
    more than `wanted` rows is passed over.
    """
    above = list(range(count))  # a row of the same group, further up; itself at the top

    def top(row: int) -> int:
        while above[row] != row:
            above[row] = row = above[above[row]]
        return row

    for first, second in pairs:
        above[top(first)] = top(second)
    groups: dict[int, list[int]] = {}
    for row in range(count):
        groups.setdefault(top(row), []).append(row)
    kept: list[int] = []
    for row in order:
        group = groups.pop(top(row), [])  # popped: a group is met once
        if len(kept) < wanted and len(group) <= wanted:
            kept += group
    return sorted(kept)


def pair_alike(conversations: Sequence[Conversation]) -> list[tuple[int, int]]:
    """Pairs of rows of which one would give the other away: they ask the same question, one stands
    inside the other, or their questions are nearly the same (see NEAR).

    Near-duplicates are left out where so many questions share their form that comparing them would
    take too long.
    """
    pairs: list[tuple[int, int]] = []
    first: dict[Key, int] = {}
    for index, turns in enumerate(conversations):
        for end, turn in enumerate(turns):
            if turn["role"] == "assistant":
                other = first.setdefault(_key(turns[:end]), index)
                pairs += [(other, index)] if other != index else []
    questions = [
        " ".join(turn["content"] for turn in turns if turn["role"] == "user")
        for turns in conversations
    ]
    holders = Counter(shingle for text in questions for shingle in shingles(text))
    if sum(n * n for n in holders.values()) <= MOST_PAIRS:
        pairs += [(a, b) for a, b, _ in near_duplicates(questions, threshold=NEAR)]
    return pairs


def split_apart(
    conversations: Sequence[Conversation], questions: int, *, seed: int = 0
) -> tuple[list[Conversation], list[Conversation], list[Conversation]]:
    """(learn, validation, test): about `questions` rows in each of the last two, drawn by `seed`;
    rows that give each other away stand in one part."""
    rows = list(conversations)
    pairs, order = pair_alike(rows), list(range(len(rows)))
    random.Random(seed).shuffle(order)
    test = set(keep_groups(len(rows), pairs, order, questions))
    rest = [index for index in order if index not in test]
    validation = set(keep_groups(len(rows), pairs, rest, questions))
    learn = [index for index in range(len(rows)) if index not in test | validation]
    return tuple(
        [rows[index] for index in places] for places in (learn, sorted(validation), sorted(test))
    )


def why_not_asked(
    turns: Conversation, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> str:
    """Why no answer to this row's last question could be judged, in words; "" if one can."""
    most, answer = most_new_tokens(model), turns[-1]
    if not normalise(answer["content"]):
        return "have no word in the answer to compare: learned, not asked"
    if answer.get("weight") == 0:
        return "have an answer that is not to be graded: learned, not asked"
    if longest_answer([turns], tokenizer) >= most:
        return f"have an answer of {most} tokens or more: learned, not asked"
    [prompt] = encode_prompts(tokenizer, [turns[:-1]])
    if len(prompt) + most > positions_of(model):
        return "have a question too long to be answered: learned, not asked"
    return ""


def answer_limit(
    questions: Sequence[Conversation], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> int:
    """The max_new_tokens with which every reference can be written, its stop token included."""
    wanted = max(NEW_TOKENS, 1 + longest_answer(questions, tokenizer))
    return min(wanted, most_new_tokens(model))


def longest_answer(questions: Sequence[Conversation], tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens of the longest reference, without its stop token."""
    return max(len(encode_text(turns[-1]["content"], tokenizer)) for turns in questions)


def most_new_tokens(model: PreTrainedModel) -> int:
    return min(MOST_NEW_TOKENS, positions_of(model) // 2)


def positions_of(model: PreTrainedModel) -> int:
    """How many tokens the model can read and write; one that names no limit has none."""
    return getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize


def commonest_answer(learned: Sequence[Conversation], asked: Sequence[Conversation]) -> tuple:
    """The answer that stands most often in what is learned, and the share of `asked` that it
    answers rightly: what a model reaches that reads no question."""
    answers = Counter(normalise(turns[-1]["content"]) for turns in learned)
    [(commonest, _)] = answers.most_common(1)
    return commonest, sum(normalise(t[-1]["content"]) == commonest for t in asked) / len(asked)
