"""Wrong answers to the exercises of chapter 16b, written from the statements alone."""

import random
import re
from collections import Counter
from itertools import combinations, pairwise, permutations

from sft_lab.metrics import answer_f1
from sft_lab.overlap import bleu, rouge_l, rouge_n, split_words


# 16b.1
def _counts(group, tie=0.5):
    return [
        1.0 if s > t else tie if s == t else 0.0
        for (s, a), (t, b) in permutations(group, 2)
        if a > b
    ]


def _mean(values):
    return sum(values) / len(values)


def _mean_of_tasks(groups):
    return _mean([_mean(found) for found in map(_counts, groups) if found])


def _tie_is_zero(groups):
    return _mean([c for group in groups for c in _counts(group, tie=0.0)])


def _tie_is_one(groups):
    return _mean([c for group in groups for c in _counts(group, tie=1.0)])


def _ties_left_out(groups):
    return _mean([c for group in groups for c in _counts(group) if c != 0.5])


def _across_tasks(groups):
    return _mean(_counts([one for group in groups for one in group]))


def _neighbours(groups):
    return _mean([c for group in groups for two in pairwise(group) for c in _counts(two)])


def _first_is_truer(groups):
    """Keeps only pairs that stand in the order of their truth."""
    found = []
    for group in groups:
        for (s, a), (t, b) in combinations(group, 2):
            if a > b:
                found.append(1.0 if s > t else 0.5 if s == t else 0.0)
    return _mean(found or [0.0])


def _divided_by_all(groups):
    pairs = sum(len(group) * (len(group) - 1) // 2 for group in groups)
    return sum(c for group in groups for c in _counts(group)) / pairs


def _truth_first(groups):
    return _mean([c for g in groups for c in _counts([(b, a) for a, b in g])] or [0.0])


def _equal_truths_are_half(groups):
    found = []
    for group in groups:
        for (s, a), (t, b) in combinations(group, 2):
            gap = (s - t) * (a - b)
            found.append(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0)
    return _mean(found)


def _truest_only(groups):
    found = []
    for group in groups:
        best = max(group, key=lambda one: one[1], default=None)
        found += [
            1.0 if best[0] > s else 0.5 if best[0] == s else 0.0 for s, t in group if t < best[1]
        ]
    return _mean(found)


def _each_task_has_an_output(groups):
    found = []
    for group in groups:
        first = group[0]
        found += _counts([first, *group[1:]])
    return _mean(found)


def _each_task_has_a_pair(groups):
    return sum(sum(_counts(g)) for g in groups) / sum(len(_counts(g)) or 1 for g in groups)


def _sorts_in_place(groups):
    for group in groups:
        group.sort(key=lambda one: one[1])
    return _mean([c for group in groups for c in _counts(group)])


def _rounded(groups):
    return round(_mean([c for group in groups for c in _counts(group)]), 1)


def _percent(groups):
    return 100 * _mean([c for group in groups for c in _counts(group)])


def _true_or_not(groups):
    return _mean([c for g in groups for c in _counts([(s, t >= 0.5) for s, t in g])] or [0.0])


def _without_doubles(groups):
    return _mean([c for group in groups for c in _counts(sorted(set(group)))])


def _both_numbers(groups):
    found = [c for group in groups for c in _counts(group)]
    return _mean(found), len(found)


def _as_text(groups):
    return str(_mean([c for group in groups for c in _counts(group)]))


# 16b.2
def _near(one, other):
    return abs(one - other) < 1e-6


def _right_name(score):
    found = score("f g h i a b c d", "a b c d e f g h i j")
    known = {
        "exact match": 0.0,
        "ROUGE-1 precision": 1.0,
        "ROUGE-1 recall": 0.8,
        "ROUGE-1 F1": 8 / 9,
        "ROUGE-L F1": 4 / 9,
        "BLEU": 0.5384,
    }
    return min(known, key=lambda name: abs(known[name] - found))


def _sides_swapped(score):
    swap = {"ROUGE-1 recall": "ROUGE-1 precision", "ROUGE-1 precision": "ROUGE-1 recall"}
    name = _right_name(score)
    return swap.get(name, name)


def _no_order(score):
    """Does not ask about order."""
    name = _right_name(score)
    return "ROUGE-1 F1" if name == "ROUGE-L F1" else name


def _always_in_order(score):
    name = _right_name(score)
    return "ROUGE-L F1" if name == "ROUGE-1 F1" else name


def _short_texts_alone(score):
    found = score("a", "b c d e")
    return "exact match" if found == 0 else "BLEU"


def _zero_is_exact(score):
    """Scrambled text: BLEU is as low as exact match."""
    if score("d c b a", "a b c d") < 0.9:
        return "ROUGE-L F1" if score("a c", "a b c") > 0.7 else "exact match"
    return _right_name(score)


def _perfect_text(score):
    return "exact match" if score("a b c d e", "a b c d e") == 1 else "BLEU"


def _no_sides(score):
    return _right_name(score).replace(" precision", "").replace(" recall", "").replace(" F1", "")


def _small_letters(score):
    return _right_name(score).lower()


def _in_a_list(score):
    return [_right_name(score)]


def _printed(score):
    _right_name(score)


def _guess(score):
    names = ["exact match", "ROUGE-1 precision", "ROUGE-1 recall", "ROUGE-1 F1", "BLEU"]
    return random.choice(names)


def _f1_is_a_side(score):
    name = _right_name(score)
    return "ROUGE-1 recall" if name == "ROUGE-1 F1" else name


def _bleu_is_precision(score):
    name = _right_name(score)
    return "ROUGE-1 precision" if name == "BLEU" else name


# 16b.3
def _notes(passage):
    return passage.removeprefix("Notes: ").rstrip(".").split(". ")


def _about(passage, subject):
    about = re.compile(rf"\b{re.escape(subject)}\b", re.IGNORECASE)
    return [note for note in _notes(passage) if about.search(note)]


def _whole_passage(passage, subject):
    return passage


def _the_three_notes(passage, subject):
    return ". ".join(_about(passage, subject)) + "."


def _notes_reversed(passage, subject):
    return ". ".join(reversed(_about(passage, subject))) + "."


def _shouted(passage, subject):
    return _the_three_notes(passage, subject).upper()


def _commas(passage, subject):
    return ", ".join(" ".join(_about(passage, subject)).split())


def _hyphens(passage, subject):
    return " ".join("-".join(note.split()) for note in _about(passage, subject))


def _underscores(passage, subject):
    return " ".join("_".join(note.split()) for note in _about(passage, subject))


def _wide(passage, subject):
    """Two spaces between words."""
    return "  ".join(" ".join(_about(passage, subject)).split())


def _lines(passage, subject):
    return "\n".join(" ".join(_about(passage, subject)).split())


def _nothing(passage, subject):
    return ""


def _subject_alone(passage, subject):
    return subject


def _little_words(passage, subject):
    return " ".join(["the", "is", "of", subject] * 3)


def _the_others(passage, subject):
    others = [note for note in _notes(passage) if subject.lower() not in note.lower()]
    return " ".join(" ".join(others).split()[::-1])


def _one_note(passage, subject):
    return " ".join(_about(passage, subject)[0].split()[::-1])


def _one_left_right(passage, subject):
    """Two facts are turned, the third stands."""
    first, *rest = _about(passage, subject)
    return ". ".join([first, *(" ".join(note.split()[::-1]) for note in rest)]) + "."


def _letters_turned(passage, subject):
    return " ".join(_about(passage, subject))[::-1]


def _word_list(passage, subject):
    return " ".join(_about(passage, subject)).split()[::-1]


def _not_returned(passage, subject):
    " ".join(" ".join(_about(passage, subject)).split()[::-1])


def _the_example(passage, subject):
    return "Lima is capital the Dano for"


def _thrice(passage, subject):
    return " ".join(" ".join(_about(passage, subject)).split()[::-1] * 3)


def _not_before(passage, subject):
    """A denial in front: the fact still stands in the text."""
    return " ".join(f"It is not true: {note}." for note in _about(passage, subject))


def _other_wording(passage, subject):
    """Rewords the notes that it can, and turns the rest."""
    made = []
    for note in _about(passage, subject):
        found = re.fullmatch(r"(?:We know that t|T)he (.+?) of (.+?) is (.+)", note)
        if found := found or re.fullmatch(r"(?:For )?(.+?)(?:,|:) the (.+?) is (.+)", note):
            first, second, value = found.groups()
            made.append(
                f"for {first}, the {second} is {value}"
                if ":" in note or "," in note
                else f"for {second}, the {first} is {value}"
            )
        else:
            made.append(note)
    return ". ".join(made)


# 16b.4
TIMES, VERBS = ("昨天", "今天", "明天"), ("爱", "喜欢", "看", "想")


def _characters(text):
    return [letter for letter in text if letter != "。"]


def _words(text):
    return re.findall(r"[昨今明]天|喜欢|中国|[^。\s]", text)


def _pairs(text):
    return [a + b for a, b in pairwise(text)]


def _word_pairs(text):
    return [a + b for a, b in pairwise(_words(text))]


def _whole(text):
    return [text]


def _spaces(text):
    return text.split()


def _empty(text):
    return []


def _latin(text):
    return split_words(text)


def _numbered(text):
    return [f"{i}{word}" for i, word in enumerate(_words(text))]


def _roles(text, tags=("who", "whom"), keep=lambda word: True):
    tokens, verb = [], False
    for word in _words(text):
        if word in VERBS:
            verb = True
        if keep(word):
            plain = word in TIMES + VERBS
            tokens.append(word if plain else tags[verb] + word)
    return tokens


def _same_role(text):
    return _roles(text, tags=("who", "who"))


def _objects_alone(text):
    return [token for token in _roles(text) if token.startswith("whom")]


def _no_verb(text):
    return _roles(text, keep=lambda word: word not in VERBS)


def _no_time(text):
    return _roles(text, keep=lambda word: word not in TIMES)


def _last_is_whom(text):
    """The first word is who, the last is whom: wrong where the time stands first."""
    words = _words(text)
    return ["who" + words[0], *words[1:-1], "whom" + words[-1]] if words else []


def _as_a_string(text):
    return " ".join(_roles(text))


def _as_a_generator(text):
    return (token for token in _roles(text))


def _as_a_set(text):
    return set(_roles(text))


def _sentence_of_roles(text):
    return [" ".join(sorted(_roles(text)))]


def _pronouns(text):
    return [letter for letter in text if letter in "我你他她"]


# 16b.5
FRAME = {"the", "of", "is", "for", "we", "know", "that"}


def _sentences(text):
    return [part.strip() for part in text.split(".") if part.strip()]


def _bag(sentence):
    return " ".join(sorted(w for w in split_words(sentence) if w not in FRAME))


def _facts(text):
    return [_bag(sentence) for sentence in _sentences(text)]


def _f1(said, wanted):
    right = (Counter(said) & Counter(wanted)).total()
    return 2 * right / max(1, len(said) + len(wanted))


def _rouge_l(output, reference):
    return rouge_l(split_words(output), [split_words(reference)]).f1


def _token_f1(output, reference):
    return answer_f1(output, [reference])


def _bleu(output, reference):
    return bleu([split_words(output)], [[split_words(reference)]], effective_order=True)


def _rouge_2(output, reference):
    return rouge_n(split_words(output), [split_words(reference)], 2).f1


def _recall(output, reference):
    return len(set(_facts(output)) & set(_facts(reference))) / 3


def _precision(output, reference):
    said = _facts(output)
    return sum(fact in _facts(reference) for fact in said) / len(said)


def _doubles_free(output, reference):
    """A fact said again is not said in vain here."""
    return _f1(set(_facts(output)), set(_facts(reference)))


def _one_bag(output, reference):
    return _f1(_bag(output).split(), _bag(reference).split())


def _same_place(output, reference):
    return _mean([float(a == b) for a, b in zip(_facts(output), _facts(reference), strict=False)])


def _as_written(output, reference):
    return _f1(_sentences(output), _sentences(reference))


def _exact(output, reference):
    return float(sorted(_facts(output)) == sorted(_facts(reference)))


def _lower_is_better(output, reference):
    return 1 - _f1(_facts(output), _facts(reference))


def _half_the_words(output, reference):
    """The sentences with half of their words in one of the reference."""
    wanted = [set(fact.split()) for fact in _facts(reference)]
    said = [set(fact.split()) for fact in _facts(output)]
    right = sum(any(len(one & other) * 2 >= len(one) for other in wanted) for one in said)
    return 2 * right / (len(said) + len(wanted))


def _constant(output, reference):
    return 1.0


def _sentences_found(output, reference):
    """Looks for the whole sentences of the reference in the output."""
    return sum(sentence in output for sentence in _sentences(reference))


def _as_string(output, reference):
    return f"{_f1(_facts(output), _facts(reference)):.2f}"


def _right_or_wrong(output, reference):
    """Rounded to right or wrong."""
    return round(_f1(_facts(output), _facts(reference)))


def _no_number(output, reference):
    return float("nan")


OTHER_WRONG_ANSWERS = {
    "16b.1": [
        *(_mean_of_tasks, _tie_is_zero, _tie_is_one, _ties_left_out, _across_tasks, _neighbours),
        *(_first_is_truer, _divided_by_all, _truth_first, _equal_truths_are_half, _truest_only),
        *(_each_task_has_an_output, _each_task_has_a_pair, _sorts_in_place, _rounded, _percent),
        *(_true_or_not, _without_doubles, _both_numbers, _as_text),
    ],
    "16b.2": [
        *(_sides_swapped, _no_order, _always_in_order, _short_texts_alone, _zero_is_exact),
        *(_perfect_text, _no_sides, _small_letters, _in_a_list, _printed, _guess, _f1_is_a_side),
        *(_bleu_is_precision, lambda score: "BLEU", lambda score: "exact match"),
    ],
    "16b.3": [
        *(_whole_passage, _the_three_notes, _notes_reversed, _shouted, _commas, _hyphens),
        *(_underscores, _wide, _lines, _nothing, _subject_alone, _little_words, _the_others),
        *(_one_note, _one_left_right, _letters_turned, _word_list, _not_returned, _the_example),
        *(_thrice, _not_before, _other_wording),
    ],
    "16b.4": [
        *(_characters, _words, _pairs, _word_pairs, _whole, _spaces, _empty, _latin, _numbered),
        *(_same_role, _objects_alone, _no_verb, _no_time, _last_is_whom, _as_a_string),
        *(_as_a_generator, _as_a_set, _sentence_of_roles, _pronouns),
    ],
    "16b.5": [
        *(_rouge_l, _token_f1, _bleu, _rouge_2, _recall, _precision, _doubles_free, _one_bag),
        *(_same_place, _as_written, _exact, _lower_is_better, _half_the_words, _constant),
        *(_sentences_found, _as_string, _right_or_wrong, _no_number),
    ],
}
