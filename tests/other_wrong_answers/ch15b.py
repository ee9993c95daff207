"""Wrong answers to the exercises of chapter 15b, as a learner may write them; written from the
statements alone."""

import math
import random
from collections import Counter

from sft_lab import atlas
from sft_lab.retrieval import FUNCTION_WORDS, split_words


# 15b.1
def _bm25(passages, question, k1=1.5, b=0.75, idf=None, longest=False, top=2.5, plain_tf=False):
    weights = idf or _floored(passages)
    mean = max(map(len, passages)) if longest else sum(map(len, passages)) / len(passages)
    scores = []
    for passage in passages:
        score = 0.0
        for word in question:
            tf = passage.count(word)
            below = tf + k1 * (1 - b + b * len(passage) / mean)
            score += weights.get(word, 0.0) * (tf if plain_tf else tf * top / below)
        scores.append(score)
    return scores


def _raw(passages, once=True):
    size = len(passages)
    held = Counter(word for passage in passages for word in (set(passage) if once else passage))
    return {w: (math.log((size - n + 0.5) / (n + 0.5)) if n < size + 0.5 else -1.0)
            for w, n in held.items()}  # fmt: skip


def _floored(passages, share=0.25, once=True, of_positive=False):
    raw = _raw(passages, once)
    some = [max(x, 0) for x in raw.values()] if of_positive else list(raw.values())
    mean = sum(some) / len(some)
    return {word: share * mean if x < 0 else x for word, x in raw.items()}


def bm25_without_floor(passages, question):
    return _bm25(passages, question, idf=_raw(passages))


def bm25_floor_of_zero(passages, question):
    return _bm25(passages, question, idf={w: max(x, 0.0) for w, x in _raw(passages).items()})


def bm25_floor_of_mean(passages, question):
    return _bm25(passages, question, idf=_floored(passages, share=1.0))


def bm25_floor_is_a_quarter(passages, question):
    raw = _raw(passages)
    return _bm25(passages, question, idf={w: 0.25 if x < 0 else x for w, x in raw.items()})


def bm25_mean_after_zero(passages, question):
    return _bm25(passages, question, idf=_floored(passages, of_positive=True))


def bm25_counts_all_places(passages, question):
    return _bm25(passages, question, idf=_floored(passages, once=False))


def bm25_question_as_a_set(passages, question):
    return _bm25(passages, list(dict.fromkeys(question)))


def bm25_other_k(passages, question):
    return _bm25(passages, question, k1=1.2, top=2.2)


def bm25_without_length(passages, question):
    return _bm25(passages, question, b=0.0)


def bm25_longest(passages, question):
    return _bm25(passages, question, longest=True)


def bm25_without_top(passages, question):
    return _bm25(passages, question, top=1.0)


def bm25_top_is_k(passages, question):
    return _bm25(passages, question, top=1.5)


def bm25_plain_tf(passages, question):
    return _bm25(passages, question, plain_tf=True)


def bm25_one_inside(passages, question):
    size = len(passages)
    held = Counter(word for passage in passages for word in set(passage))
    idf = {w: math.log(1 + (size - n + 0.5) / (n + 0.5)) for w, n in held.items()}
    return _bm25(passages, question, idf=idf)


def bm25_sorted(passages, question):
    return sorted(_bm25(passages, question), reverse=True)


def bm25_total(passages, question):
    return sum(_bm25(passages, question))


def bm25_b_turned(passages, question):
    return _bm25(passages, question, b=0.25)


def bm25_log10(passages, question):
    return [x / math.log(10) for x in _bm25(passages, question)]


def bm25_mean_over_question(passages, question):
    raw = _raw(passages)
    known = [raw[w] for w in question if w in raw] or [0.0]
    floor = sum(known) / len(known) / 4
    return _bm25(passages, question, idf={w: floor if x < 0 else x for w, x in raw.items()})


# 15b.2
def _ranks(scores, right):
    return [sum(s >= row[r] for s in row) for row, r in zip(scores, right, strict=True)]


def _both(ranks, k):
    return sum(r <= k for r in ranks) / len(ranks), sum(1 / r for r in ranks) / len(ranks)


def ranks_lucky(scores, right, k):
    found = [1 + sum(s > row[r] for s in row) for row, r in zip(scores, right, strict=True)]
    return _both(found, k)


def ranks_in_order(scores, right, k):
    found = [
        1 + sorted(range(len(row)), key=lambda i: -row[i]).index(r)
        for row, r in zip(scores, right, strict=True)
    ]
    return _both(found, k)


def ranks_low_first(scores, right, k):
    return _both([sum(s <= row[r] for s in row) for row, r in zip(scores, right, strict=True)], k)


def ranks_one_more(scores, right, k):
    return _both([r + 1 for r in _ranks(scores, right)], k)


def ranks_less_than_k(scores, right, k):
    found = _ranks(scores, right)
    return sum(r < k for r in found) / len(found), _both(found, k)[1]


def ranks_cut(scores, right, k):
    found = _ranks(scores, right)
    return _both(found, k)[0], sum(1 / r for r in found if r <= k) / len(found)


def ranks_of_mean(scores, right, k):
    found = _ranks(scores, right)
    return _both(found, k)[0], len(found) / sum(found)


def ranks_turned(scores, right, k):
    return _both(_ranks(scores, right), k)[::-1]


def ranks_counts(scores, right, k):
    found = _ranks(scores, right)
    return sum(r <= k for r in found), sum(1 / r for r in found)


def ranks_recall_alone(scores, right, k):
    return _both(_ranks(scores, right), k)[0]


def ranks_middle_of_ties(scores, right, k):
    found = [
        sum(s > row[r] for s in row) + (1 + sum(s == row[r] for s in row)) / 2
        for row, r in zip(scores, right, strict=True)
    ]
    return _both(found, k)


def ranks_right_from_one(scores, right, k):
    return _both(_ranks(scores, [r - 1 for r in right]), k)


def ranks_over_k(scores, right, k):
    recall, mean = _both(_ranks(scores, right), k)
    return recall / k, mean


def ranks_dense(scores, right, k):
    found = [
        sorted(set(row), reverse=True).index(row[r]) + 1
        for row, r in zip(scores, right, strict=True)
    ]
    return _both(found, k)


def ranks_found_mean(scores, right, k):
    found = _ranks(scores, right)
    some = [1 / r for r in found if r <= k] or [0.0]
    return _both(found, k)[0], sum(some) / len(some)


# 15b.3
def swap_by_one(entities):
    return [(i + 1) % len(entities) for i in range(len(entities))]


def swap_identity(entities):
    return list(range(len(entities)))


def swap_reversed(entities):
    return list(range(len(entities)))[::-1]


def swap_shuffled(entities):
    places = list(range(len(entities)))
    random.Random(0).shuffle(places)
    return places


def swap_first_other(entities):
    return [next(j for j, e in enumerate(entities) if e != own) for own in entities]


def swap_greedy(entities):
    free, places = list(range(len(entities))), []
    for own in entities:
        fitting = [j for j in free if entities[j] != own] or free
        places.append(fitting[0])
        free.remove(fitting[0])
    return places


def swap_half(entities):
    half = len(entities) // 2
    return [(i + half) % len(entities) for i in range(len(entities))]


def swap_entities(entities):
    order = sorted(entities)
    largest = max(Counter(entities).values(), default=0)
    return order[largest:] + order[:largest]


def swap_sorted_by_one(entities):
    order = sorted(range(len(entities)), key=lambda i: entities[i])
    return [order[(order.index(i) + 1) % len(order)] for i in range(len(order))]


def swap_sorted_in_place(entities):
    order = sorted(range(len(entities)), key=lambda i: entities[i])
    largest = max(Counter(entities).values(), default=0)
    return order[largest:] + order[:largest]


def swap_only_fitting(entities):
    order = sorted(range(len(entities)), key=lambda i: entities[i])
    largest = max(Counter(entities).values(), default=0)
    moved = [order[(order.index(i) + largest) % len(order)] for i in range(len(order))]
    return moved[:-1]


def swap_from_one(entities):
    order = sorted(range(len(entities)), key=lambda i: entities[i])
    largest = max(Counter(entities).values(), default=0)
    return [order[(order.index(i) + largest) % len(order)] + 1 for i in range(len(order))]


def swap_none_when_empty(entities):
    if not entities:
        return None
    return swap_sorted_by_one(entities)


def swap_as_dict(entities):
    return dict(enumerate(swap_sorted_by_one(entities)))


def swap_random_other(entities):
    rng = random.Random(0)
    return [rng.choice([j for j, e in enumerate(entities) if e != own]) for own in entities]


# 15b.4
NAMES = ("read", "lucky", "not found", "not read")


def _faults(wanted, found, right):
    counts = dict.fromkeys(NAMES, 0)
    for w, f, r in zip(wanted, found, right, strict=True):
        counts[("read" if r else "not read") if w in f else ("lucky" if r else "not found")] += 1
    return counts


def faults_first_passage(wanted, found, right):
    return _faults(wanted, [f[:1] for f in found], right)


def faults_without_luck(wanted, found, right):
    counts = _faults(wanted, found, right)
    counts["read"] += counts["lucky"]
    counts["lucky"] = 0
    return counts


def faults_swapped(wanted, found, right):
    counts = _faults(wanted, found, right)
    counts["not found"], counts["not read"] = counts["not read"], counts["not found"]
    return counts


def faults_missing_keys(wanted, found, right):
    return {name: n for name, n in _faults(wanted, found, right).items() if n}


def faults_counter(wanted, found, right):
    counts = Counter()
    for w, f, r in zip(wanted, found, right, strict=True):
        counts[("read" if r else "not read") if w in f else ("lucky" if r else "not found")] += 1
    return counts


def faults_shares(wanted, found, right):
    return {name: n / max(1, len(wanted)) for name, n in _faults(wanted, found, right).items()}


def faults_underscores(wanted, found, right):
    return {name.replace(" ", "_"): n for name, n in _faults(wanted, found, right).items()}


def faults_tuple(wanted, found, right):
    return tuple(_faults(wanted, found, right).values())


def faults_lists(wanted, found, right):
    counts = {name: [] for name in NAMES}
    for i, (w, f, r) in enumerate(zip(wanted, found, right, strict=True)):
        one = _faults([w], [f], [r])
        counts[max(one, key=one.get)].append(i)
    return counts


def faults_turned(wanted, found, right):
    return _faults(wanted, found, [not r for r in right])


def faults_last_passage(wanted, found, right):
    return _faults(wanted, [f[-1:] for f in found], right)


def faults_any_found(wanted, found, right):
    return _faults([True] * len(wanted), [[bool(f)] for f in found], right)


def faults_by_entity(wanted, found, right):
    return _faults(wanted, [["/".join(f)] for f in found], right)


def faults_skip_empty(wanted, found, right):
    kept = [i for i, f in enumerate(found) if f]
    return _faults([wanted[i] for i in kept], [found[i] for i in kept], [right[i] for i in kept])


def faults_empty(wanted, found, right):
    return _faults(wanted, found, right) if wanted else {}


def faults_four_questions(wanted, found, right):
    return {"read": sum(right), "lucky": 0, "not found": 0, "not read": len(right) - sum(right)}


# 15b.5: none of them is read by a model but the first
def _id(fact):
    return f"{fact.entity}/{fact.column}"


def store_questions_alone(facts):
    return [(_id(f), f.say(f.relation.question)) for f in facts]


def store_statements(facts):
    return [(_id(f), f.say(atlas.STATEMENTS[0])) for f in facts]


def store_all_statements(facts):
    return [(_id(f), " ".join(f.say(t) for t in atlas.STATEMENTS)) for f in facts]


def store_by_entity(facts):
    return [(f.entity, f.say(f.relation.question)) for f in facts]


def store_values(facts):
    return [(_id(f), f.value) for f in facts]


def store_texts(facts):
    return [f.say(atlas.STATEMENTS[0]) for f in facts]


def store_turned(facts):
    return [(f.say(atlas.STATEMENTS[0]), _id(f)) for f in facts]


def store_dict(facts):
    return {_id(f): f.say(f.relation.question) for f in facts}


def store_twice(facts):
    return [
        (_id(f), text)
        for f in facts
        for text in (f.say(f.relation.question), f.say(atlas.STATEMENTS[0]))
    ]


def store_without_the_last(facts):
    return [(_id(f), f.say(f.relation.question)) for f in facts[:-1]]


def store_long(facts):
    return [(_id(f), " ".join([f.say(f.relation.question)] * 9)) for f in facts]


def store_empty_texts(facts):
    return [(_id(f), "") for f in facts]


def store_lower_ids(facts):
    return [(_id(f).lower(), f.say(f.relation.question)) for f in facts]


def store_triples(facts):
    return [(f.entity, f.column, f.say(f.relation.question)) for f in facts]


def store_nothing(facts):
    return []


# 15b.6
def _judged(words, held):
    return "supported" if set(words) - FUNCTION_WORDS <= set(held) else "not supported"


def _cut(answer):
    text, _, source = answer[:-1].rpartition("[")
    return text, source


def cited_by_letters(answer, passages):
    if not answer.endswith("]"):
        return "no source"
    text, source = _cut(answer)
    if source not in passages:
        return "invented"
    shown = passages[source].casefold()
    fits = all(w in shown for w in split_words(text) if w not in FUNCTION_WORDS)
    return "supported" if fits else "not supported"


def cited_all_words(answer, passages):
    if not answer.endswith("]"):
        return "no source"
    text, source = _cut(answer)
    if source not in passages:
        return "invented"
    return (
        "supported" if {*split_words(text)} <= {*split_words(passages[source])} else "not supported"
    )


def cited_some_word(answer, passages):
    if not answer.endswith("]"):
        return "no source"
    text, source = _cut(answer)
    if source not in passages:
        return "invented"
    common = {*split_words(text)} & {*split_words(passages[source])} - FUNCTION_WORDS
    return "supported" if common else "not supported"


def cited_exists(answer, passages):
    if not answer.endswith("]"):
        return "no source"
    return "supported" if _cut(answer)[1] in passages else "invented"


def cited_any_passage(answer, passages):
    if not answer.endswith("]"):
        return "no source"
    text, source = _cut(answer)
    if source not in passages:
        return "invented"
    fits = [_judged(split_words(text), split_words(p)) == "supported" for p in passages.values()]
    return "supported" if any(fits) else "not supported"


def cited_first_bracket(answer, passages):
    if "[" not in answer:
        return "no source"
    text, _, rest = answer.partition("[")
    source = rest.partition("]")[0]
    if source not in passages:
        return "invented"
    return _judged(split_words(text), split_words(passages[source]))


def cited_case_of_ids(answer, passages):
    if not answer.endswith("]"):
        return "no source"
    text, source = _cut(answer)
    lower = {name.lower(): p for name, p in passages.items()}
    if source.lower() not in lower:
        return "invented"
    return _judged(split_words(text), split_words(lower[source.lower()]))


def cited_case_of_words(answer, passages):
    if not answer.endswith("]"):
        return "no source"
    text, source = _cut(answer)
    if source not in passages:
        return "invented"
    words = [w.strip(".,:") for w in text.split()]
    shown = [w.strip(".,:") for w in passages[source].split()]
    fits = all(w in shown for w in words if w.lower() not in FUNCTION_WORDS)
    return "supported" if fits else "not supported"


def cited_with_id_words(answer, passages):
    if not answer.endswith("]"):
        return "no source"
    source = _cut(answer)[1]
    if source not in passages:
        return "invented"
    return _judged(split_words(_cut(answer)[0]), split_words(passages[source] + answer))


def cited_turned(answer, passages):
    if not answer.endswith("]"):
        return "no source"
    text, source = _cut(answer)
    if source not in passages:
        return "invented"
    return _judged(split_words(passages[source]), split_words(text))


def cited_whole_sentence(answer, passages):
    if not answer.endswith("]"):
        return "no source"
    text, source = _cut(answer)
    if source not in passages:
        return "invented"
    return "supported" if text.strip() in passages[source] else "not supported"


def cited_no_source_is_invented(answer, passages):
    return "invented" if not answer.endswith("]") else cited_exists(answer, passages)


def cited_in_the_middle(answer, passages):
    if "[" not in answer:
        return "no source"
    text, _, rest = answer.rpartition("[")
    source = rest.partition("]")[0]
    if source not in passages:
        return "invented"
    return _judged(split_words(text), split_words(passages[source]))


def cited_true_or_false(answer, passages):
    text, source = _cut(answer)
    return (
        source in passages
        and _judged(split_words(text), split_words(passages[source])) == "supported"
    )


def cited_with_a_dash(answer, passages):
    return cited_before_a_full_stop(answer, passages).replace(" ", "-")


def cited_before_a_full_stop(answer, passages, strip=" ."):
    answer = answer.rstrip(strip)
    if not answer.endswith("]"):
        return "no source"
    text, source = _cut(answer)
    if source not in passages:
        return "invented"
    return _judged(split_words(text), split_words(passages[source]))


def cited_by_entity(answer, passages):
    if not answer.endswith("]"):
        return "no source"
    text, source = _cut(answer)
    if not any(name.split("/")[0] == source.split("/")[0] for name in passages):
        return "invented"
    return _judged(split_words(text), split_words(passages.get(source, "")))


def _named(start):
    return [value for name, value in list(globals().items()) if name.startswith(start)]


OTHER_WRONG_ANSWERS = {
    "15b.1": _named("bm25_"),
    "15b.2": _named("ranks_"),
    "15b.3": _named("swap_"),
    "15b.4": _named("faults_"),
    "15b.5": _named("store_"),
    "15b.6": _named("cited_"),
}
