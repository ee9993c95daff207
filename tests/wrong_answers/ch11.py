"""Wrong answers to the exercises of chapter 11, each with what its reader is told."""

import random

import torch
import torch.nn.functional as F

from sft_lab.course.data_runs import as_texts
from sft_lab.duplicates import jaccard, near_duplicates, shingles


def _cheapest(judge=min, cost=None, passes=lambda score, bar: score >= bar):
    def answer(rows, prices, bar):
        scores = {}
        for row in rows:
            scores.setdefault((row["distinct"], row["wrong"]), []).append(row["facts"])
        good = [design for design, some in scores.items() if passes(judge(some), bar)]
        price = cost or (lambda design, prices: design[0] * prices[design[1]])
        return min(good, key=lambda d: (price(d, prices), d[0]), default=None)

    return answer


def _mean(some):
    return sum(some) / len(some)


def _share(divisor, choose=max):
    def answer(question, rows, n):
        asked = shingles(question, n)
        found = [len(asked & shingles(row, n)) / max(1, divisor(asked, row, n)) for row in rows]
        return float(choose(found)) if found and asked else 0.0

    return answer


def _jaccard(question, rows, n):
    return max((jaccard(shingles(question, n), shingles(row, n)) for row in rows), default=0.0)


def _all_rows_at_once(question, rows, n):
    asked = shingles(question, n)
    held = frozenset().union(*(shingles(row, n) for row in rows))
    return len(asked & held) / len(asked) if asked else 0.0


def _audit(text_of, threshold, n=3):
    def answer(exam, rows):
        pairs = near_duplicates(text_of(exam), text_of(rows), threshold=threshold, n=n)
        return sorted({pair.first for pair in pairs})

    return answer


def _questions(conversations):
    return [row[0]["content"] for row in conversations]


def _places_in_the_rows(exam, rows):
    pairs = near_duplicates(as_texts(exam), as_texts(rows), threshold=0.37)
    return sorted({pair.second for pair in pairs})


def _kd(form):
    def answer(student_logits, teacher_logits, temperature):
        log_q = (student_logits / temperature).log_softmax(-1)
        log_p = (teacher_logits.detach() / temperature).log_softmax(-1)
        return form(log_q, log_p, temperature)

    return answer


def _kl(log_q, log_p):
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def _teacher_learns(student_logits, teacher_logits, temperature):
    log_q = (student_logits / temperature).log_softmax(-1)
    log_p = (teacher_logits / temperature).log_softmax(-1)
    return temperature**2 * _kl(log_q, log_p)


def _log_of_softmax(student_logits, teacher_logits, temperature):
    q = (student_logits / temperature).softmax(-1)
    p = (teacher_logits.detach() / temperature).softmax(-1)
    return temperature**2 * (p * (p.log() - q.log())).sum(-1).mean()


def _student_at_one(student_logits, teacher_logits, temperature):
    log_p = (teacher_logits.detach() / temperature).log_softmax(-1)
    return temperature**2 * _kl(student_logits.log_softmax(-1), log_p)


def _select(draw, keep=lambda some: min(some) < max(some), top=None):
    """tops and control, from how a prompt's control is drawn, which prompts stay, and its top."""

    def answer(rewards, seed):
        rng = random.Random(seed)
        kept = [i for i, some in enumerate(rewards) if keep(some)]
        choose = top or (lambda some: some.index(max(some)))
        return [(i, choose(rewards[i])) for i in kept], [(i, draw(rng, rewards[i])) for i in kept]

    return answer


def _any_sample(rng, some):
    return rng.randrange(len(some))


def _other_than_the_top(rng, some):
    return rng.choice([k for k in range(len(some)) if k != some.index(max(some))])


def _one_draw_for_all(rewards, seed):
    tops, _ = _select(_any_sample)(rewards, seed)
    return tops, [(i, random.Random(seed).randrange(len(rewards[0]))) for i, _ in tops]


def _control_of_all_prompts(rewards, seed):
    tops, _ = _select(_any_sample)(rewards, seed)
    rng = random.Random(seed)
    places = sorted(rng.sample(range(len(rewards)), len(tops)))
    return tops, [(i, rng.randrange(len(rewards[0]))) for i in places]


def _forgets_the_seed(rewards, seed):
    return _select(_any_sample)(rewards, 5)


WRONG_ANSWERS = {
    "11.1": [
        (_cheapest(judge=_mean), "the mean hides a bad seed"),
        (_cheapest(judge=max), "this looks at the best seed"),
        (_cheapest(cost=lambda design, prices: design[0]), "this has the fewest rows"),
        (_cheapest(cost=lambda design, prices: prices[design[1]]), "the price is for each row"),
        (_cheapest(passes=lambda score, bar: score > bar), "a score equal to the bar reaches it"),
    ],
    "11.2": [
        (_jaccard, "this is Jaccard"),
        (_all_rows_at_once, "the shingles of all rows are thrown together"),
        (_share(lambda asked, row, n: len(shingles(row, n))), "not by those of the row"),
        (_share(lambda asked, row, n: len(asked), _mean), "the largest, not the mean"),
        (_share(lambda asked, row, n: 1), "this is a count"),
    ],
    "11.3": [
        (_audit(as_texts, 0.95), "were not found"),
        (
            _audit(_questions, 0.95),
            "stand there word for word; a reworded question keeps its answer",
        ),
        (_audit(as_texts, 0.3, n=1), "findings never leaked"),
        (_audit(_questions, 0.35), "findings never leaked"),
        (lambda exam, rows: list(range(len(exam))), "findings never leaked"),
        (lambda exam, rows: [], "72 of 72 leaked questions were not found"),
        (_places_in_the_rows, "places in the exam, not in the tuning set"),
    ],
    "11.4": [
        (_kd(lambda q, p, t: _kl(q, p)), "T² is missing"),
        (_kd(lambda q, p, t: t * _kl(q, p)), "the factor is T², not T"),
        (_kd(lambda q, p, t: t**2 * _kl(p, q)), "the other way round"),
        (_kd(lambda q, p, t: t**2 * _kl(q, p) / q.shape[1]), "a mean over all numbers"),
        (_kd(lambda q, p, t: t**2 * _kl(q, p) * len(q)), "this is the sum over the rows"),
        (_kd(lambda q, p, t: -(t**2) * (p.exp() * q).sum(-1).mean()), "this is the cross-entropy"),
        (_teacher_learns, "the gradient reaches the teacher"),
        (_log_of_softmax, "nan: where the teacher's probability is 0"),
        (_student_at_one, "the student's logits are to be divided"),
        (lambda s, t, temperature: torch.tensor(1.0), "no gradient flows to the student"),
    ],
    "11.5": [
        (_select(_any_sample, keep=lambda some: True), "have nothing to choose"),
        (
            _select(_any_sample, top=lambda some: len(some) - 1 - some[::-1].index(max(some))),
            "of equal rewards take the first",
        ),
        (_select(_any_sample, top=lambda some: some.index(min(some))), "this is the lowest reward"),
        (_select(_other_than_the_top), "the control never takes the top"),
        (_one_draw_for_all, "a fair draw"),
        (_control_of_all_prompts, "the control has other prompts"),
        (_forgets_the_seed, "the draw does not depend on the seed"),
    ],
}
