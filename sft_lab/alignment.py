"""Station "judge": METEOR, whose score depends on which word is paired with which.

METEOR pairs every word of a hypothesis with at most one equal word of the reference, as many as
possible. Where a word stands several times there is a choice, and its rule is part of the metric:

- "fewest chunks", of the later versions: the pairs fall into as few unbroken runs as possible;
- "fewest crossings", of the first version (2005): as few pairs as possible cross when both
  sentences are written above each other;
- "greedy", what nltk does although its docstring promises the fewest crossings: from the last word
  to the first, each takes the last equal word that is still free.

Only METEOR's first stage is here, equal words; stems and synonyms come after it and need word
lists. nltk gives the same without them when its WordNet is an object whose `synsets()` returns [].
"""

import heapq
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

from sft_lab.overlap import check_words

RULES = ("fewest chunks", "fewest crossings", "greedy")
MOST_STATES = 200_000  # looked at before the search for the best alignment gives up: some seconds

Words = Sequence[Hashable]
Pairs = list[tuple[int, int]]


def align(hypothesis: Words, reference: Words, *, rule: str = "fewest chunks") -> Pairs:
    """Pairs (place in the hypothesis, place in the reference) of equal words, by their first place.

    As many pairs as can be; `rule` chooses among the ways to pair that many, exactly. Of ways with
    equally few crossings one with the fewest chunks is taken; of ways with equally few chunks any,
    always the same. Raises ValueError for an unknown rule, a text in place of words, and
    when two long sentences repeat so much that an exact search would take minutes.
    """
    check_words(hypothesis, [reference])
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; it must be one of {', '.join(map(repr, RULES))}")
    if rule == "greedy":
        return _align_greedily(hypothesis, reference)
    # both counts stay when the sentences change places, and fewer sets of used words are possible
    if len(reference) > len(hypothesis):
        return sorted((i, j) for j, i in _search(reference, hypothesis, rule))
    return _search(hypothesis, reference, rule)


def count_chunks(pairs: Iterable[tuple[int, int]]) -> int:
    """Runs of pairs that are neighbours in both sentences, in the same order."""
    pairs = set(pairs)
    return sum((i - 1, j - 1) not in pairs for i, j in pairs)


def count_crossings(pairs: Sequence[tuple[int, int]]) -> int:
    """Pairs of pairs whose lines cross when one sentence is written above the other."""
    return sum(i < k and j > m for i, j in pairs for k, m in pairs)


def meteor(
    hypothesis: Words,
    references: Sequence[Words],
    *,
    rule: str = "fewest chunks",
    alpha: float = 0.9,
    beta: float = 3.0,
    gamma: float = 0.5,
) -> float:
    """METEOR of one hypothesis, from 0 to below 1; of several references the best.

    F = P R / (alpha P + (1 - alpha) R) times 1 - gamma (chunks / pairs)^beta, nltk's defaults: a
    mean near recall, and a penalty for pairs in many pieces. A sentence against itself is one
    chunk, so that m words score 1 - 0.5 / m³ and never 1. Words are compared as they are given;
    nltk lowers their case. Source: Banerjee and Lavie 2005; Lavie and Agarwal 2007.
    """
    check_words(hypothesis, references)
    best = 0.0
    for reference in references:
        pairs = align(hypothesis, reference, rule=rule)
        if pairs:
            precision, recall = len(pairs) / len(hypothesis), len(pairs) / len(reference)
            mean = precision * recall / (alpha * precision + (1 - alpha) * recall)
            penalty = gamma * (count_chunks(pairs) / len(pairs)) ** beta
            best = max(best, mean * (1 - penalty))
    return best


def _align_greedily(hypothesis: Words, reference: Words) -> Pairs:
    free: dict[Hashable, list[int]] = {}
    for j, word in enumerate(reference):
        free.setdefault(word, []).append(j)
    backwards = reversed(list(enumerate(hypothesis)))
    return sorted((i, free[word].pop()) for i, word in backwards if free.get(word))


# The exact search goes through the longer sentence word by word: a word is left out or paired with
# a free equal word of the shorter one. It always goes on from the state that promises most (A*).

NOWHERE = -2  # the place before the first is -1


class _State(NamedTuple):
    """What the cost of the rest depends on."""

    place: int  # words of the longer sentence that are decided
    used: int  # places of the shorter sentence that are taken, one bit each
    last: int  # the place that the previous word took; NOWHERE when it took none


class _Word(NamedTuple):
    """A word of one sentence, whatever was done before."""

    equal: int  # places of the other sentence with the same word, one bit each
    same: int  # places of its own sentence with the same word
    pairs: int  # so many of these words are paired in the end
    ahead: int  # so many of them stand here and later


def _list_words(sentence: Words, other: Words) -> list[_Word]:
    found, seen = [], Counter()
    counts, places, others = Counter(sentence), _mark_places(sentence), _mark_places(other)
    for word in sentence:
        equal = others.get(word, 0)
        pairs = min(equal.bit_count(), counts[word])
        found.append(_Word(equal, places[word], pairs, counts[word] - seen[word]))
        seen[word] += 1
    return found


def _mark_places(sentence: Words) -> dict[Hashable, int]:
    """The places of each word, one bit each."""
    places: dict[Hashable, int] = {}
    for place, word in enumerate(sentence):
        places[word] = places.get(word, 0) | 1 << place
    return places


def _search(longer: Words, shorter: Words, rule: str) -> Pairs:
    """The pairs of lowest cost; cost is (chunks, crossings), or these two in the other order."""
    words, others = _list_words(longer, shorter), _list_words(shorter, longer)
    by_chunks = rule == "fewest chunks"
    bound = _chunks_to_come if by_chunks else _crossings_to_come
    start, ticket = _State(0, 0, NOWHERE), count()  # of equals the one that came first goes on
    waiting = [((bound(start, words, others), 0), 0, next(ticket), start, (0, 0), ())]
    done = set()
    while waiting and len(done) < MOST_STATES:
        _, _, _, state, cost, pairs = heapq.heappop(waiting)
        if state.place == len(longer):
            return list(pairs)
        if state in done:
            continue
        done.add(state)
        for new in _moves(state, words[state.place], in_order=not by_chunks):
            added, more = (0, 0), pairs
            if new.last != NOWHERE:
                chunk, crossings = state.last != new.last - 1, (state.used >> new.last).bit_count()
                added = (int(chunk), crossings) if by_chunks else (crossings, int(chunk))
                more = (*pairs, (state.place, new.last))
            total = (cost[0] + added[0], cost[1] + added[1])
            # among ways with equally few chunks a search for the fewest crossings would take long
            promise = (total[0] + bound(new, words, others), 0 if by_chunks else total[1])
            heapq.heappush(waiting, (promise, -new.place, next(ticket), new, total, more))
    raise ValueError(
        f"sentences of {len(longer)} and {len(shorter)} words repeat so much that {MOST_STATES:,} "
        f"beginnings were not enough to find the {rule}: align sentence by sentence, or use "
        "rule='greedy'"
    )


def _moves(state: _State, word: _Word, *, in_order: bool) -> Iterator[_State]:
    """All that may be done with the next word so that as many pairs remain as can be.

    in_order: equal words are paired in their order, since two lines that end in equal words and
    cross can be exchanged so that they do not.
    """
    place, used, _ = state
    taken = (used & word.equal).bit_count()
    if taken + word.ahead > word.pairs:  # enough are left to be paired without this one
        yield _State(place + 1, used, NOWHERE)
    needed = word.pairs - taken
    free = word.equal & ~used
    if in_order:
        free &= -1 << (used & word.equal).bit_length()
    while needed and free and (not in_order or free.bit_count() >= needed):
        lowest = free & -free
        yield _State(place + 1, used | lowest, lowest.bit_length() - 1)
        free ^= lowest


# Bounds: at least so much is added after a state, whatever is done.


def _chunks_to_come(state: _State, words: list[_Word], others: list[_Word]) -> int:
    """The longest runs that are still possible, one after the other, without looking whether they
    take each other's places: once along either sentence. Words that may be left out cost none."""
    place, used, last = state
    ends = 1 << last if last >= 0 else 0  # where the run that the last word belongs to may end
    along, spare = 0, {}
    for word in words[place:]:
        ends = ends << 1 & word.equal & ~used
        if word.same not in spare:
            spare[word.same] = word.ahead > word.pairs - (word.equal & used).bit_count()
        if not ends and not spare[word.same]:
            along += 1
            ends = word.equal & ~used
    later, ends, across = -1 << place, 0, 0
    for j, word in enumerate(others):
        if used >> j & 1:
            ends = 1 << place - 1 if j == last else 0
            continue
        ends = ends << 1 & word.equal & later
        if not ends:
            taken = (word.same & used).bit_count()
            if (word.same & ~used).bit_count() <= word.pairs - taken:
                across += 1
                ends = word.equal & later
    return max(along, across)


def _crossings_to_come(state: _State, words: list[_Word], others: list[_Word]) -> int:
    """With the pairs that are there, if all words to come took the last places that are free."""
    crossings = 0
    for word in {word.equal: word for word in words[state.place :]}.values():
        free = word.equal & ~state.used
        for _ in range(word.pairs - (word.equal & state.used).bit_count()):
            last = free.bit_length() - 1
            crossings += (state.used >> last).bit_count()
            free ^= 1 << last
    return crossings
