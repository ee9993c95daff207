"""Wrong answers to the exercises of chapter 16b, each with what its reader is told."""

import re

from sft_lab.metrics import answer_f1
from sft_lab.overlap import rouge_l, split_words


def _pairs(group):
    return [(s, t) for s, high in group for t, low in group if high > low]


def _value(better, worse, tie=0.5):
    return tie if better == worse else float(better > worse)


def _ties_lost(groups):
    found = [_value(*pair, tie=0.0) for group in groups for pair in _pairs(group)]
    return sum(found) / len(found)


def _ties_won(groups):
    found = [_value(*pair, tie=1.0) for group in groups for pair in _pairs(group)]
    return sum(found) / len(found)


def _mean_of_means(groups):
    rows = [[_value(*pair) for pair in _pairs(group)] for group in groups]
    means = [sum(row) / len(row) for row in rows if row]
    return sum(means) / len(means)


def _across_tasks(groups):
    found = [_value(*pair) for pair in _pairs([output for group in groups for output in group])]
    return sum(found) / len(found)


def _turned_round(groups):
    found = [_value(*pair) for group in groups for pair in _pairs(group)]
    return 1 - sum(found) / len(found)


def _summed(groups):
    return sum(_value(*pair) for group in groups for pair in _pairs(group))


def _two_things(groups):
    return 0.5, 1.0


def _precision_first(score):
    if score("a", "a b c") == 1:
        return "ROUGE-1 recall"
    return "ROUGE-1 precision" if score("a b c", "a") == 1 else _by_order(score)


def _by_order(score):
    if score("c b a", "a b c") == 1:
        return "ROUGE-1 F1"
    gaps = score("a x b y c z", "a b c")
    return "exact match" if gaps == 0 else "ROUGE-L F1" if gaps > 0.5 else "BLEU"


def _blind_to_order(score):
    if score("a", "a b c") == 1:
        return "ROUGE-1 precision"
    if score("a b c", "a") == 1:
        return "ROUGE-1 recall"
    found = _by_order(score)
    return "ROUGE-1 F1" if found == "ROUGE-L F1" else found


def _no_gaps(score):
    if score("a", "a b c") == 1:
        return "ROUGE-1 precision"
    if score("a b c", "a") == 1:
        return "ROUGE-1 recall"
    found = _by_order(score)
    return "BLEU" if found == "ROUGE-L F1" else found


def _own_words(score):
    return "ROUGE"


def _copies(passage, subject):
    return passage


def _notes_without_stops(passage, subject):
    notes = passage.removeprefix("Notes: ").split(". ")
    return " ".join(note for note in notes if subject in note)


def _frames(passage, subject):
    return f"We know that the of {subject} is. For {subject}, the is."


def _nothing(passage, subject):
    return ""


def _as_list(passage, subject):
    return passage.split()[::-1]


def _characters(text):
    return [mark for mark in text if mark not in "。 "]


def _spaces(text):
    return text.split()


def _neighbours(text):
    return [text[i : i + 2] for i in range(len(text) - 1)]


def _chinese_words(text):
    return re.findall("昨天|今天|明天|喜欢|中国|[^。]", text)


def _with_positions(text):
    return [f"{i}{word}" for i, word in enumerate(_chinese_words(text))]


def _a_text(text):
    return " ".join(text)


def _by_rouge_l(output, reference):
    return rouge_l(split_words(output), [split_words(reference)]).f1


def _by_token_f1(output, reference):
    return answer_f1(output, [reference])


def _contents(text):
    frame = {"the", "of", "is", "for", "we", "know", "that"}
    parts = [split_words(part) for part in text.split(".")]
    return [frozenset(words) - frame for words in parts if words]


def _recall_of_facts(output, reference):
    wanted = set(_contents(reference))
    return len(wanted & set(_contents(output))) / len(wanted)


def _same_sentences(output, reference):
    ours, wanted = output.split(". "), set(reference.split(". "))
    return 2 * len(wanted & set(ours)) / (len(ours) + len(wanted))


def _set_of_sentences(output, reference):
    ours, wanted = set(_contents(output)), set(_contents(reference))
    return len(ours & wanted)


def _turned_facts(output, reference):
    ours, wanted = _contents(output), set(_contents(reference))
    return -2 * len(wanted & set(ours)) / (len(ours) + len(wanted))


def _as_text(output, reference):
    return "0.5"


WRONG_ANSWERS = {
    "16b.1": [
        (_ties_lost, "a tie counts nothing here"),
        (_ties_won, "a tie counts as right here"),
        (_mean_of_means, "every pair counts the same"),
        (_across_tasks, "a pair has one task"),
        (_turned_round, "the sign is reversed"),
        (_summed, "divide by the number of pairs"),
        (_two_things, "expected a float"),
    ],
    "16b.2": [
        (_precision_first, "divides by the words of the"),
        (_blind_to_order, "ROUGE-L sees the order"),
        (_no_gaps, "ROUGE-L allows gaps"),
        (_own_words, "return one of"),
    ],
    "16b.3": [
        (_copies, "states a right fact"),
        (_notes_without_stops, "states a right fact"),
        (_frames, "what does token F1 not look at"),
        (_nothing, "what does token F1 not look at"),
        (_as_list, "return a text"),
    ],
    "16b.4": [
        (_characters, "95% are asked for"),
        (_spaces, "95% are asked for"),
        (_neighbours, "95% are asked for"),
        (_chinese_words, "95% are asked for"),
        (_with_positions, "95% are asked for"),
        (_a_text, "return a list of texts"),
    ],
    "16b.5": [
        (_by_rouge_l, "98% are asked for"),
        (_by_token_f1, "98% are asked for"),
        (_recall_of_facts, "98% are asked for"),
        (_same_sentences, "98% are asked for"),
        (_set_of_sentences, "98% are asked for"),
        (_turned_facts, "98% are asked for"),
        (_as_text, "a score is a str"),
    ],
}
