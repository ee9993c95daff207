"""Wrong answers to the exercises of chapter 09, each with what its reader is told."""

import random
import re


# 9.1
def _tidy(text):
    return " ".join(text.split()).rstrip(" .")


def _normalised(change):
    """Compares both sides after the same change."""
    return lambda answer, reference: change(answer) == change(reference)


def _no_spaces(text):
    return "".join(text.split()).rstrip(".")


def _one_starts_the_other(answer, reference):
    one, other = _tidy(answer), _tidy(reference)
    return bool(one) and (one.startswith(other) or other.startswith(one))


# 9.6
def _show(pairs, key):
    return [(b, a) if swapped else (a, b) for (a, b), swapped in zip(pairs, key, strict=True)], key


def _coins(pairs, seed):
    coin = random.Random(seed)
    return [coin.random() < 0.5 for _ in pairs]


def _half(pairs, seed):
    key = [i < len(pairs) // 2 for i in range(len(pairs))]
    random.Random(seed).shuffle(key)
    return key


def _in_place(pairs, seed):
    key = _coins(pairs, seed)
    for i, swapped in enumerate(key):
        pairs[i] = pairs[i][::-1] if swapped else pairs[i]
    return pairs, key


def _shuffles_order(pairs, seed):
    return random.Random(seed).sample(pairs, len(pairs)), _coins(pairs, seed)


def _swaps(coins):
    return lambda pairs, seed: _show(pairs, coins(pairs, seed))


def _two_coins(pairs, seed):
    first, second = _coins(pairs, seed), _coins(pairs, seed + 999)
    return [one and other for one, other in zip(first, second, strict=True)]


def _other_key(pairs, seed):
    shown, key = _show(pairs, _coins(pairs, seed))
    return shown, [not swapped for swapped in key]


# 9.7
def _begin(question, ending=""):
    for opening in ("What is the ", "Tell me the ", "Can you name the "):
        question = question.removeprefix(opening)
    return f"The {question.rstrip('?.')} is{ending}"


def _one_form(question):
    return _begin(question) if question.startswith("What is") else question


def _chat(question):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


WRONG_ANSWERS = {
    "9.1": [
        (lambda answer, reference: answer == reference, "must not matter"),
        (lambda answer, reference: _tidy(answer) == reference, "treat both sides alike"),
        (_normalised(lambda text: _tidy(text).lower()), "case carries meaning"),
        (_normalised(lambda text: _tidy(text.replace(".", ""))), "45 is not 4.5"),
        (_normalised(lambda text: _tidy(re.sub(r"[-+]", "", text))), "answer = '-3'"),
        (_one_starts_the_other, "an answer that goes on"),
        (lambda a, b: _tidy(b) in _tidy(a), "containing is not equalling"),
        (_normalised(lambda text: _no_spaces(text).lower()[1:]), "answer = 'AU.'"),
        (_normalised(_no_spaces), "white space was deleted"),
    ],
    "9.6": [
        (_swaps(lambda p, seed: [random.Random(seed).random() < 0.5] * len(p)), "one coin for all"),
        (_swaps(lambda p, seed: [random.Random(seed).random() < 0.5 for _ in p]), "one coin for"),
        (_swaps(lambda p, seed: [i % 2 == 0 for i in range(len(p))]), "must come from the seed"),
        (_swaps(lambda p, seed: [bool(seed >> i % 4 & 1) for i in range(len(p))]), "a pattern"),
        (_swaps(_half), "the last side follows from the others"),
        (_swaps(lambda p, seed: [random.random() < 0.5 for _ in p]), "the same seed gives another"),
        (_swaps(_two_coins), "a fair coin swaps half"),
        (_other_key, "the key does not fit"),
        (_in_place, "changed `pairs` in place"),
        (_shuffles_order, "keep the order of the pairs"),
        (lambda p, seed: _show(p, _coins(p, seed))[0], "return two things, the pairs"),
    ],
    "9.7": [
        (lambda question: question, "no answer follows a question"),
        (lambda question: f"Question: {question}\nAnswer:", "no answer follows a question"),
        (lambda question: _begin(question, " "), "the space belongs to the next token"),
        (_chat, "one untrained vector"),
        (_one_form, "in the form 'Tell me the {r} {e}.'"),
        (lambda question: _begin(question).removesuffix(" is"), "begin the one whose next word"),
        (lambda question: "", "needs something to continue"),
        (lambda question: [_begin(question)], "return a text, not list"),
    ],
}
