"""Right answers to the exercises of chapter 11, each in another style; written from the statements
alone."""

import itertools
import math
import random
from collections import Counter, defaultdict
from decimal import Decimal
from fractions import Fraction
from functools import reduce

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from sft_lab.duplicates import near_duplicates, shingles, words


# 11.1
def _by_loops(rows, prices, bar):
    worst = {}
    for row in rows:
        design = row["distinct"], row["wrong"]
        if design not in worst or row["facts"] < worst[design]:
            worst[design] = row["facts"]
    best = None
    for distinct, wrong in worst:
        if worst[distinct, wrong] < bar:
            continue
        offer = (prices[wrong] * distinct, distinct, wrong)
        if best is None or offer[:2] < best[:2]:
            best = offer
    return None if best is None else best[1:]


def _failed_taken_out(rows, prices, bar):
    designs = {(row["distinct"], row["wrong"]) for row in rows}
    designs -= {(row["distinct"], row["wrong"]) for row in rows if row["facts"] < bar}
    return min(designs, key=lambda d: (d[0] * prices[d[1]], d[0]), default=None)


def _sorted_and_grouped(rows, prices, bar):
    def design(row):
        return row["distinct"], row["wrong"]

    passing = []
    for key, runs in itertools.groupby(sorted(rows, key=design), key=design):
        if all(run["facts"] >= bar for run in runs):
            passing.append(key)
    passing.sort(key=lambda key: key[0])
    passing.sort(key=lambda key: key[0] * prices[key[1]])  # sorting is stable
    return passing[0] if passing else None


def _in_exact_decimals(rows, prices, bar):
    scores = defaultdict(list)
    for row in rows:
        scores[row["distinct"], row["wrong"]].append(row["facts"])
    offers = [
        (Decimal(str(prices[wrong])) * distinct, distinct, wrong)
        for (distinct, wrong), some in scores.items()
        if min(some) >= bar
    ]
    return min(offers)[1:] if offers else None


def _in_fractions(rows, prices, bar):
    scores = defaultdict(list)
    for row in rows:
        scores[row["distinct"], row["wrong"]].append(row["facts"])
    passing = [design for design, some in scores.items() if not any(score < bar for score in some)]
    passing.sort(key=lambda design: (Fraction(prices[design[1]]) * design[0], design[0]))
    return next(iter(passing), None)


def _in_pandas(rows, prices, bar):
    table = pd.DataFrame(rows, columns=["distinct", "wrong", "seed", "facts"])
    worst = table.groupby(["distinct", "wrong"], as_index=False)["facts"].min()
    worst = worst[worst["facts"] >= bar]
    if worst.empty:
        return None
    worst = worst.assign(cost=worst["distinct"] * worst["wrong"].map(prices))
    first = worst.sort_values(["cost", "distinct"]).iloc[0]
    return int(first["distinct"]), float(first["wrong"])


def _folded(rows, prices, bar):
    def better(best, design):
        if best is None:
            return design
        price, other = (d * prices[w] for d, w in (best, design))
        if other < price or (other == price and design[0] < best[0]):
            return design
        return best

    designs = dict.fromkeys((row["distinct"], row["wrong"]) for row in rows)
    passing = (
        (d, w)
        for d, w in designs
        if all(row["facts"] >= bar for row in rows if row["distinct"] == d and row["wrong"] == w)
    )
    return reduce(better, passing, None)


# 11.2
def _share_by_loops(question, rows, n):
    asked = shingles(question, n)
    if not asked:
        return 0.0
    best = 0.0
    for row in rows:
        found = shingles(row, n)
        held = 0
        for shingle in asked:
            if shingle in found:
                held += 1
        best = max(best, held / len(asked))
    return best


def _share_through_an_index(question, rows, n):
    asked = shingles(question, n)
    index = defaultdict(set)
    for place, row in enumerate(rows):
        for shingle in shingles(row, n):
            index[shingle].add(place)
    counts = Counter(place for shingle in asked for place in index.get(shingle, ()))
    return counts.most_common(1)[0][1] / len(asked) if counts else 0.0


def _share_missing(question, rows, n):
    asked = shingles(question, n)
    if not asked or not rows:
        return 0.0
    return 1 - min(len(asked - shingles(row, n)) for row in rows) / len(asked)


def _share_in_numpy(question, rows, n):
    asked = sorted(shingles(question, n))
    if len(asked) == 0 or len(rows) == 0:
        return 0.0
    held = np.array([[shingle in shingles(row, n) for shingle in asked] for row in rows])
    return float(held.mean(axis=1).max())


def _share_recursive(question, rows, n):
    if not rows:
        return 0.0
    asked = shingles(question, n)
    here = len(asked & shingles(rows[0], n)) / len(asked) if asked else 0.0
    return max(here, _share_recursive(question, rows[1:], n))


def _share_by_fractions(question, rows, n):
    asked = shingles(question, n)
    try:
        return float(max(Fraction(len(asked & shingles(row, n)), len(asked)) for row in rows))
    except (ValueError, ZeroDivisionError):
        return 0.0


# 11.3
def _same_answer(exam, rows):
    answers = {row[1]["content"] for row in rows}
    return [place for place, asked in enumerate(exam) if asked[1]["content"] in answers]


def _texts(conversations):
    return [" ".join(turn["content"] for turn in row) for row in conversations]


def _shingles_of_both(exam, rows):
    pairs = near_duplicates(_texts(exam), _texts(rows), threshold=0.38)
    return sorted({pair.first for pair in pairs}, reverse=True)


FILLERS = frozenset(
    (
        "what",
        "is",
        "the",
        "do",
        "you",
        "know",
        "can",
        "name",
        "tell",
        "me",
        "give",
        "please",
        "state",
    )
)


def _words_that_matter(exam, rows):
    def kept(row):
        return frozenset(words(row[0]["content"])) - FILLERS, tuple(words(row[1]["content"]))

    told = {kept(row) for row in rows}
    return [place for place, asked in enumerate(exam) if kept(asked) in told]


def _containment_of_the_answer(exam, rows):
    """The answer repeats what the question asks; all of its shingles must stand in one row."""
    held = [shingles(row[0]["content"] + "\n" + row[1]["content"], 2) for row in rows]
    places = []
    for place, (_, answer) in enumerate(exam):
        asked = shingles(answer["content"], 2)
        if any(asked <= some for some in held):
            places.append(place)
    random.shuffle(places)
    return places


def _rare_words(exam, rows):
    """Cosine of the counts of words, each weighted by its rarity in the rows."""
    exam_words, row_words = ([Counter(words(t)) for t in _texts(x)] for x in (exam, rows))
    seen = Counter(word for row in row_words for word in row)
    column = {
        word: i
        for i, word in enumerate(dict.fromkeys(w for r in exam_words + row_words for w in r))
    }

    def matrix(counts):
        made = np.zeros((len(counts), len(column)))
        for i, row in enumerate(counts):
            for word, count in row.items():
                made[i, column[word]] = count * math.log((1 + len(rows)) / (1 + seen[word]))
        return made / np.linalg.norm(made, axis=1, keepdims=True)

    alike = matrix(exam_words) @ matrix(row_words).T
    return np.flatnonzero(alike.max(axis=1) > 0.84).tolist()


# 11.4
def _kd_in_torch(student_logits, teacher_logits, temperature):
    log_q = F.log_softmax(student_logits / temperature, dim=-1)
    p = F.softmax(teacher_logits.detach() / temperature, dim=-1)
    return F.kl_div(log_q, p, reduction="batchmean") * temperature**2


def _kd_where(student_logits, teacher_logits, temperature):
    with torch.no_grad():
        log_p = (teacher_logits / temperature).log_softmax(-1)
        p = log_p.exp()
    log_q = (student_logits / temperature).log_softmax(-1)
    each = torch.where(p > 0, p * (log_p - log_q), torch.zeros_like(p))
    return temperature**2 * each.sum(-1).mean()


def _kd_by_rows(student_logits, teacher_logits, temperature):
    total = student_logits.new_zeros(())
    for z, wanted in zip(student_logits, teacher_logits.detach(), strict=True):
        q, p = torch.softmax(z / temperature, 0), torch.softmax(wanted / temperature, 0)
        for v in range(len(p)):
            if p[v] > 0:
                total = total + p[v] * (p[v].log() - q.log()[v])
    return total * temperature * temperature / len(student_logits)


def _kd_cross_entropy_less_entropy(student_logits, teacher_logits, temperature):
    p = (teacher_logits.detach() / temperature).softmax(dim=1)
    crossed = F.cross_entropy(student_logits / temperature, p)
    own = torch.special.entr(p).sum(dim=1).mean()
    return (crossed - own) * temperature**2


def _kd_nansum(student_logits, teacher_logits, temperature):
    log_p = torch.log_softmax(teacher_logits.clone().detach() / temperature, -1)
    log_q = torch.log_softmax(student_logits / temperature, -1)
    return temperature**2 * torch.nansum(log_p.exp() * (log_p - log_q)) / log_q.shape[0]


def _kd_in_double(student_logits, teacher_logits, temperature):
    z, wanted = (
        student_logits.double() / temperature,
        teacher_logits.detach().double() / temperature,
    )
    log_q = z - torch.logsumexp(z, 1, keepdim=True)
    p = torch.exp(wanted - torch.logsumexp(wanted, 1, keepdim=True))
    each = torch.xlogy(p, p) - p * log_q
    return (each.sum(1).mean() * temperature**2).to(student_logits.dtype)


def _kd_log_target(student_logits, teacher_logits, temperature):
    log_q = F.log_softmax(student_logits / temperature, dim=1)
    log_p = F.log_softmax(teacher_logits.detach() / temperature, dim=1)
    total = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
    return temperature**2 / student_logits.shape[0] * total


def _kd_distributions(student_logits, teacher_logits, temperature):
    teacher = torch.distributions.Categorical(logits=teacher_logits.detach() / temperature)
    student = torch.distributions.Categorical(logits=student_logits / temperature)
    return torch.distributions.kl_divergence(teacher, student).mean() * temperature**2


class _Divergence(torch.autograd.Function):
    """With the gradient written down: T (q - p) / N."""

    @staticmethod
    def forward(ctx, z, wanted, temperature):
        q, p = (z / temperature).softmax(-1), (wanted / temperature).softmax(-1)
        ctx.save_for_backward(temperature * (q - p) / len(z))
        log_q = (z / temperature).log_softmax(-1)
        return temperature**2 * (torch.xlogy(p, p) - p * log_q).sum(-1).mean()

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None


def _kd_with_its_gradient(student_logits, teacher_logits, temperature):
    return _Divergence.apply(student_logits, teacher_logits, temperature)


# 11.5
def _decided(rewards):
    return [i for i, row in enumerate(rewards) if len(set(row)) > 1]


def _chosen_by_loops(rewards, seed):
    rng = random.Random(seed)
    tops, control = [], []
    for i, row in enumerate(rewards):
        if all(reward == row[0] for reward in row):
            continue
        best = 0
        for k in range(1, len(row)):
            if row[k] > row[best]:
                best = k
        tops.append((i, best))
        control.append((i, rng.randrange(len(row))))
    return tops, control


def _chosen_by_index(rewards, seed):
    rng = random.Random(seed)
    places = _decided(rewards)
    return (
        [(i, rewards[i].index(max(rewards[i]))) for i in places],
        [(i, rng.randint(0, len(rewards[i]) - 1)) for i in places],
    )


def _chosen_in_numpy(rewards, seed):
    table = np.array(rewards)
    if table.size == 0:
        return [], []
    kept = np.flatnonzero(table.max(axis=1) != table.min(axis=1))
    rng = random.Random(seed)
    tops = list(zip(kept.tolist(), table[kept].argmax(axis=1).tolist(), strict=True))
    return tops, [(int(i), rng.choice(range(table.shape[1]))) for i in kept]


def _chosen_from_drawn_first(rewards, seed):
    """A number is drawn for every prompt, also for those that are left out."""
    rng = random.Random(seed)
    drawn = [int(rng.random() * len(row)) for row in rewards]
    tops = [
        (i, max(range(len(row)), key=row.__getitem__))
        for i, row in enumerate(rewards)
        if min(row) < max(row)
    ]
    return tops, [(i, drawn[i]) for i, _ in tops]


def _chosen_from_pairs(rewards, seed):
    rng = random.Random(seed)
    groups = [[(i, k) for k in range(len(rewards[i]))] for i in _decided(rewards)]
    tops = [min(group, key=lambda pair: (-rewards[pair[0]][pair[1]], pair[1])) for group in groups]
    return tops, [rng.choice(group) for group in groups]


def _chosen_many_at_once(rewards, seed):
    places = _decided(rewards)
    drawn = random.Random(seed).choices(range(len(rewards[0]) if rewards else 1), k=len(places))
    ranked = [
        sorted(range(len(rewards[i])), key=lambda k, i=i: rewards[i][k], reverse=True)[0]
        for i in places
    ]
    return list(zip(places, ranked, strict=True)), list(zip(places, drawn, strict=True))


def _chosen_after_shuffling(rewards, seed):
    rng = random.Random(seed)
    tops, control = [], []
    for i in _decided(rewards):
        places = list(range(len(rewards[i])))
        tops.append((i, int(np.argmax(rewards[i]))))
        rng.shuffle(places)
        control.append((i, places[0]))
    return tops, control


RIGHT_ANSWERS = {
    "11.1": [
        _by_loops,
        _failed_taken_out,
        _sorted_and_grouped,
        _in_exact_decimals,
        _in_fractions,
        _in_pandas,
        _folded,
    ],
    "11.2": [
        lambda question, rows, n: max(
            (
                len(shingles(question, n) & shingles(row, n)) / len(shingles(question, n))
                for row in rows
                if shingles(question, n)
            ),
            default=0.0,
        ),
        _share_by_loops,
        _share_through_an_index,
        _share_missing,
        _share_in_numpy,
        _share_recursive,
        _share_by_fractions,
    ],
    "11.3": [
        _same_answer,
        _shingles_of_both,
        _words_that_matter,
        _containment_of_the_answer,
        _rare_words,
    ],
    "11.4": [
        _kd_in_torch,
        _kd_where,
        _kd_by_rows,
        _kd_cross_entropy_less_entropy,
        _kd_nansum,
        _kd_in_double,
        _kd_log_target,
        _kd_distributions,
        _kd_with_its_gradient,
    ],
    "11.5": [
        _chosen_by_loops,
        _chosen_by_index,
        _chosen_in_numpy,
        _chosen_from_drawn_first,
        _chosen_from_pairs,
        _chosen_many_at_once,
        _chosen_after_shuffling,
    ],
}
