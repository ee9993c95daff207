"""Station "judge": open questions, asked in three ways, and what a program can honestly check.

An open question has no one right answer, so no rule here says whether an answer is good. A rule
says whether it ended, whether it repeats itself, and, where the question asks for it, whether it is
one sentence, names its subject or ends in the right number. An empty answer passes no rule. A rule
that does not apply gives None, shown as "ungraded". tests/test_open_answers.py tries each rule on
answers labelled by hand.
"""

import copy
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.chat import decode_response, generate_ids, stop_token_id
from sft_lab.records import Conversation

RAW = "{% for m in messages %}{{ m.content }}{% endfor %}"
FEW_SHOT = (
    "{% for m in messages %}{% if m.role == 'user' %}Question: {{ m.content }}\nAnswer:"
    "{% else %} {{ m.content }}\n\n{% endif %}{% endfor %}"
)
WAYS = ("raw question", "few shots", "chat template")
RULES = ("ended", "no loop", "one sentence", "names its subject", "right number")
# A full stop, question or exclamation mark that closes a word, and what may follow it.
SENTENCE_END = re.compile(r"[.!?…]+[\"')\]”’]*(?=\s|$)|[。！？]+[”’]*")
ABBREVIATIONS = re.compile(r"\b(?:e\.g|i\.e|etc|vs|Dr|Mr|Mrs|Ms|St|approx|[A-Z])\.(?=\s)")
WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[^\w\s]")  # a Chinese character is a word
LOOP_WORDS, LOOP_TIMES = 4, 3


@dataclass(frozen=True)
class OpenQuestion:
    """A question, and what its answer can be checked for: None or () where no rule is honest."""

    text: str
    one_sentence: bool = False
    subject: tuple[str, ...] = ()
    number: str | None = None


@dataclass(frozen=True)
class OpenAnswer:
    """What a model wrote, and whether it ended by itself: by a stop token or by a line break."""

    text: str
    ended: bool


# The first is the demonstration's own question, word for word.
OPEN_QUESTIONS = (
    OpenQuestion(
        "Give me an 1-sentence introduction of LLM.",
        one_sentence=True,
        subject=("LLM", "LLMs", "large language model", "large language models"),
    ),
    OpenQuestion("Calculate 1 + 1 - 1.", number="1"),
    OpenQuestion(
        "In one sentence, what is supervised fine-tuning?",
        one_sentence=True,
        subject=("fine-tuning", "fine tuning", "SFT"),
    ),
    OpenQuestion(
        "What is the difference between a thread and a process?", subject=("thread", "threads")
    ),
    OpenQuestion("Write a friendly line for a birthday card."),
)
SOLVED = (  # the few shots: three solved questions of the same kinds
    ("In one sentence, what is a compiler?", "A compiler turns source code into machine code."),
    ("Calculate 2 + 5.", "2 + 5 = 7."),
    ("What is the difference between a list and a tuple?", "A list can change, a tuple cannot."),
)


def ask_three_ways(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[OpenQuestion] = OPEN_QUESTIONS,
    *,
    max_new_tokens: int = 60,
) -> dict[str, list[OpenAnswer]]:
    """Greedy answers to every question in each of WAYS.

    A few-shot answer ends at its first line break, as the shots do. That is found in the text: a
    tokenizer may join the break with the full stop before it, so no single token marks it.
    """
    prompts = [question.text for question in questions]
    shots: Conversation = []
    for question, answer in SOLVED:
        shots += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    asked = {
        "raw question": (_with_template(tokenizer, RAW), prompts),
        "few shots": (
            _with_template(tokenizer, FEW_SHOT),
            [[*shots, {"role": "user", "content": prompt}] for prompt in prompts],
        ),
        "chat template": (tokenizer, prompts),
    }
    answers = {}
    for way, (asked_by, conversations) in asked.items():
        rows = generate_ids(model, asked_by, conversations, max_new_tokens=max_new_tokens)
        stops = {stop_token_id(asked_by), asked_by.eos_token_id, asked_by.pad_token_id}
        answers[way] = []
        for ids in rows:
            text, ended = decode_response(ids, asked_by), ids[-1] in stops
            if way == "few shots":
                text, line_break, _ = text.lstrip().partition("\n")
                ended = ended or bool(line_break)
            answers[way].append(OpenAnswer(text.strip(), ended))
    return answers


def grade(question: OpenQuestion, answer: OpenAnswer) -> dict[str, bool | None]:
    """Each of RULES: True, False, or None where the question gives no honest rule. An empty answer
    is False in all that apply: a model that says nothing has neither ended an answer nor kept one
    free of loops."""
    written = bool(answer.text.strip())
    return {
        "ended": written and answer.ended,
        "no loop": written and not repeats_itself(answer.text),
        "one sentence": is_one_sentence(answer.text) if question.one_sentence else None,
        "names its subject": names(answer.text, question.subject) if question.subject else None,
        "right number": ends_in(answer.text, question.number) if question.number else None,
    }


def is_one_sentence(text: str) -> bool:
    """Whether the text is exactly one sentence with its closing mark, on one line."""
    text = ABBREVIATIONS.sub(lambda found: found[0][:-1], text.strip())
    if "\n" in text:
        return False
    ends = [found.end() for found in SENTENCE_END.finditer(text)]
    return ends == [len(text)] and len(WORD.findall(text)) > 2


def names(text: str, subject: Sequence[str]) -> bool:
    """Whether one of the subject's names stands in the text as whole words, in any case."""
    found = (re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) for name in subject)
    return any(found)


def ends_in(text: str, number: str) -> bool:
    """Whether the last number in the text is this one: "1 + 1 - 1 = 1." ends in 1."""
    found = re.findall(r"-?\d+(?:\.\d+)?", text.replace("−", "-"))
    return bool(found) and float(found[-1]) == float(number)


def repeats_itself(text: str) -> bool:
    """Whether one word stands four times in a row, or four words in a row occur three times."""
    words = WORD.findall(text.casefold())
    runs = Counter(
        tuple(words[first : first + LOOP_WORDS]) for first in range(len(words) - LOOP_WORDS + 1)
    )
    same = any(len(set(run)) == 1 for run in runs)
    return same or any(count >= LOOP_TIMES for count in runs.values())


def side_by_side(
    sides: dict[str, dict[str, list[OpenAnswer]]],
    questions: Sequence[OpenQuestion] = OPEN_QUESTIONS,
    *,
    width: int = 88,
) -> str:
    """Every answer with its marks below its question, as text.

    sides: name of a model → what `ask_three_ways` gave. Marks: ✓ and ✗ for each rule that applies;
    "ungraded" where the question has none of its own.
    """
    lines = []
    for index, question in enumerate(questions):
        lines.append(f"\n{question.text}")
        for name, ways in sides.items():
            for way, answers in ways.items():
                answer = answers[index]
                shown = " ".join(answer.text.split()) or "(nothing)"
                shown = shown if len(shown) <= width else shown[: width - 1] + "…"
                lines.append(f"  {name}, {way}")
                lines.append(f"    {shown}")
                lines.append(f"    {_marks(question, answer)}")
    return "\n".join(lines)


def as_rows(answers: dict[str, list[OpenAnswer]]) -> dict[str, list[dict]]:
    """The answers of one model, ready for JSON."""
    return {way: [asdict(answer) for answer in given] for way, given in answers.items()}


def from_rows(rows: dict[str, list[dict]]) -> dict[str, list[OpenAnswer]]:
    """What `as_rows` wrote, as answers again."""
    return {way: [OpenAnswer(**answer) for answer in given] for way, given in rows.items()}


def _marks(question: OpenQuestion, answer: OpenAnswer) -> str:
    graded = grade(question, answer)
    shown = [f"{'✓' if mark else '✗'} {rule}" for rule, mark in graded.items() if mark is not None]
    of_its_own = any(graded[rule] is not None for rule in RULES[2:])
    return "  ".join(shown if of_its_own else [*shown, "content: ungraded"])


def _with_template(tokenizer: PreTrainedTokenizerBase, template: str) -> PreTrainedTokenizerBase:
    other = copy.deepcopy(tokenizer)
    other.chat_template = template
    return other
