"""Station "show": of a reader's own conversations, some are kept back to be asked after training.

An answer to a question that was learned shows what was remembered, and a reference that no answer
can equal shows nothing; so both are looked for before a row is kept back.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import encode_prompts
from sft_lab.metrics import normalise
from sft_lab.records import Conversation
from sft_lab.rendering import encode_text

MOST_QUESTIONS = 2000
# An answer may have as many tokens as the longest reference, within these limits.
NEW_TOKENS, MOST_NEW_TOKENS = 40, 256
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
