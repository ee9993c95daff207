"""Right answers to the exercises of chapter 16b, each in another style; written from the statements
alone."""

import math
import random
import re
from collections import Counter
from fractions import Fraction
from itertools import combinations, permutations, product

import numpy as np
import torch
from rouge_score import rouge_scorer

from sft_lab.atlas import STATEMENTS
from sft_lab.course.score_runs import list_said
from sft_lab.overlap import bleu, rouge_l, rouge_n, split_words


# 16b.1
def _loops(groups):
    count, total = 0.0, 0
    for group in groups:
        for i in range(len(group)):
            for j in range(i):
                (score, truth), (other_score, other_truth) = group[i], group[j]
                if truth == other_truth:
                    continue
                total += 1
                if score == other_score:
                    count += 0.5
                elif (score > other_score) == (truth > other_truth):
                    count += 1
    return count / total


def _ordered_pairs(groups):
    found = [
        1.0 if better[0] > worse[0] else 0.5 if better[0] == worse[0] else 0.0
        for group in groups
        for better, worse in permutations(group, 2)
        if better[1] > worse[1]
    ]
    return math.fsum(found) / len(found)


def _in_numpy(groups):
    credit = pairs = 0
    for group in groups:
        table = np.array(group, dtype=float).reshape(-1, 2)
        by_score = np.sign(table[:, None, 0] - table[None, :, 0])
        truer = table[:, None, 1] > table[None, :, 1]
        credit += ((by_score + 1) / 2 * truer).sum()
        pairs += truer.sum()
    return credit / pairs


def _in_torch(groups):
    counts = []
    for group in groups:
        if len(group) < 2:
            continue
        score, truth = torch.tensor(group, dtype=torch.float64).T
        gap = score[:, None] - score[None]
        counts.append(torch.heaviside(gap, torch.tensor(0.5).double())[truth[:, None] > truth])
    return torch.cat(counts).mean().item()


def _exact(groups):
    halves = [1 + (s > t) - (s < t) for g in groups for (s, a), (t, b) in product(g, g) if a > b]
    return float(Fraction(sum(halves), 2 * len(halves)))


def _recursive(groups):
    def count(group):
        if not group:
            return 0, 0
        (score, truth), *rest = group
        credit, pairs = count(rest)
        for other_score, other_truth in rest:
            if other_truth != truth:
                pairs += 1
                gap = (score - other_score) * (1 if truth > other_truth else -1)
                credit += 1 if gap > 0 else 0 if gap < 0 else 0.5
        return credit, pairs

    counts = [count(group) for group in groups]
    return sum(credit for credit, _ in counts) / sum(pairs for _, pairs in counts)


def _sorted_copies(groups):
    credit = []
    for group in groups:
        by_truth = sorted(group, key=lambda one: one[1])
        for (low, less), (high, more) in combinations(by_truth, 2):
            if less < more:
                credit.append((high > low) + 0.5 * (high == low))
    return float(np.mean(credit))


# 16b.2
def _tree(score):
    alone = score("red", "red blue green black")
    if math.isclose(alone, 1):
        return "ROUGE-1 precision"
    if math.isclose(alone, 0.25):
        return "ROUGE-1 recall"
    if math.isclose(alone, 0.4):
        turned = score("black green blue red", "red blue green black")
        return "ROUGE-1 F1" if math.isclose(turned, 1) else "ROUGE-L F1"
    near = score("red blue green black white grey", "red blue green black white pink")
    return "BLEU" if near > 0 else "exact match"


def _one_question(score):
    found = score("f g h i a b c d", "a b c d e f g h i j")
    known = {
        "exact match": 0.0,
        "ROUGE-1 precision": 1.0,
        "ROUGE-1 recall": 0.8,
        "ROUGE-1 F1": 8 / 9,
        "ROUGE-L F1": 4 / 9,
        "BLEU": math.exp(-0.25) * (6 / 7 * 4 / 6 * 2 / 5) ** 0.25,
    }
    return min(known, key=lambda name: abs(known[name] - found))


def _six_scores(output, reference):
    ours, wanted = split_words(output), split_words(reference)
    words = rouge_n(ours, [wanted], 1)
    return {
        "exact match": float(ours == wanted),
        "ROUGE-1 precision": words.precision,
        "ROUGE-1 recall": words.recall,
        "ROUGE-1 F1": words.f1,
        "ROUGE-L F1": rouge_l(ours, [wanted]).f1,
        "BLEU": bleu([ours], [[wanted]]) / 100,
    }


def _compare_with_all(score):
    words, rng = ["tree", "house", "river", "stone", "bird", "cloud"], random.Random(0)
    distances = Counter()
    for _ in range(30):
        reference = rng.choices(words, k=9) + words[:5]
        output = rng.choices(words, k=rng.randint(4, 12)) + words[:5]
        found = score(" ".join(output), " ".join(reference))
        for name, value in _six_scores(" ".join(output), " ".join(reference)).items():
            distances[name] += abs(value - found)
    return min(distances, key=distances.get)


def _by_library(score):
    scorer = rouge_scorer.RougeScorer(["rouge1", "rougeL"])
    output = "Lima, they say, of Peru the capital is and ever was"
    reference = "The capital of Peru is Lima."
    one, longest = (scorer.score(reference, output)[name] for name in ("rouge1", "rougeL"))
    found = score(output, reference)
    for name, value in (
        ("ROUGE-1 precision", one.precision),
        ("ROUGE-1 recall", one.recall),
        ("ROUGE-1 F1", one.fmeasure),
        ("ROUGE-L F1", longest.fmeasure),
    ):
        if abs(found - value) < 1e-6:
            return name
    same = score("the cat sat on the mat today", "the cat sat on the mat")
    return "exact match" if same == 0 else "BLEU"


def _properties(score):
    short, long = "we saw seven ships", "we saw seven ships come in"
    turned = "in come ships seven saw we"
    order_counts = score(turned, long) < score(long, long) - 1e-9
    symmetric = abs(score(short, long) - score(long, short)) < 1e-9
    match order_counts, symmetric:
        case False, True:
            return "ROUGE-1 F1"
        case False, False:
            return "ROUGE-1 precision" if score(short, long) > 0.99 else "ROUGE-1 recall"
        case True, True if score(short, long) > 0:
            return "ROUGE-L F1"
    return "BLEU" if score(long, short) > 0 else "exact match"


def _eliminate(score):
    assert score("", "one two") == 0
    left = set(_six_scores("", ""))
    questions = [
        ("One, two!", "one two"),
        ("one", "one two three four"),
        ("five four three two one", "One two three four five."),
        ("one two three four five six seven", "one two three four five"),
        ("one two three four five", "one two three four five six seven"),
    ]
    for output, reference in questions[2:]:
        found = score(output, reference)
        left &= {n for n, v in _six_scores(output, reference).items() if abs(v - found) < 0.01}
    (name,) = left
    return name


# 16b.3
def _notes_about(passage, subject):
    notes = passage.removeprefix("Notes: ").rstrip(".").split(". ")
    about = re.compile(rf"\b{re.escape(subject)}\b", re.IGNORECASE)
    return [note for note in notes if about.search(note)]


def _reversed(passage, subject):
    return " ".join(" ".join(_notes_about(passage, subject)).split()[::-1])


def _alphabetical(passage, subject):
    words = [w for note in _notes_about(passage, subject) for w in split_words(note)]
    return " ".join(sorted(words))


def _denied(passage, subject):
    return ". ".join(n.replace(" is ", " is not ", 1) for n in _notes_about(passage, subject)) + "."


def _round_robin(passage, subject):
    rows = [note.split() for note in _notes_about(passage, subject)]
    return " ".join(
        row[place] for place in range(max(map(len, rows))) for row in rows if place < len(row)
    )


def _frames_dropped(passage, subject):
    text = re.sub(r"We know that|\b[Ff]or\b|[:,]", " ", " ; ".join(_notes_about(passage, subject)))
    return " ".join(reversed(text.replace(" ; ", " of ").split()))


def _parse(sentence):
    """(relation, subject, value) of one of the five wordings."""
    sentence = sentence.strip().rstrip(".")
    sentence = re.sub(r"^We know that ", "", sentence)
    for pattern in (
        r"For (?P<s>[^,]+), the (?P<r>.+?) is (?P<v>.+)",
        r"(?P<s>[^:]+): the (?P<r>.+?) is (?P<v>.+)",
        r"[Tt]he (?P<r>[a-z ]+?) of (?P<s>[A-Z]\w*|the \w+) is (?P<v>.+)",
        r"(?P<v>.+) is the (?P<r>.+?) of (?P<s>.+)",
    ):
        if found := re.fullmatch(pattern, sentence):
            return tuple(part.lower() for part in found.group("r", "s", "v"))
    return ("", "", sentence.lower())


def _named_nonsense(passage, subject):
    facts = [_parse(note) for note in _notes_about(passage, subject)]
    return " ".join(f"Is {v} {s} the {r} of?" for r, s, v in facts)


def _halves_turned(passage, subject):
    half = []
    for note in _notes_about(passage, subject):
        words = note.split()
        half.append(" ".join(words[1::2] + words[::2]))
    return "\n".join(half)


# 16b.4
TIMES, VERBS = ("昨天", "今天", "明天"), ("爱", "喜欢", "看", "想")
WORDS = (*TIMES, *VERBS, *"我你他她", "书", "中国", "水", "花", "山", "海")


def _by_regex(text):
    tokens, verb = [], False
    for word in re.findall(r"[昨今明]天|喜欢|中国|[^。\s]", text):
        if word in VERBS:
            verb = True
            tokens.append(word)
        elif word in TIMES:
            tokens.append(word)
        else:
            tokens.append(("whom " if verb else "who ") + word)
    return tokens


def _by_partition(text):
    text = text.replace("。", "").strip()
    tokens = []
    for time in TIMES:
        while time in text:
            tokens.append(f"T:{time}")
            text = text.replace(time, "", 1)
    text = text.replace("喜欢", "X").replace("中国", "C")
    place = next((i for i, letter in enumerate(text) if letter in "爱X看想"), len(text))
    tokens += [f"S:{letter}" for letter in text[:place]]
    tokens += [f"V:{letter}" for letter in text[place : place + 1]]
    return tokens + [f"O:{letter}" for letter in text[place + 1 :]]


def _longest_match(text):
    tokens, role = [], 0
    while text:
        word = next((w for w in sorted(WORDS, key=len)[::-1] if text.startswith(w)), text[0])
        text = text[len(word) :]
        if word == "。":
            continue
        if word in VERBS:
            role = 1
        tokens.append(word if word in TIMES + VERBS else f"{word}{role}")
    return tokens


def _from_the_lab(text):
    return list_said("translations", text)


def _recursively(text, behind=False):
    if not text:
        return []
    for word in (*TIMES, *VERBS):
        if text.startswith(word):
            return [word, *_recursively(text[len(word) :], behind or word in VERBS)]
    if text.startswith("中国"):
        return ["China" + "-object" * behind, *_recursively(text[2:], behind)]
    own = [] if text[0] in "。 \n" else [text[0] + "-object" * behind]
    return own + _recursively(text[1:], behind)


def _sorted_slots(text):
    split = re.split(r"(爱|喜欢|看|想)", text.strip("。"), maxsplit=1)
    split += [""] * (3 - len(split))
    slots = {"who": split[0], "does": split[1], "whom": split[2]}
    tokens = [t for t in TIMES for _ in range(text.count(t))]
    for slot, words in slots.items():
        for time in TIMES:
            words = words.replace(time, "")
        tokens += [f"{slot}={w}" for w in re.findall("中国|喜欢|[^。]", words)]
    return sorted(tokens)


# 16b.5
def _sentences(text):
    return [part.strip() for part in text.split(".") if part.strip()]


def _of_parsed(output, reference):
    said, wanted = ([_parse(s) for s in _sentences(text)] for text in (output, reference))
    right = len(set(said) & set(wanted))
    return 2 * right / (len(said) + len(wanted))


FRAME = {"the", "of", "is", "for", "we", "know", "that"}


def _bag(sentence):
    return " ".join(sorted(w for w in split_words(sentence) if w not in FRAME))


def _of_bags(output, reference):
    said = Counter(map(_bag, _sentences(output)))
    wanted = Counter(map(_bag, _sentences(reference)))
    return 200 * (said & wanted).total() / (said.total() + wanted.total())


def _jaccard(output, reference):
    said = [frozenset(split_words(s)) - FRAME for s in _sentences(output)]
    wanted = {frozenset(split_words(s)) - FRAME for s in _sentences(reference)}
    right = len(wanted.intersection(said))
    return Fraction(right, len(said) + len(wanted) - right)


def _by_rouge(output, reference):
    ours, wanted = ([_bag(s) for s in _sentences(text)] for text in (output, reference))
    return np.float64(rouge_n(ours, [wanted], 1).f1)


def _mistakes(output, reference):
    """Not above 0: minus the things missing or said in vain, for each thing said."""
    open_facts, vain = list(map(_parse, _sentences(reference))), 0
    said = list(map(_parse, _sentences(output)))
    total = len(said) + len(open_facts)
    for fact in said:
        if fact in open_facts:
            open_facts.remove(fact)
        else:
            vain += 1
    return -(vain + len(open_facts)) / total


def _all_wordings(output, reference):
    said, right = {s.lower() for s in _sentences(output)}, 0
    for relation, subject, value in map(_parse, _sentences(reference)):
        ways = {
            f"the {relation} of {subject} is {value}",
            f"{value} is the {relation} of {subject}",
            f"for {subject}, the {relation} is {value}",
            f"{subject}: the {relation} is {value}",
            f"we know that the {relation} of {subject} is {value}",
        }
        assert len(ways) == len(STATEMENTS)
        right += bool(ways & said)
    return right / (len(_sentences(output)) + 3)


RIGHT_ANSWERS = {
    "16b.1": [
        *(_loops, _ordered_pairs, _in_numpy, _in_torch, _exact, _recursive, _sorted_copies),
    ],
    "16b.2": [_tree, _one_question, _compare_with_all, _by_library, _properties, _eliminate],
    "16b.3": [
        *(_reversed, _alphabetical, _denied, _round_robin, _frames_dropped, _named_nonsense),
        _halves_turned,
    ],
    "16b.4": [
        *(_by_regex, _by_partition, _longest_match, _from_the_lab, _recursively, _sorted_slots),
    ],
    "16b.5": [_of_parsed, _of_bags, _jaccard, _by_rouge, _mistakes, _all_wordings],
}
