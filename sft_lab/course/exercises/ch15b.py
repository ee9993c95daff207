"""Chapter 15b: looking up. Fresh words, scores, talks and passages at every check."""

import contextlib
import io
import math
import numbers
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

from sft_lab.course.exercises.kit import (
    Mistake,
    checks,
    need_list,
    need_number,
    same_for_all,
    shorten,
    unpack,
)
from sft_lab.course.lookup_runs import (
    facts_by_part,
    note_rows,
    say_all,
    share,
)
from sft_lab.course.short_runs import tune_on
from sft_lab.documents import PLAIN, QUESTIONS
from sft_lab.facts import Fact
from sft_lab.invented import made_up_name
from sft_lab.metrics import is_right
from sft_lab.models import load
from sft_lab.retrieval import (
    FUNCTION_WORDS,
    Passage,
    PassageStore,
    retrieve,
    split_words,
    write_prompt,
)

MOST_WORDS = 30
ASKED = 160
FOUND_AT_LEAST, RIGHT_AT_LEAST = 0.95, 0.7


# 15b.1


@checks("15b.1")
def score_bm25(attempt: Callable) -> str:
    same_for_all(
        attempt,
        _stores(),
        _bm25,
        [
            (
                lambda p, q: _bm25(p, list(dict.fromkeys(q))),
                "a word that the question says twice counts twice",
            ),
            (lambda p, q: _bm25(p, q, b=0.0), "the length of the passage is missing: b = 0.75"),
            (
                lambda p, q: _bm25(p, q, k1=0.0),
                "how often the word stands in the passage is missing: k1 = 1.5",
            ),
            (lambda p, q: _bm25(p, q, floor=None), "a negative idf is not replaced"),
            (
                lambda p, q: _bm25(p, q, floor=0.0),
                "a negative idf becomes a quarter of the mean idf, not 0",
            ),
            (
                lambda p, q: _bm25(p, q, smooth=True),
                "this idf is the one of TF-IDF: BM25 has ln((N − n + 0.5) / (n + 0.5))",
            ),
            (
                lambda p, q: _bm25(p, q, top=False),
                "the factor k1 + 1 above the fraction is missing",
            ),
            (
                lambda p, q: _bm25(p, q, once=True),
                "n counts passages that hold the word, not how often it stands in all of them",
            ),
            (
                lambda p, q: _bm25(p, q, mean_of_all=True),
                "the mean of the idfs is that before any of them is replaced",
            ),
        ],
        form=lambda found: [
            need_number(x, "a score") for x in need_list(found, (float, int), "scores")
        ],
        what="the list of scores",
    )
    return "equal to rank-bm25's formula on random stores, with words that most passages hold"


def _stores() -> list[tuple[list[list[str]], list[str]]]:
    """Stores and questions: a word that all, exactly half and no passage holds; a word twice in
    the question; passages of unequal length; one passage alone."""
    drawn = []
    for size in (4, 6, 8):
        words = list(dict.fromkeys(made_up_name(random) for _ in range(14)))
        every, half, rare, absent, often = words[:5]
        passages = []
        for place in range(size):
            passage = [every, *random.choices(words[5:], k=random.randint(1, 9))]
            passage += [half] * (place % 2) + [rare] * (2 if place == 1 else 0)
            passage += [often] * (place > 0)  # in more than half of them
            random.shuffle(passage)
            passages.append(passage)
        passages.append(list(passages[0]))  # two equal passages; an odd number of them
        drawn.append((passages, [every, rare, rare, absent, often]))
        drawn.append((passages[:-1], [half, rare, rare, often]))
    return [*drawn, ([["ba", "ba", "do"]], ["ba"])]


def _bm25(
    passages: Sequence[Sequence[str]],
    question: Sequence[str],
    *,
    k1: float = 1.5,
    b: float = 0.75,
    floor: float | None = 0.25,
    smooth: bool = False,
    top: bool = True,
    once: bool = False,
    mean_of_all: bool = False,
) -> list[float]:
    """BM25 and, by its settings, the usual mistakes."""
    size = len(passages)
    holders = Counter(word for passage in passages for word in (passage if once else set(passage)))
    idf = {word: math.log((size - n + 0.5) / (n + 0.5)) for word, n in holders.items()}
    if smooth:
        idf = {word: math.log((1 + size) / (1 + n)) + 1 for word, n in holders.items()}
    kept = [max(x, 0.0) for x in idf.values()] if mean_of_all else list(idf.values())
    mean = math.fsum(kept) / len(kept)
    if floor is not None:
        idf = {word: floor * mean if x < 0 else x for word, x in idf.items()}
    length = sum(map(len, passages)) / size
    scores = []
    for passage in passages:
        score = 0.0
        for word in question:
            tf = passage.count(word)
            below = tf + k1 * (1 - b + b * len(passage) / length)
            if tf:
                score += idf[word] * tf * ((k1 + 1) if top else 1) / below
        scores.append(score)
    return scores


# 15b.2


@checks("15b.2")
def rank_fairly(attempt: Callable) -> str:
    same_for_all(
        attempt,
        _scored(),
        _recall_and_rank,
        [
            (
                lambda s, r, k: _recall_and_rank(s, r, k, ties="best"),
                "a passage with an equal score counts as ahead: ties are no luck",
            ),
            (
                lambda s, r, k: _recall_and_rank(s, r, k, ties="order"),
                "of equal scores the earlier place is no reason: every equal one counts as ahead",
            ),
            (
                lambda s, r, k: _recall_and_rank(s, r, k, low_first=True),
                "the highest score comes first",
            ),
            (
                lambda s, r, k: _recall_and_rank(s, r, k, cut=True),
                "the reciprocal rank counts beyond k too",
            ),
            (
                lambda s, r, k: (_recall_and_rank(s, r, k)[0], _mean_rank(s, r)),
                "this is 1 / the mean rank: take the mean of 1 / rank",
            ),
        ],
        form=lambda found: [
            need_number(x, name)
            for x, name in zip(
                unpack(found, "recall at k", "the mean reciprocal rank"),
                ("recall at k", "the mean reciprocal rank"),
                strict=True,
            )
        ],
        what="(recall at k, mean reciprocal rank)",
    )
    return "equal scores count as ahead; 1 / rank is averaged over all questions"


def _scored() -> list[tuple[list[list[float]], list[int], int]]:
    tied = [[0.5, 0.5, 0.1], [0.3, 0.9, 0.9], [0.0, 0.0, 0.0], [0.7, 0.2, 0.1]]
    drawn = [(tied, [0, 2, 1, 0], 1), (tied, [1, 1, 0, 2], 2), ([[0.4]], [0], 1)]
    for count in (5, 8):
        scores = [[random.randint(0, 6) / 4 for _ in range(6)] for _ in range(count)]
        right = [random.randrange(6) for _ in range(count)]
        scores.append([1.0, 1.0, 0.5, 0.5, 0.5, 0.0])
        drawn += [(scores, [*right, 3], k) for k in (1, 3, 5)]
    return drawn


def _recall_and_rank(
    scores: Sequence[Sequence[float]],
    right: Sequence[int],
    k: int,
    *,
    ties: str = "worst",
    low_first: bool = False,
    cut: bool = False,
) -> tuple[float, float]:
    ranks = []
    for row, place in zip(scores, right, strict=True):
        own = row[place]
        if low_first:
            row, own = [-x for x in row], -own
        ahead = sum(x > own for x in row)
        if ties == "worst":
            ahead += sum(x == own for x in row) - 1
        elif ties == "order":
            ahead += sum(x == own for x in row[:place])
        ranks.append(ahead + 1)
    found = [rank <= k for rank in ranks]
    reciprocal = [1 / rank if not cut or rank <= k else 0.0 for rank in ranks]
    return sum(found) / len(ranks), math.fsum(reciprocal) / len(ranks)


def _mean_rank(scores: Sequence[Sequence[float]], right: Sequence[int]) -> float:
    ranks = [sum(x >= row[place] for x in row) for row, place in zip(scores, right, strict=True)]
    return len(ranks) / sum(ranks)


# 15b.3


@checks("15b.3")
def swap_passages(attempt: Callable) -> str:
    for entities in _entities():
        given = f"entities = {shorten(entities, 100)}"
        places = need_list(attempt(list(entities)), numbers.Integral, f"places, for {given}")
        found = [int(place) for place in places]
        if sorted(found) != list(range(len(entities))):
            raise Mistake(
                f"each passage is used exactly once: the result is the places 0 to "
                f"{len(entities) - 1} in another order, not {shorten(found)}, for {given}"
            )
        for place, other in enumerate(found):
            if entities[place] == entities[other]:
                raise Mistake(
                    f"question {place} is about {entities[place]} and gets passage {other}, which "
                    f"is about {entities[other]} as well: this control would answer it, for {given}"
                )
    return "every passage used once, none about its question's own entity"


def _entities() -> list[list[str]]:
    """Groups that stand together, apart, and that are half of all; one pair; nothing."""
    names = list(dict.fromkeys(made_up_name(random) for _ in range(40)))[:8]
    blocks = [name for name in names[:4] for _ in range(3)]
    half = [names[0]] * 5 + names[1:6]
    turns = names[:3] * 3 + [names[0], names[1]]
    drawn = [[], names[:2], names[:3], blocks, half, turns, [*half[::-1]]]
    for _ in range(3):
        mixed = blocks + names[4:]
        random.shuffle(mixed)
        drawn.append(mixed)
        mixed = [names[0]] * 4 + [names[1]] * 3 + [names[2]]
        random.shuffle(mixed)
        drawn.append(mixed)
    return drawn


# 15b.4


@checks("15b.4")
def find_faults(attempt: Callable) -> str:
    same_for_all(
        attempt,
        _outcomes(),
        _faults,
        [
            (
                lambda w, f, r: _faults(w, [ids[:1] for ids in f], r),
                "any of the retrieved passages may be the right one, not the first alone",
            ),
            (
                lambda w, f, r: _faults(w, f, r, luck=False),
                "a right answer without the right passage is luck, not reading",
            ),
            (
                lambda w, f, r: _faults(w, f, r, swapped=True),
                "a right passage and a wrong answer: the reading failed, not the search",
            ),
            (
                lambda w, f, r: {k: x / max(1, len(w)) for k, x in _faults(w, f, r).items()},
                "return counts, not shares",
            ),
            (
                lambda w, f, r: {k: x for k, x in _faults(w, f, r).items() if x},
                "all four words are keys, also those that count 0",
            ),
        ],
        what="the counts",
    )
    return "search and reading told apart; luck is counted by itself"


def _outcomes() -> list[tuple[list[str], list[list[str]], list[bool]]]:
    ids = [f"{name}/capital" for name in dict.fromkeys(made_up_name(random) for _ in range(12))]
    fixed = [
        ([ids[0]] * 4, [[ids[1], ids[0]], [ids[1]], [ids[0]], []], [True, True, False, False]),
        ([], [], []),
        (ids[:2], [[ids[2], ids[0], ids[3]], [ids[1]]], [False, True]),
        (ids[:3], [[ids[5]], [], [ids[6], ids[7]]], [True, False, False]),
    ]
    for _ in range(3):
        wanted = random.choices(ids, k=15)
        found = [random.sample(ids, 4) for _ in wanted]
        fixed.append((wanted, found, [random.random() < 0.5 for _ in wanted]))
    return fixed


def _faults(
    wanted: Sequence[str],
    found: Sequence[Sequence[str]],
    right: Sequence[bool],
    *,
    luck: bool = True,
    swapped: bool = False,
) -> dict[str, int]:
    counts = {"read": 0, "lucky": 0, "not found": 0, "not read": 0}
    for passage, ids, ok in zip(wanted, found, right, strict=True):
        hit = passage in ids
        if ok:
            counts["read" if hit or not luck else "lucky"] += 1
        else:
            counts["not read" if hit != swapped else "not found"] += 1
    return counts


# 15b.6


@checks("15b.6")
def judge_citation(attempt: Callable) -> str:
    same_for_all(
        attempt,
        _citations(),
        _judge,
        [
            (
                lambda a, p: _judge(a, p, whole=False),
                "compare whole words: Niger does not stand in Nigeria",
            ),
            (
                lambda a, p: _judge(a, p, all_words=True),
                "words of FUNCTION_WORDS need not stand in the passage",
            ),
            (
                lambda a, p: _judge(a, p, any_passage=True),
                "the cited passage must bear it out, not any other",
            ),
            (
                lambda a, p: _judge(a, p, some=True),
                "every word of the answer must stand in the passage, not some",
            ),
            (
                lambda a, p: _judge(a, p, anywhere=True),
                "a citation stands at the end: brackets elsewhere are text",
            ),
            (
                lambda a, p: _judge(a.rstrip(" ."), p),
                "`]` must be the last character: a full stop or a blank after it is text",
            ),
            (
                lambda a, p: _judge(a, p, only_id=True),
                "a passage that exists may still say something else",
            ),
        ],
        what="the word",
    )
    return "invented sources, and real ones that do not bear out the answer"


def _citations() -> list[tuple[str, dict[str, str]]]:
    names = list(dict.fromkeys(made_up_name(random) for _ in range(30)))[:9]
    land, city, other, town, longer = names[0], names[1], names[2], names[3], names[0] + "ra"
    passages = {
        f"{land}/capital": f"For {land}, the capital is {city}.",
        f"{other}/capital": f"We know that {town} is the capital of {other}.",
        f"{longer}/capital": f"{longer}: the capital is {city}.",
        f"{land}/currency": f"The currency of {land} is the {names[5]}.",
    }
    right = f"The capital of {land} is {city}."
    wrong = f"The capital of {land} is {town}."
    said = [
        f"{right} [{land}/capital]",
        f"{right} [{land}/young]",
        f"{right} [{other}/capital]",
        f"{right} [{longer}/capital]",
        f"{wrong} [{land}/capital]",
        right,
        f"The capital [of {land}] is {city}.",
        f"The capital [{land}/capital] of {land} is {town}.",
        f"The [old] capital of {land} is {city}. [{land}/capital]",
        f"The currency of {land} is the {names[5]}. [{land}/currency]",
        f"{right} [{land.upper()}/capital]",
        f"{city.upper()} is the capital of {land}. [{land}/capital]",
        *(f"{right} [{land}/capital]{end}" for end in (".", " ", " (so)")),  # not the last
    ]
    return [(text, dict(passages)) for text in said]


def _judge(
    answer: str,
    passages: dict[str, str],
    *,
    whole: bool = True,
    all_words: bool = False,
    any_passage: bool = False,
    some: bool = False,
    anywhere: bool = False,
    only_id: bool = False,
) -> str:
    start = answer.find("[") if anywhere else answer.rfind("[")
    end = answer.find("]", start)
    if start < 0 or (not anywhere and not answer.endswith("]")):
        return "no source"
    source, text = answer[start + 1 : end], answer[:start]
    if source not in passages:
        return "invented"
    if only_id:
        return "supported"
    shown = " ".join(passages.values()) if any_passage else passages[source]
    words = [w for w in split_words(text) if all_words or w not in FUNCTION_WORDS]
    held = shown.casefold() if not whole else split_words(shown)
    fits = [word in held for word in words]
    return "supported" if (any(fits) if some else all(fits)) else "not supported"


# 15b.5


@checks("15b.5")
def write_findable(attempt: Callable) -> str:
    facts = facts_by_part()["unknown"]
    pairs = [
        tuple(unpack(pair, "an id", "a text"))
        for pair in need_list(attempt(list(facts)), (tuple, list), "pairs (id, text)")
    ]
    _is_a_store_of(pairs, facts)
    store = PassageStore.of([Passage(name, text) for name, text in pairs])
    asked = random.sample(facts, ASKED)
    wordings = (*QUESTIONS, "own words")
    questions = [_ask(fact, wordings[place % 4]) for place, fact in enumerate(asked)]
    best = [retrieve(store, question, count=1)[0].passage for question in questions]
    hits = [passage.id == _id(fact) for passage, fact in zip(best, asked, strict=True)]
    for name, some in (("in own words", hits[3::4]), ("in all four wordings", hits)):
        if share(some) < FOUND_AT_LEAST:
            raise Mistake(
                f"the right passage is first for {share(some):.0%} of the questions {name}, "
                f"expected {FOUND_AT_LEAST:.0%}: which words of the question does it lack?"
            )
    model, tokenizer = _reader()
    prompts = [write_prompt([p.text], q) for p, q in zip(best, questions, strict=True)]
    said = say_all(model, tokenizer, prompts)
    right = share([is_right(text, f.say(PLAIN)) for text, f in zip(said, asked, strict=True)])
    if right < RIGHT_AT_LEAST:
        raise Mistake(
            f"{share(hits):.0%} are found, but only {right:.0%} are answered rightly, expected "
            f"{RIGHT_AT_LEAST:.0%}: the model must still be able to read the passage"
        )
    return f"found {share(hits):.0%}, answered {right:.0%}"


def _is_a_store_of(pairs: Sequence[tuple[str, str]], facts: Sequence[Fact]) -> None:
    for name, text in pairs:
        if not isinstance(name, str) or not isinstance(text, str):
            raise Mistake(f"id and text are texts, not {shorten((name, text))}")
        if not 1 <= len(text.split()) <= MOST_WORDS:
            raise Mistake(
                f"the passage {name!r} has {len(text.split())} words: 1 to {MOST_WORDS} are allowed"
            )
    wanted, given = Counter(map(_id, facts)), Counter(name for name, _ in pairs)
    if wanted != given:
        odd = next(iter((wanted - given) or (given - wanted)))
        raise Mistake(
            f"the id {odd!r} stands {given[odd]} times, expected {wanted[odd]}: one passage for "
            "each fact, with the id entity/column"
        )


def _id(fact: Fact) -> str:
    return f"{fact.entity}/{fact.column}"


def _ask(fact: Fact, wording: str) -> str:
    return fact.say(fact.relation.question if wording == "own words" else wording)


@cache
def _reader():
    """A base that learned to read notes for some seconds; the same for every answer."""
    with contextlib.redirect_stdout(io.StringIO()):  # one line says what was loaded
        base, tokenizer = load("atlas-base")
    rows = note_rows(random.Random("reader"), facts_by_part()["train"], 1200)
    return tune_on(base, tokenizer, rows, seed=0), tokenizer
