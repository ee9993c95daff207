"""Chapter 14b: one model under many settings of decoding, and what is measured of its texts.

The chapter and `tools/experiments/14b_*.py` share these functions, so that a recorded row can be
run again. Every setting has a name; `DRAWN` are those in which chance takes part.
"""

import copy
import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import islice

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab import atlas
from sft_lab.chat import Processor, continue_ids, decode_response, encode_prompts, stop_token_id
from sft_lab.course.short_runs import tune_on
from sft_lab.decoding import (
    FrequencyPenalty,
    History,
    MinP,
    NoRepeatNgram,
    PresencePenalty,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    Typical,
    contrastive_search,
)
from sft_lab.facts import Fact
from sft_lab.labels import encode_conversations
from sft_lab.lora import add_lora, merge_lora
from sft_lab.metrics import distinct_n, is_right, repeated_share
from sft_lab.records import Conversation
from sft_lab.rendering import encode_text
from sft_lab.train import train

Split = dict[str, list[Fact]]
EXAM_SEED = 99
EXAM = {"facts": 60, "list": 40, "json": 30, "sum": 30}  # questions of each kind
SAMPLES = 4  # of each answer, where chance takes part
COUNTED_TOKENS = 500  # of all texts together, among which different pairs are counted
OPENING, OPEN_TOKENS, OPENINGS = 8, 120, 24  # tokens of a beginning and of its text; how many
DRAWN: dict[str, list[Processor]] = {
    "T 0.5": [Temperature(0.5)],
    "T 0.7": [Temperature(0.7)],
    "T 1": [],
    "T 1.5": [Temperature(1.5)],
    "top-k 5": [TopK(5)],
    "top-k 50": [TopK(50)],
    "top-p 0.5": [TopP(0.5)],
    "top-p 0.9": [TopP(0.9)],
    "T 0.7, top-p 0.9": [Temperature(0.7), TopP(0.9)],
    "min-p 0.1": [MinP(0.1)],
    "T 1.5, min-p 0.1": [Temperature(1.5), MinP(0.1)],
    "typical 0.9": [Typical(0.9)],
}
LIKELIEST: dict[str, list[Processor]] = {  # the most likely token, after these
    "greedy": [],
    "repetition 1.1": [RepetitionPenalty(1.1)],
    "repetition 1.2": [RepetitionPenalty(1.2)],
    "repetition 1.5": [RepetitionPenalty(1.5)],
    "repetition 1.2, answer alone": [RepetitionPenalty(1.2, prompt=False)],
    "repetition 1.5, answer alone": [RepetitionPenalty(1.5, prompt=False)],
    "frequency 0.5": [FrequencyPenalty(0.5)],
    "frequency 1": [FrequencyPenalty(1.0)],
    "presence 1": [PresencePenalty(1.0)],
    "2-gram block": [NoRepeatNgram(2)],
    "3-gram block": [NoRepeatNgram(3)],
    "4-gram block": [NoRepeatNgram(4)],
    "3-gram block, answer alone": [NoRepeatNgram(3, prompt=False)],
}
BEAMS = {"beam 2": 2, "beam 4": 4, "beam 8": 8}
CONTRASTIVE = {"contrastive": 0.6}
SETTINGS = (*LIKELIEST, *BEAMS, *CONTRASTIVE, *DRAWN)
REFERENCE = "the documents themselves"  # what the base read, in the place of what it writes


# one setting


def write_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encoded: list[list[int]],
    setting: str,
    *,
    max_new_tokens: int,
    seed: int = 0,
) -> list[list[int]]:
    """The new ids of each prompt under a setting. KeyError for a name that is none."""
    torch.manual_seed(seed)
    if setting in CONTRASTIVE:
        stops = {stop_token_id(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id}
        return [
            contrastive_search(
                model, ids, alpha=CONTRASTIVE[setting], max_new_tokens=max_new_tokens,
                stop_ids=stops,
            )
            for ids in encoded
        ]  # fmt: skip
    how = {"num_beams": BEAMS[setting]} if setting in BEAMS else {}
    if setting in DRAWN:
        how = {"do_sample": True, "top_k": 0}  # 0: not among transformers' fifty likeliest
    processors = [] if setting in BEAMS else (DRAWN | LIKELIEST)[setting]
    return continue_ids(
        model, tokenizer, encoded, max_new_tokens=max_new_tokens, processors=processors, **how
    )


@torch.inference_mode()
def perplexity(
    model: PreTrainedModel, contexts: Sequence[list[int]], written: Sequence[list[int]]
) -> float:
    """exp of the mean surprise of all written tokens, each after its context: what a model thinks
    of a text. Texts without a token are left out; nan when none is left."""
    total, count = 0.0, 0
    for context, ids in zip(contexts, written, strict=True):
        if not ids or not context:
            continue
        row = torch.tensor([[*context, *ids]], device=model.device)
        log_probs = model(input_ids=row).logits[0, len(context) - 1 : -1].float().log_softmax(-1)
        total -= log_probs.gather(1, row[0, len(context) :, None]).sum().item()
        count += len(ids)
    return math.exp(total / count) if count else math.nan


# open text, by the base


def draw_openings(
    tokenizer: PreTrainedTokenizerBase, facts: Split, seed: int, *, count: int = OPENINGS
) -> tuple[list[list[int]], list[list[int]]]:
    """The first tokens of `count` documents such as the base read, and how each goes on."""
    documents = atlas.documents(facts["train"], seed=f"open {seed}")
    rows = (encode_text(document, tokenizer) for document in documents)
    long = list(islice((row for row in rows if len(row) > OPENING + 4), count))
    return [row[:OPENING] for row in long], [row[OPENING:][:OPEN_TOKENS] for row in long]


def measure_open(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Split,
    setting: str,
    seed: int,
) -> dict[str, float]:
    """What the base makes of beginnings of documents: repeated 4-grams, variety, perplexity."""
    openings, endings = draw_openings(tokenizer, facts, seed)
    if setting == REFERENCE:
        written = endings
    else:
        written = write_ids(
            base, tokenizer, openings, setting, max_new_tokens=OPEN_TOKENS, seed=seed
        )
    return describe_texts(base, openings, written)


def describe_texts(
    model: PreTrainedModel, openings: Sequence[list[int]], written: Sequence[list[int]]
) -> dict[str, float]:
    """rep-4 (mean of the texts), distinct-2 (of the first 500 tokens, because it falls with
    length), perplexity, tokens a text."""
    return {
        "rep-4": _mean([repeated_share(ids, 4) for ids in written]),
        "distinct-2": round(distinct_n(first_tokens(written, COUNTED_TOKENS), 2), 4),
        "perplexity": round(perplexity(model, openings, written), 3),
        "tokens": _mean([len(ids) for ids in written]),
    }


def first_tokens(written: Sequence[list[int]], count: int) -> list[list[int]]:
    """The texts in their order, until together they have `count` tokens."""
    kept = []
    for ids in written:
        left = count - sum(map(len, kept))
        if left > 1:
            kept.append(ids[:left])
    return kept


# answers, by a tuned model


def make_lessons(facts: Split, seed: int) -> list[Conversation]:
    """About 1,900 lessons: every known fact once, lists, JSON, sums; five seconds of tuning."""
    lessons = atlas.ask(facts["train"], seed=seed)
    for skill, count in (("list", 150), ("json", 200), ("sum", 200)):
        lessons += atlas.ask_skill(skill, facts["train"], count, seed=seed)
    return lessons


def tune(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: Split, seed: int
) -> PreTrainedModel:
    """A copy of the base that answers facts, lists, JSON and sums."""
    return tune_on(base, tokenizer, make_lessons(facts, seed), seed=seed)


def tune_and_merge(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Split,
    seed: int,
    *,
    rank: int = 16,
    epochs: int = 2,
    learning_rate: float = 2e-3,
) -> PreTrainedModel:
    """The same by LoRA, its matrices merged into the weights: a plain model again.

    The embeddings, which are the head too, are tuned beside it: the base never read the stop token,
    so LoRA alone could not learn to write it (chapter 05).
    """
    rows = make_lessons(facts, seed)
    random.Random(seed).shuffle(rows)
    torch.manual_seed(seed)  # the matrices begin at random
    model = add_lora(copy.deepcopy(base), rank=rank, alpha=rank)
    model.get_input_embeddings().weight.requires_grad_(True)
    _ = train(
        model,
        tokenizer,
        encode_conversations(rows, tokenizer),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=16,
        seed=seed,
        progress=False,
    )
    return merge_lora(model)


def make_exam(facts: Split) -> dict[str, list[Conversation]]:
    """Questions about entities that no lesson names, by kind."""
    exams = {"facts": atlas.exam("held_out", EXAM["facts"], seed=EXAM_SEED)}
    for skill in ("list", "json", "sum"):
        exams[skill] = atlas.ask_skill(skill, facts["held_out"], EXAM[skill], seed=EXAM_SEED)
    return exams


def measure_answers(
    model: PreTrainedModel,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Split,
    setting: str,
    seed: int,
    *,
    samples: int = SAMPLES,
) -> dict[str, float]:
    """What becomes of right answers under a setting, and how much the answers differ.

    right: share of all answers, and of each kind. agreement: the share of the samples of a question
    that give its most frequent answer. perplexity: of the answers as plain text, under the base.
    """
    exam = make_exam(facts)
    talks = [talk for part in exam.values() for talk in part]
    kinds = [kind for kind, part in exam.items() for _ in part]
    times = samples if setting in DRAWN else 1
    prompts = encode_prompts(tokenizer, [talk[:-1] for talk in talks])
    written = write_ids(
        model, tokenizer, [ids for ids in prompts for _ in range(times)], setting,
        max_new_tokens=60, seed=seed,
    )  # fmt: skip
    said = [decode_response(ids, tokenizer) for ids in written]
    wanted = [talk[-1]["content"] for talk in talks for _ in range(times)]
    right = [is_right(one, reference) for one, reference in zip(said, wanted, strict=True)]
    asked = [kind for kind in kinds for _ in range(times)]
    by_kind = {
        f"right {kind}": _mean([hit for hit, of in zip(right, asked, strict=True) if of == kind])
        for kind in exam
    }
    groups = [said[first : first + times] for first in range(0, len(said), times)]
    texts = [encode_text(one, tokenizer) for one in said]
    stop = stop_token_id(tokenizer)
    return {
        "right": _mean(right),
        **by_kind,
        "stops": _mean([ids[-1:] == [stop] for ids in written]),
        "tokens": _mean([len(ids) for ids in written]),
        "agreement": _mean([Counter(group).most_common(1)[0][1] / times for group in groups]),
        "rep-4": _mean([repeated_share(ids, 4) for ids in written]),
        "distinct-2": round(distinct_n(written, 2), 4),
        "perplexity": round(
            perplexity(base, [ids[:1] for ids in texts], [ids[1:] for ids in texts]), 3
        ),
    }


# the penalty and the stop token

COUNTED = ("prompt and answer", "all but the stop token", "answer alone")


class SpareStop(History):
    """A repetition penalty over prompt and answer that leaves one token alone: the stop token."""

    def __init__(self, penalty: float, stop: int) -> None:
        super().__init__()
        self.inner, self.stop = RepetitionPenalty(penalty), stop

    def begin(self, attention_mask: torch.Tensor) -> None:
        self.inner.begin(attention_mask)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        bent = self.inner(input_ids, scores).clone()
        bent[:, self.stop] = scores[:, self.stop]
        return bent


def penalise(penalty: float, counted: str, stop: int) -> Processor:
    """The repetition penalty, with what counts as said: one of COUNTED."""
    if counted == COUNTED[1]:
        return SpareStop(penalty, stop)
    return RepetitionPenalty(penalty, prompt=counted == COUNTED[0])


def measure_stops(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str | Conversation],
    penalty: float,
    counted: str,
    *,
    max_new_tokens: int = 60,
) -> dict[str, float]:
    """How many greedy answers end by themselves, and after how many tokens."""
    stop = stop_token_id(tokenizer)
    written = continue_ids(
        model, tokenizer, encode_prompts(tokenizer, questions), max_new_tokens=max_new_tokens,
        processors=[penalise(penalty, counted, stop)],
    )  # fmt: skip
    return {
        "stops": _mean([ids[-1] == stop for ids in written]),
        "tokens": _mean([len(ids) for ids in written]),
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)
