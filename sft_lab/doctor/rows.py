"""Station "doctor": what rows show beside each other: bad ones, repeated ones, contradictions, one
answer for all, answers cut at one length, and questions of the exam."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from sft_lab.doctor.twins import LEAST_RUNS, find_runs, find_twins, similarities
from sft_lab.duplicates import WORD
from sft_lab.findings import FIRST_PLACES, Finding
from sft_lab.formats import format_percent
from sft_lab.records import Conversation, RowProblem
from sft_lab.row_files import cause_of, show

FEW_ROWS = 50
NEAR = 0.6  # shared runs of three words over all of both
MOST_CAUSES = 20
CUT_ROWS = 3  # so many answers that end at one length, and in the middle of a sentence, were cut
CUT_CHARACTERS = 60  # a shorter answer is as often a label
# shorter answers of one length are a template's: nobody asks for at most 20 words
LEAST_LIMIT = {"characters": CUT_CHARACTERS, "words": 50, "tokens": 32}


def check_bad_rows(
    problems: Sequence[RowProblem], columns: Mapping[str, int] | None = None
) -> list[Finding]:
    """One finding for each cause, the commonest first. columns: of the good rows, and how many of
    those have each."""
    causes: dict[str, list[RowProblem]] = defaultdict(list)
    for problem in problems:
        causes[cause_of(problem.what)].append(problem)
    groups = sorted(causes.values(), key=len, reverse=True)
    if len(groups) > MOST_CAUSES:
        rest = [problem for group in groups[MOST_CAUSES - 1 :] for problem in group]
        groups = [*groups[: MOST_CAUSES - 1], rest]
    return [_tell_problem(group, columns or {}) for group in groups]


def _tell_problem(group: list[RowProblem], columns: Mapping[str, int]) -> Finding:
    first, places = group[0], [problem.place for problem in group]
    what, advice = _tell_missing(first, columns, alone=len(group) == 1)
    which = "line" if len(group) == 1 else "first at line"
    line = f" ({which} {first.line})" if first.line else ""
    about_rows = ", row " in first.place
    rows = "1 row" if len(group) == 1 else f"{len(group):,} rows"
    title = f"{rows} cannot be read: {what}{line}"
    return Finding(
        "bad-row",
        "error",
        title if about_rows else f"{first.place} cannot be read: {what}",
        places[:FIRST_PLACES],
        len(group) if about_rows else 0,
        "A trainer stops at such a row, or worse, trains on what it makes of it without a word.",
        advice,
    )


def _tell_missing(
    problem: RowProblem, columns: Mapping[str, int], *, alone: bool
) -> tuple[str, str]:
    """What is wrong and what to do; of a missing column that the good rows have, that they have
    it, in place of other shapes."""
    missing, there, rest = problem.what.partition(" is missing; the row has")
    had = [name for name in re.findall(r"'([^']*)'", missing) if columns.get(name)]
    if not there or not had:
        return problem.what, problem.advice
    name = max(had, key=lambda name: columns[name])
    others = count_of(columns[name], "other row")
    advice = f"{others} {'has' if columns[name] == 1 else 'have'} {name!r}"
    write = "Write it, or drop this row." if alone else "Write it, or drop these rows."
    return f"{name!r}{there}{rest}", f"{advice}. {write}"


def check_rows(
    conversations: Sequence[Conversation], count_tokens: Callable[[str], int] | None = None
) -> list[Finding]:
    """What is repeated, contradicts itself, is said too often or was cut. count_tokens: of an
    answer, where there is a tokenizer."""
    findings = [*_check_duplicates(conversations), *_check_conflicts(conversations)]
    findings += _check_one_answer(conversations)
    findings += _check_cut(conversations, count_tokens)
    if 0 < len(conversations) < FEW_ROWS:
        findings.append(
            Finding(
                "few-rows",
                "note",
                f"{count_of(len(conversations), 'row')} to learn from",
                [],
                0,
                "So few teach a form or a tone, seldom a skill, and a part kept back to measure is "
                "too small to show a difference.",
                "Add rows, or repeat the run with several seeds before you believe its result.",
            )
        )
    return findings


def count_of(count: int, noun: str) -> str:
    """1,234 and "row" -> "1,234 rows"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def squeeze(text: str) -> str:
    """What is compared: white space as one space, no full stop or question mark at the end; case
    stays, for "Co" is not "CO"."""
    squeezed = " ".join(unicodedata.normalize("NFC", text).split())
    return squeezed.rstrip(" .?。？") or squeezed


def digest(turns: Sequence[dict], *, folded: bool) -> bytes:
    """The same 16 bytes for turns that say the same. folded: without regard to case."""
    texts = [part for turn in turns for part in (turn["role"], squeeze(turn["content"]))]
    text = "\0".join(texts)
    return blake2b((text.casefold() if folded else text).encode(), digest_size=16).digest()


def _row(turns: Conversation, *, of_the_exam: bool = False) -> str:
    """ "row 17", without the file, which "where" names; "exam.jsonl, row 17" in the exam."""
    name, _, row = turns.place.rpartition(", ")
    return f"{Path(name).name}, {row}" if of_the_exam else row


def _places(conversations: Sequence[Conversation], rows: Sequence[int]) -> list[str]:
    return [conversations[row].place for row in rows[:FIRST_PLACES]]


def _check_duplicates(conversations: Sequence[Conversation]) -> list[Finding]:
    first_row: dict[bytes, int] = {}
    repeated, originals = [], set()
    for row, turns in enumerate(conversations):
        first = first_row.setdefault(digest(turns, folded=True), row)
        if first != row:
            repeated.append(row)
            originals.add(first)
    findings = []
    if repeated:
        one = len(repeated) == 1
        first = _row(conversations[min(originals)]).capitalize()
        findings.append(
            Finding(
                "duplicate",
                "warning",
                f"{count_of(len(repeated), 'row')} repeat{'s' * one} an earlier row, "
                "question and answer",
                _places(conversations, repeated),
                len(repeated),
                "What stands twice weighs twice, and is learned by heart first; a copy that falls "
                f"into the part kept back makes the result look better than it is. {first} is the "
                "first that is repeated.",
                "Keep one of each, unless the weight is meant.",
            )
        )
    alone = np.array(sorted(first_row.values()), dtype=np.int64)
    return findings + _check_twins(conversations, alone)


def _check_twins(conversations: Sequence[Conversation], rows: np.ndarray) -> list[Finding]:
    """Near-duplicates among these rows, which are all different."""
    texts = (
        "\n".join(turn["content"] for turn in conversations[row] if turn["role"] != "system")
        for row in rows.tolist()
    )
    twins = find_twins(find_runs(texts), NEAR)
    if not twins:
        return []
    near = rows[sorted(twins)].tolist()
    one, other = conversations[near[0]], conversations[int(rows[twins[min(twins)]])]
    return [
        Finding(
            "near-duplicate",
            "note",
            f"{count_of(len(near), 'row')} share most of their words with another row",
            _places(conversations, near),
            len(near),
            f"They teach little more than one of them does, and split between training and test "
            f"they leak. {_row(one).capitalize()} and {_row(other)} are the first two. Data "
            "written from templates are full of them.",
            "Look at a few. If they say the same, keep one of each; if they come from templates, "
            "split training and test by what fills the templates.",
        )
    ]


def _check_conflicts(conversations: Sequence[Conversation]) -> list[Finding]:
    """Rows with one question and different answers."""
    rows_of: dict[bytes, list[int]] = defaultdict(list)
    for row, turns in enumerate(conversations):
        rows_of[digest(turns[:-1], folded=False)].append(row)
    conflicting, questions, example = [], 0, ""
    for rows in rows_of.values():
        if len(rows) > 1:
            answers = {squeeze(conversations[row][-1]["content"]).casefold() for row in rows}
            if len(answers) > 1:
                conflicting += rows
                questions += 1
                example = example or _show_conflict(conversations, rows)
    if not conflicting:
        return []
    conflicting.sort()
    meant = len(conflicting) > 0.5 * len(conversations)
    if meant:
        why = "Most questions have several answers, so that is how the data were made."
        remedy = "Nothing, if the variety is meant. For pairs of better and worse use DPO."
    else:
        why = (
            "The model learns all answers, each with its share of probability, and is right by "
            "chance where only one is."
        )
        remedy = "Keep the right answer, or put into the question what tells them apart."
    return [
        Finding(
            "conflict",
            "note" if meant else "warning",
            f"{count_of(len(conflicting), 'row')} give different answers to the same "
            + ("question" if questions == 1 else f"{questions:,} questions"),
            _places(conversations, conflicting),
            len(conflicting),
            f"{why} {example}",
            remedy,
        )
    ]


def _show_conflict(conversations: Sequence[Conversation], rows: list[int]) -> str:
    """A question, and the first two of its rows that answer it differently."""
    first, *others = [conversations[row] for row in rows]
    said = squeeze(first[-1]["content"]).casefold()
    other = next(turns for turns in others if squeeze(turns[-1]["content"]).casefold() != said)
    one, two = (cut_short(turns[-1]["content"]) for turns in (first, other))
    asked = cut_short(_question(first))
    return f"First seen: to {asked} {_row(first)} answers {one}, and {_row(other)} {two}"


def cut_short(text: str, most: int = 60) -> str:
    """The text in quotes, on one line; of a longer one the beginning, with an ellipsis."""
    return repr(text if len(text) <= most else text[:most] + "…")


def _check_one_answer(conversations: Sequence[Conversation]) -> list[Finding]:
    """One answer for more than half of the rows, where the others are seldom alike: not for
    classes, of which one may be common."""
    # thoughts before it make no other answer
    said = [
        squeeze(turns[-1]["content"].rpartition("</think>")[2]).casefold()
        for turns in conversations
    ]
    answers, total = Counter(said), len(conversations)
    if total < 10:
        return []
    [(commonest, count)] = answers.most_common(1)
    others, different = total - count, len(answers) - 1
    if count <= total / 2 or different < 4 or different < 0.5 * others:
        return []
    rows = [row for row, text in enumerate(said) if text == commonest]
    return [
        Finding(
            "one-answer",
            "warning",
            f"{format_percent(count / total)} of the rows, {count:,}, have one answer: "
            f"{show(conversations[rows[0]][-1]['content'])[:60]}",
            _places(conversations, rows),
            count,
            "A model that always says it is right more often than not, and training finds that "
            "first. The other answers are nearly all different, so it is no class.",
            "Keep as many rows with that answer as you want to hear it, or fewer.",
        )
    ]


def is_unfinished(text: str) -> bool:
    """Whether a text ends in the middle of a sentence: with a letter, a digit or a comma."""
    last = text.rstrip()[-1:]
    return last.isalnum() or last in ",，、;；-–'’("


def _is_prose(text: str) -> bool:
    """Whether there are words enough to end in the middle of a sentence."""
    return len(text) >= CUT_CHARACTERS and len(WORD.findall(text)) > 5


def _check_cut(
    conversations: Sequence[Conversation], count_tokens: Callable[[str], int] | None
) -> list[Finding]:
    """Several answers of one greatest length, in characters, words or tokens, of which most do not
    end a sentence, and far more than are of any other length."""
    texts = [turns[-1]["content"] for turns in conversations]
    measures: list[tuple[str, Callable[[str], int]]] = [("characters", len)]
    measures.append(("words", lambda text: len(text.split())))
    if count_tokens:
        measures.append(("tokens", count_tokens))
    longest = max(map(len, texts), default=0)
    large = [row for row, text in enumerate(texts) if 2 * len(text) > longest]
    # only the longest can be cut; tokens are counted of the longest thousand alone
    large = sorted(sorted(large, key=lambda row: -len(texts[row]))[:1000])
    for unit, measure in measures:
        lengths = {row: measure(texts[row]) for row in large}
        most = max(lengths.values(), default=0)
        at_most = [row for row in large if lengths[row] == most]
        cut = [row for row in at_most if is_unfinished(texts[row]) and _is_prose(texts[row])]
        others = [row for row in large if lengths[row] < most]
        if len(cut) < CUT_ROWS or 2 * len(cut) < len(at_most):
            continue
        ends = {texts[row].rstrip()[-12:] for row in cut}
        if most < LEAST_LIMIT[unit] or len(ends) <= 2 < len(cut):
            continue  # nobody's limit; or a template's last words
        piles = Counter(lengths[row] for row in others).values()
        if len(at_most) < 3 * max(piles, default=0):
            continue  # texts of a template, many of which are of one length
        return [_tell_cut(conversations, cut, most, unit)]
    return []


def _tell_cut(
    conversations: Sequence[Conversation], rows: list[int], most: int, unit: str
) -> Finding:
    end = conversations[rows[0]][-1]["content"].rstrip()[-40:]
    return Finding(
        "cut-at-length",
        "warning",
        f"{len(rows):,} answers end at the greatest length of all, {most:,} {unit}, in the middle "
        "of a sentence",
        _places(conversations, rows),
        len(rows),
        "They were cut by a limit when they were generated. With the stop token after the cut, the "
        f"model learns to break off. The first ends with {end!r}.",
        "Generate them again with a larger limit, or drop the rows.",
    )


# an exam


def check_overlap(
    conversations: Sequence[Conversation], test: Sequence[Conversation]
) -> list[Finding]:
    """Questions of an exam that stand among those to learn: the same, and nearly the same."""
    exact, near = _find_overlap(conversations, test)
    findings = []
    if exact:
        findings.append(
            _tell_overlap(
                "test-overlap",
                conversations,
                test,
                exact,
                "stand among the training questions",
                "The model has seen the answers, so the exam shows what it remembers and not what "
                "it can do.",
            )
        )
    if near:
        findings.append(
            _tell_overlap(
                "test-near-overlap",
                conversations,
                test,
                near,
                "are nearly the same as a training question",
                "Whoever remembers the training question answers them, so the exam shows more than "
                "the model can do.",
            )
        )
    return findings


def _tell_overlap(
    code: str,
    conversations: Sequence[Conversation],
    test: Sequence[Conversation],
    pairs: dict[int, list[int]],
    what: str,
    why: str,
) -> Finding:
    asked, (learned, *_) = next(iter(pairs.items()))
    rows = sorted({row for found in pairs.values() for row in found})
    same = code == "test-overlap"
    return Finding(
        code,
        "error" if same else "warning",
        f"{len(pairs):,} of {count_of(len(test), 'test question')} {what}",
        _places(conversations, rows),
        len(rows),
        f"{why} {_row(test[asked], of_the_exam=True)}, for one, {'is' if same else 'is nearly'} "
        f"{_row(conversations[learned])} to learn: {cut_short(_question(test[asked]))}",
        "Take those rows out of the training data, and whatever was made from them.",
    )


def _question(turns: Conversation) -> str:
    """The last question of a conversation, alone."""
    return turns[-2]["content"]


def _find_overlap(
    conversations: Sequence[Conversation], test: Sequence[Conversation]
) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """For each row of the exam that is found: the rows to learn that ask the same, or one that
    nearly does."""
    begun: dict[bytes, list[int]] = defaultdict(list)  # a conversation up to a question
    # a question inside a conversation, if it says enough by itself
    alone: dict[bytes, list[int]] = defaultdict(list)
    for row, turns in enumerate(conversations):
        spoken = [turn for turn in turns if turn["role"] != "system"]
        for end in range(1, len(spoken), 2):
            begun[digest(spoken[:end], folded=True)].append(row)
            if end > 1 and len(WORD.findall(spoken[end - 1]["content"])) > 3:
                alone[digest(spoken[end - 1 : end], folded=True)].append(row)
    exact, left = {}, []
    for row, turns in enumerate(test):
        spoken = [turn for turn in turns[:-1] if turn["role"] != "system"]
        key = digest(spoken, folded=True)
        found = begun.get(key, alone.get(key) if len(spoken) == 1 else None)
        if found is None:
            left.append(row)
        else:
            exact[row] = found
    near = _find_near(conversations, test, left)
    return exact, {row: [other] for row, other in near.items()}


def _find_near(
    conversations: Sequence[Conversation], test: Sequence[Conversation], left: list[int]
) -> dict[int, int]:
    """Those of the test rows `left` that nearly ask what a row to learn asks.

    Two questions from one template share most of their words too. So of two that give the same
    answer, half of their runs must be shared; of others, nearly all, and no name or number may
    differ.
    """
    if not left or not conversations:
        return {}
    questions = [_question(turns) for turns in conversations]
    asked = [_question(test[row]) for row in left]
    runs, count = find_runs(questions + asked), len(questions)
    candidates = _find_candidates(runs.text, runs.run, runs.counts, count)
    answers: dict[bytes, list[int]] = defaultdict(list)
    for row, turns in enumerate(conversations):
        answers[digest(turns[-1:], folded=True)].append(row)
    near: dict[int, int] = {}
    for number, row in enumerate(left):
        same = answers.get(digest(test[row][-1:], folded=True), [])
        few = len(same) <= max(3, 0.01 * count)
        wanted = sorted({*candidates.get(count + number, ()), *(same if few else ())})
        if not wanted:
            continue
        learned = np.array(wanted, dtype=np.int64)
        alike = similarities(runs, learned, np.full(len(learned), count + number))
        for other, similarity in zip(wanted, alike.tolist(), strict=True):
            if _asks_the_same(
                questions[other],
                asked[number],
                similarity,
                few and other in same,
                int(runs.sizes[count + number]),
            ):
                near[row] = other
                break
    return near


def _find_candidates(
    text: np.ndarray, run: np.ndarray, counts: np.ndarray, first_test: int
) -> dict[int, list[int]]:
    """For each text from `first_test` on: those before it with which it shares a run that fewer
    than a hundred texts have."""
    wanted = np.zeros(len(counts), dtype=bool)
    wanted[run[text >= first_test]] = True
    wanted &= counts < 100
    kept = wanted[run]
    text, run = text[kept], run[kept]
    holders: dict[int, list[int]] = defaultdict(list)
    found: dict[int, set[int]] = defaultdict(set)
    for one, shared in zip(text.tolist(), run.tolist(), strict=True):  # texts ascend
        if one < first_test:
            holders[shared].append(one)
        else:
            found[one].update(holders.get(shared, ()))
    return {one: sorted(others) for one, others in found.items()}


def _asks_the_same(one: str, other: str, similarity: float, same_answer: bool, runs: int) -> bool:
    """Whether two questions are one in other words. similarity: of their runs of three words."""
    first, second = WORD.findall(one), WORD.findall(other)
    folded = {word.casefold() for word in first}, {word.casefold() for word in second}
    only = [
        [word for word in found[1:] if word.casefold() not in others]
        for found, others in zip((first, second), folded[::-1], strict=True)
    ]
    # a name or a number in the place of another asks something else
    if all(any(not word.islower() for word in words) for words in only):
        return False
    if not same_answer:
        return similarity >= 0.85 and runs >= 2 * LEAST_RUNS
    share = len(folded[0] & folded[1]) / max(1, len(folded[0] | folded[1]))
    return similarity >= 0.5 or share >= 0.6 and min(map(len, folded)) > 2
