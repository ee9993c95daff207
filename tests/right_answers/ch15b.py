"""Right answers to the exercises of chapter 15b, each in another style; written from the statements
alone."""

import math
import random
import re
from collections import Counter, defaultdict

import networkx as nx
import numpy as np
from rank_bm25 import BM25Okapi

from sft_lab import atlas
from sft_lab.retrieval import FUNCTION_WORDS, split_words


# 15b.1
def _library(passages, question):
    return [float(x) for x in BM25Okapi(passages, k1=1.5, b=0.75).get_scores(question)]


def _idf(passages):
    count = len(passages)
    raw = {}
    for word in {word for passage in passages for word in passage}:
        holders = sum(word in passage for passage in passages)
        raw[word] = math.log(count - holders + 0.5) - math.log(holders + 0.5)
    floor = math.fsum(raw.values()) / len(raw) / 4
    exact = {w: 2 * sum(w in p for p in passages) for w in raw}
    return {w: floor if exact[w] > count else x for w, x in raw.items()}


def _word_by_word(passages, question):
    idf, scores = _idf(passages), [0.0] * len(passages)
    mean = sum(len(p) for p in passages) / len(passages)
    for word in question:
        if word not in idf:
            continue
        for place, passage in enumerate(passages):
            tf = passage.count(word)
            below = tf + 1.5 * (1 - 0.75 + 0.75 * len(passage) / mean)
            scores[place] += idf[word] * tf * 2.5 / below
    return scores


def _in_matrices(passages, question):
    words = sorted({word for passage in passages for word in passage})
    tf = np.array([[passage.count(word) for word in words] for passage in passages], dtype=float)
    held = (tf > 0).sum(0)
    idf = np.log((len(passages) - held + 0.5) / (held + 0.5))
    idf = np.where(idf < 0, 0.25 * idf.mean(), idf)
    lengths = tf.sum(1, keepdims=True)
    weight = tf * 2.5 / (tf + 1.5 * (0.25 + 0.75 * lengths / lengths.mean()))
    asked = np.array([question.count(word) for word in words], dtype=float)
    return (weight @ (idf * asked)).tolist()


def _counted_question(passages, question):
    idf, asked = _idf(passages), Counter(question)
    mean = np.mean([len(p) for p in passages])
    scores = []
    for passage in passages:
        tf = Counter(passage)
        norm = 0.375 + 1.125 * len(passage) / mean
        scores.append(
            float(sum(n * idf[w] * tf[w] * 2.5 / (tf[w] + norm) for w, n in asked.items() if tf[w]))
        )
    return scores


def _one_passage_each(passages, question):
    idf = _idf(passages)
    total = sum(map(len, passages))

    def score(passage, rest):
        if not rest:
            return 0.0
        word, tf = rest[0], passage.count(rest[0])
        room = 1.5 * (0.25 + 0.75 * len(passage) * len(passages) / total)
        own = idf.get(word, 0.0) * tf * 2.5 / (tf + room)
        return own + score(passage, rest[1:])

    return [score(passage, question) for passage in passages]


# 15b.2
def _sorted_ranks(scores, right, k):
    ranks = []
    for row, place in zip(scores, right, strict=True):
        order = sorted(range(len(row)), key=lambda i: (-row[i], i == place))
        ranks.append(order.index(place) + 1)
    found = sum(1 for rank in ranks if rank <= k)
    return found / len(ranks), math.fsum(1 / rank for rank in ranks) / len(ranks)


def _numpy_ranks(scores, right, k):
    scores = np.array(scores)
    own = scores[np.arange(len(scores)), right]
    ranks = (scores >= own[:, None]).sum(1)
    return (ranks <= k).mean(), (1 / ranks).mean()


def _counted_ranks(scores, right, k):
    hits = total = 0.0
    for number in range(len(scores)):
        rank = 1
        for place, score in enumerate(scores[number]):
            if place != right[number] and score >= scores[number][right[number]]:
                rank += 1
        hits += rank <= k
        total += 1 / rank
    return [hits / len(scores), total / len(scores)]


def _removed(scores, right, k):
    ranks = []
    for row, place in zip(scores, right, strict=True):
        others = row[:place] + row[place + 1 :]
        ranks.append(len([s for s in others if not s < row[place]]) + 1)
    return float(np.mean([rank <= k for rank in ranks])), float(np.mean([1 / r for r in ranks]))


def _lowest_index(scores, right, k):
    ranks = [
        len(row) - sorted(row).index(row[place]) for row, place in zip(scores, right, strict=True)
    ]
    return sum(rank < k + 1 for rank in ranks) / len(ranks), sum(r**-1 for r in ranks) / len(ranks)


# 15b.3
def _shuffled_until_it_fits(entities):
    rng, places = random.Random(0), list(range(len(entities)))
    while any(entities[i] == entities[p] for i, p in enumerate(places)):
        rng.shuffle(places)
    return places


def _matched(entities):
    graph = nx.Graph()
    count = len(entities)
    questions = [("question", i) for i in range(count)]
    graph.add_nodes_from(questions)
    graph.add_nodes_from(("passage", i) for i in range(count))
    graph.add_edges_from(
        (("question", i), ("passage", j))
        for i in range(count)
        for j in range(count)
        if entities[i] != entities[j]
    )
    pairs = nx.bipartite.hopcroft_karp_matching(graph, questions)
    return [pairs[question][1] for question in questions]


def _augmented(entities):
    owner = {}

    def place(question, seen):
        for passage in range(len(entities)):
            if entities[passage] == entities[question] or passage in seen:
                continue
            seen.add(passage)
            if passage not in owner or place(owner[passage], seen):
                owner[passage] = question
                return True
        return False

    for question in range(len(entities)):
        place(question, set())
    return [passage for _, passage in sorted((q, p) for p, q in owner.items())]


def _repaired(entities):
    places = list(range(len(entities)))
    for i, entity in enumerate(entities):
        if entities[places[i]] != entity:
            continue
        for j, other in enumerate(entities):
            if other != entity and entities[places[j]] != entity:
                places[i], places[j] = places[j], places[i]
                break
    return places


def _grouped_and_moved(entities):
    groups = defaultdict(list)
    for place, entity in enumerate(entities):
        groups[entity].append(place)
    line = [place for group in sorted(groups.values(), key=len) for place in group]
    half = len(line) // 2
    longest = max(map(len, groups.values()), default=0)
    moved = np.roll(line, -max(longest, min(half, longest))).tolist()
    return [moved[line.index(i)] for i in range(len(line))]


def _in_numpy(entities):
    order = np.argsort(np.array(entities, dtype=object), kind="stable").astype(int)
    largest = max((entities.count(e) for e in entities), default=0)
    result = np.zeros(len(entities), dtype=int)
    result[order] = np.roll(order, largest)
    return list(result)


# 15b.4
NAMES = ("read", "lucky", "not found", "not read")


def _counter(wanted, found, right):
    words = {
        (True, True): "read", (False, True): "lucky",
        (False, False): "not found", (True, False): "not read",
    }  # fmt: skip
    counts = Counter(words[w in f, bool(r)] for w, f, r in zip(wanted, found, right, strict=True))
    return {name: counts[name] for name in NAMES}


def _branches(wanted, found, right):
    read = lucky = not_found = not_read = 0
    for i, passage in enumerate(wanted):
        hit = passage in set(found[i])
        if hit and right[i]:
            read += 1
        elif hit:
            not_read += 1
        elif right[i]:
            lucky += 1
        else:
            not_found += 1
    return {"not read": not_read, "not found": not_found, "lucky": lucky, "read": read}


def _arrays(wanted, found, right):
    hit = np.array([w in f for w, f in zip(wanted, found, strict=True)], dtype=bool)
    ok = np.array(right, dtype=bool)
    masks = (hit & ok, ~hit & ok, ~hit & ~ok, hit & ~ok)
    return {name: int(mask.sum()) for name, mask in zip(NAMES, masks, strict=True)}


def _by_difference(wanted, found, right):
    hits = [f.count(w) > 0 for w, f in zip(wanted, found, strict=True)]
    read = sum(h and r for h, r in zip(hits, right, strict=True))
    return {
        "read": read,
        "lucky": sum(right) - read,
        "not found": len(wanted) - sum(hits) - sum(right) + read,
        "not read": sum(hits) - read,
    }


def _recursive(wanted, found, right):
    if not wanted:
        return dict.fromkeys(NAMES, 0)
    counts = _recursive(wanted[1:], found[1:], right[1:])
    hit = any(one == wanted[0] for one in found[0])
    counts[("read" if hit else "lucky") if right[0] else ("not read" if hit else "not found")] += 1
    return counts


# 15b.5
def _store(facts, *templates):
    return [
        (
            f"{fact.entity}/{fact.column}",
            " ".join(fact.say(template or fact.relation.question) for template in templates),
        )
        for fact in facts
    ]


def _question_then_fact(facts):
    return _store(facts, None, "The {r} {e} is {v}.")


def _backwards(facts):
    return _question_then_fact(facts)[::-1]


def _from_statements(facts):
    passages = []
    for fact in facts:
        name = "/".join((fact.entity, fact.column))
        passages.append((name, fact.relation.question.format(e=fact.subject) + " "
                         + fact.say(atlas.STATEMENTS[0])))  # fmt: skip
    return passages


def _in_lists(facts):
    return [list(pair) for pair in _question_then_fact(facts)]


def _sorted_by_id(facts):
    return sorted(_question_then_fact(facts))


# 15b.6
def _by_regex(answer, passages):
    match = re.fullmatch(r"(.*)\[([^\[\]]*)\]", answer, flags=re.DOTALL)
    if not match:
        return "no source"
    if match[2] not in passages:
        return "invented"
    words = [word for word in split_words(match[1]) if word not in FUNCTION_WORDS]
    held = split_words(passages[match[2]])
    return "supported" if all(word in held for word in words) else "not supported"


def _by_index(answer, passages):
    if answer[-1:] != "]":
        return "no source"
    start = answer.rindex("[")
    passage = passages.get(answer[start + 1 : -1])
    if passage is None:
        return "invented"
    missing = set(split_words(answer[:start])).difference(FUNCTION_WORDS, split_words(passage))
    return "not supported" if missing else "supported"


def _by_loop(answer, passages):
    if not answer.endswith("]"):
        return "no source"
    *before, source = answer.split("[")
    for name, text in passages.items():
        if name == source[:-1]:
            known = Counter(split_words(text))
            for word in split_words("[".join(before)):
                if word not in FUNCTION_WORDS and not known[word]:
                    return "not supported"
            return "supported"
    return "invented"


def _by_error(answer, passages):
    try:
        assert answer.endswith("]")
        text, source = answer[:-1].rsplit("[", 1)
        allowed = FUNCTION_WORDS | set(split_words(passages[source]))
    except AssertionError:
        return "no source"
    except KeyError:
        return "invented"
    return ("not supported", "supported")[set(split_words(text)) <= allowed]


def _by_match(answer, passages):
    cited = answer.endswith("]")
    source = answer[answer.rfind("[") + 1 : len(answer) - 1]
    exists = source in passages
    match cited, exists:
        case False, _:
            return "no source"
        case True, False:
            return "invented"
    said = {w for w in split_words(answer[: answer.rfind("[")])} - set(FUNCTION_WORDS)
    there = {w for w in split_words(passages[source])}
    return "supported" if len(said & there) == len(said) else "not supported"


RIGHT_ANSWERS = {
    "15b.1": [_library, _word_by_word, _in_matrices, _counted_question, _one_passage_each],
    "15b.2": [_sorted_ranks, _numpy_ranks, _counted_ranks, _removed, _lowest_index],
    "15b.3": [
        _shuffled_until_it_fits,
        _matched,
        _augmented,
        _repaired,
        _grouped_and_moved,
        _in_numpy,
    ],
    "15b.4": [_counter, _branches, _arrays, _by_difference, _recursive],
    "15b.5": [_question_then_fact, _backwards, _from_statements, _in_lists, _sorted_by_id],
    "15b.6": [_by_regex, _by_index, _by_loop, _by_error, _by_match],
}
