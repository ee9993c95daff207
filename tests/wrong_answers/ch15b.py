"""Wrong answers to the exercises of chapter 15b, each with what its reader is told."""

import math
import random
from collections import Counter

from sft_lab.documents import PLAIN
from sft_lab.retrieval import FUNCTION_WORDS, split_words


def _bm25(passages, question, *, k1=1.5, b=0.75, floor=0.25, top=True, twice=True, count=False):
    size = len(passages)
    n = Counter(word for p in passages for word in (p if count else set(p)))
    idf = {word: math.log((size - m + 0.5) / (m + 0.5)) for word, m in n.items()}
    mean = sum(idf.values()) / len(idf)
    if floor is not None:
        idf = {word: floor * mean if x < 0 else x for word, x in idf.items()}
    length = sum(map(len, passages)) / size
    asked = question if twice else list(dict.fromkeys(question))
    return [
        sum(
            idf.get(word, 0.0)
            * p.count(word)
            * (k1 + 1 if top else 1)
            / (p.count(word) + k1 * (1 - b + b * len(p) / length))
            for word in asked
            if word in p
        )
        for p in passages
    ]


def _ranks(scores, right, ahead):
    return [1 + ahead(row, place) for row, place in zip(scores, right, strict=True)]


def _best_of_ties(scores, right, k):
    ranks = _ranks(scores, right, lambda row, place: sum(x > row[place] for x in row))
    return sum(r <= k for r in ranks) / len(ranks), sum(1 / r for r in ranks) / len(ranks)


def _in_order(scores, right, k):
    ranks = [
        1 + sorted(range(len(row)), key=lambda i: -row[i]).index(place)
        for row, place in zip(scores, right, strict=True)
    ]
    return sum(r <= k for r in ranks) / len(ranks), sum(1 / r for r in ranks) / len(ranks)


def _inverse_mean(scores, right, k):
    ranks = _ranks(scores, right, lambda row, place: sum(x >= row[place] for x in row) - 1)
    return sum(r <= k for r in ranks) / len(ranks), len(ranks) / sum(ranks)


def _cut(scores, right, k):
    ranks = _ranks(scores, right, lambda row, place: sum(x >= row[place] for x in row) - 1)
    found = [r <= k for r in ranks]
    return sum(found) / len(ranks), sum(1 / r for r in ranks if r <= k) / len(ranks)


def _by_one(entities):
    return [(place + 1) % len(entities) for place in range(len(entities))]


def _reversed(entities):
    return list(range(len(entities)))[::-1]


def _shuffled(entities):
    return random.sample(range(len(entities)), len(entities))


def _first_other(entities):
    return [next((j for j, other in enumerate(entities) if other != mine), 0) for mine in entities]


def _faults(wanted, found, right, *, first=False, luck=True, swapped=False, short=False):
    counts = {} if short else {"read": 0, "lucky": 0, "not found": 0, "not read": 0}
    for passage, ids, ok in zip(wanted, found, right, strict=True):
        hit = passage in (ids[:1] if first else ids)
        word = ("read" if hit or not luck else "lucky") if ok else (
            "not read" if hit != swapped else "not found"
        )  # fmt: skip
        counts[word] = counts.get(word, 0) + 1
    return counts


def _citation(answer, passages, *, exists=False, part=False, any_of=False, function=False):
    if not answer.endswith("]"):
        return "no source"
    text, _, source = answer[:-1].rpartition("[")
    if source not in passages:
        return "invented"
    if exists:
        return "supported"
    shown = " ".join(passages.values()) if any_of else passages[source]
    held = shown.lower() if part else split_words(shown)
    words = [w for w in split_words(text) if function or w not in FUNCTION_WORDS]
    return "supported" if all(word in held for word in words) else "not supported"


def _plain(facts):
    return [(f"{fact.entity}/{fact.column}", fact.say(PLAIN)) for fact in facts]


def _question_alone(facts):
    return [(f"{f.entity}/{f.column}", f.say(f.relation.question)) for f in facts]


def _all_words_no_value(facts):
    asked = "Can you name the {r} {e}? Tell me what."
    return [(name, f"{text} {f.say(asked)}")
            for (name, text), f in zip(_question_alone(facts), facts, strict=True)]  # fmt: skip


def _long(facts):
    return [(name, " ".join([text] * 9)) for name, text in _plain(facts)]


WRONG_ANSWERS = {
    "15b.1": [
        (lambda p, q: _bm25(p, q, b=0.0), "the length of the passage is missing"),
        (lambda p, q: _bm25(p, q, floor=None), "a negative idf is not replaced"),
        (lambda p, q: _bm25(p, q, floor=0.0), "of the mean idf, not 0"),
        (lambda p, q: _bm25(p, q, top=False), "the factor k1 + 1"),
        (lambda p, q: _bm25(p, q, twice=False), "counts twice"),
    ],
    "15b.2": [
        (_best_of_ties, "ties are no luck"),
        (_in_order, "every equal one counts as ahead"),
        (_inverse_mean, "take the mean of 1 / rank"),
        (_cut, "beyond k too"),
    ],
    "15b.3": [
        (_by_one, "is about"),
        (_reversed, "is about"),
        (_shuffled, "is about"),
        (_first_other, "each passage is used exactly once"),
    ],
    "15b.4": [
        (lambda w, f, r: _faults(w, f, r, first=True), "not the first alone"),
        (lambda w, f, r: _faults(w, f, r, luck=False), "is luck, not reading"),
        (lambda w, f, r: _faults(w, f, r, swapped=True), "the reading failed"),
        (lambda w, f, r: _faults(w, f, r, short=True), "all four words are keys"),
    ],
    "15b.6": [
        (lambda a, p: _citation(a, p, exists=True), "may still say something else"),
        (lambda a, p: _citation(a, p, part=True), "compare whole words"),
        (lambda a, p: _citation(a, p, any_of=True), "not any other"),
        (lambda a, p: _citation(a, p, function=True), "need not stand in the passage"),
    ],
    "15b.5": [
        (_plain, "is first for"),
        (_question_alone, "is first for"),
        (_all_words_no_value, "must still be able to read"),
        (_long, "1 to 30 are allowed"),
        (lambda facts: _plain(facts)[1:], "one passage for each fact"),
    ],
}
