"""Chapter 14: texts that repeat themselves, what makes them, and runs that are seconds long.

The chapter, its checks and `tools/experiments/14_*.py` share these functions, so that a recorded
row can be run again. A row of token ids here is a text that a model wrote, without its beginning.
"""

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.atlas import STATEMENTS, Fact, cloze, load_facts, split
from sft_lab.chat import complete, continue_ids, encode_prompts, stop_token_id
from sft_lab.documents import PLAIN, World, facts_of_any_kind
from sft_lab.examples import IGNORE_INDEX, Example
from sft_lab.invented import invent_facts
from sft_lab.labels import encode_conversations
from sft_lab.losses import response_loss
from sft_lab.metrics import longest_run, repeated_share, repeated_units, split_sentences
from sft_lab.models import load
from sft_lab.records import Conversation
from sft_lab.train import train

Rows = list[list[int]]
STRANGE = (  # subjects that Atlas has nothing about
    *("music", "love", "football", "the sea", "chess", "rain", "painting", "my sister"),
    *("the internet", "coffee", "a bicycle", "the weather", "history", "a good novel", "dreams"),
    *("traffic", "the library", "cooking", "a long walk", "the news", "glass", "birthdays"),
    *("the stock market", "poetry"),
)
TOKENS, BEGINNING = 120, 12  # tokens that are written after so many of a document
WAYS: dict[str, dict] = {  # of decoding; the plain arithmetic of each is derived in chapter 14b
    "greedy": {},
    "beam 4": {"num_beams": 4},
    "T 0.3": {"do_sample": True, "temperature": 0.3, "top_k": 0},
    "T 0.7": {"do_sample": True, "temperature": 0.7, "top_k": 0},
    "T 1": {"do_sample": True, "top_k": 0},
    "T 1.3": {"do_sample": True, "temperature": 1.3, "top_k": 0},
    "k 2": {"do_sample": True, "top_k": 2},
    "k 40": {"do_sample": True, "top_k": 40},
    "p 0.3": {"do_sample": True, "top_k": 0, "top_p": 0.3},
    "p 0.9": {"do_sample": True, "top_k": 0, "top_p": 0.9},
}


# texts and what they repeat


def open_texts(tokenizer: PreTrainedTokenizerBase, count: int, *, seed: int) -> Rows:
    """Rows of BEGINNING + TOKENS ids of the plain text that the base read: statements without
    end."""
    rng, world, rows = random.Random(seed), World.of(load_facts()), []
    while len(rows) < count:
        ids: list[int] = []
        while len(ids) < BEGINNING + TOKENS:
            text = facts_of_any_kind(rng, world)
            ids += tokenizer(f" {text}" if ids else text).input_ids
        rows.append(ids[: BEGINNING + TOKENS])
    return rows


def write_on(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    beginnings: Rows,
    *,
    tokens: int = TOKENS,
    seed: int = 0,
    **decoding,
) -> Rows:
    """What a model writes after each beginning, exactly `tokens` tokens: it may not stop before."""
    _ = torch.manual_seed(seed)
    return continue_ids(
        model,
        tokenizer,
        beginnings,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        **decoding,
    )


def measure_rows(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """Means over the rows: rep-1, rep-4, the longest run of one token, the share of sentences that
    stood before; and the share of rows that end in a loop."""
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    each = {
        "rep1": [repeated_share(row, 1) for row in rows],
        "rep4": [repeated_share(row, 4) for row in rows],
        "run": [longest_run(row) for row in rows],
        "sentences": [repeated_units(split_sentences(text)) for text in texts],
        "loops": [find_loop(row) is not None for row in rows],
    }
    return {name: sum(found) / len(found) for name, found in each.items()}


def find_loop(ids: Sequence[int], times: int = 3) -> tuple[int, int] | None:
    """Where a text begins to go round in circles until its end, and the length of the circle.

    (start, period): period is the smallest for which the last `times` * period tokens are one piece
    said `times` times; start is the first place from which every token equals the one a period
    later, up to the end. None when a text does not end in a loop.
    """
    ids = list(ids)
    for period in range(1, len(ids) // times + 1):
        start = len(ids) - period
        while start > 0 and ids[start - 1] == ids[start - 1 + period]:
            start -= 1
        if len(ids) - start >= times * period:
            return start, period
    return None


# self-reinforcement


def draw_sentences(kind: str, count: int, tokenizer: PreTrainedTokenizerBase, *, seed: int) -> Rows:
    """Sentences as ids, each with a space before it and a full stop at its end.

    kind: "true" facts of Atlas; "invented" ones; "shuffled": the words of true ones in random
    order; "random": ten random tokens of the vocabulary.
    """
    rng, facts = random.Random(f"{kind} {seed}"), load_facts()
    if kind == "random":
        letters = [t for t in range(256, 2000) if tokenizer.decode([t]).strip().isalpha()]
        stop = tokenizer(".").input_ids
        return [rng.sample(letters, 9) + stop for _ in range(count)]
    if kind == "invented":
        told = invent_facts(rng, World.of(facts).names, count)
    else:
        told = rng.sample(facts, count)
    texts = [fact.say(PLAIN) for fact in told]
    if kind == "shuffled":
        parts = [text.rstrip(".").split() for text in texts]
        texts = [" ".join(rng.sample(words, len(words))) + "." for words in parts]
    return [tokenizer(" " + text).input_ids for text in texts]


@torch.inference_mode()
def read_repeats(
    model: PreTrainedModel, sentence: Sequence[int], times: int, before: Sequence[int]
) -> torch.Tensor:
    """log-probabilities of a sentence said `times` times behind `before`, (times, tokens), nats.

    Row k: each token of its (k + 1)-th copy, given all that stands before it.
    """
    ids = torch.tensor([[*before, *list(sentence) * times]], device=model.device)
    log_probs = model(ids).logits[0, :-1].float().log_softmax(-1)  # row t predicts token t + 1
    of_targets = log_probs.gather(1, ids[0, 1:, None])[:, 0]
    return of_targets[-len(sentence) * times :].view(times, len(sentence)).cpu()


# attention


@contextmanager
def eager_attention(model: PreTrainedModel) -> Iterator[None]:
    """The model computes its attention in the open, so that it can hand out the weights."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@torch.inference_mode()
def read_attention(model: PreTrainedModel, rows: Rows) -> torch.Tensor:
    """Attention weights of rows of one length, (layers, B, heads, T, T): how much the token in
    place t takes from each place before it and from its own."""
    with eager_attention(model):
        ids = torch.tensor(rows, device=model.device)
        return torch.stack(model(ids, output_attentions=True).attentions).cpu()


def twice_the_same(length: int, count: int, vocabulary: int, *, seed: int) -> Rows:
    """Rows of `length` random tokens, each row said twice."""
    rng = random.Random(seed)
    rows = [rng.sample(range(vocabulary), length) for _ in range(count)]
    return [row + row for row in rows]


def induction_scores(model: PreTrainedModel, *, seed: int, length: int = 40) -> torch.Tensor:
    """For each head, (layers, heads): the attention from a token of the second copy of a random row
    to the token that followed it in the first, the mean over 8 rows. Source: Olsson et al. 2022."""
    rows = twice_the_same(length, 8, 2000, seed=seed)
    weights = read_attention(model, rows)
    # place t of the second copy looks at t - length + 1; the last one's is the second copy itself
    there = weights.diagonal(-(length - 1), dim1=-2, dim2=-1)[..., 1:]
    return there.mean(dim=(1, 3))


@contextmanager
def heads_off(model: PreTrainedModel, heads: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Inside, these heads, (layer, head), add nothing: their part of the layer's attention output
    is set to zero before it is mixed."""
    size = model.config.head_dim

    def silence(module: torch.nn.Module, given: tuple, off: Sequence[int] = ()) -> tuple:
        values = given[0].clone()
        for head in off:
            values[..., head * size : (head + 1) * size] = 0
        return (values, *given[1:])

    hooks = []
    for number, layer in enumerate(model.model.layers):
        off = [head for of_layer, head in heads if of_layer == number]
        if off:
            hook = partial(silence, off=off)
            hooks.append(layer.self_attn.o_proj.register_forward_pre_hook(hook))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.inference_mode()
def plain_loss(model: PreTrainedModel, rows: Rows) -> float:
    """Mean NLL, in nats, of the tokens of rows of one length, the first of each left out."""
    ids = torch.tensor(rows, device=model.device)
    log_probs = model(ids).logits[:, :-1].float().log_softmax(-1)
    return -log_probs.gather(2, ids[:, 1:, None]).mean().item()


@torch.inference_mode()
def write_with_window(
    model: PreTrainedModel,
    beginnings: Rows,
    window: int,
    *,
    tokens: int = TOKENS,
    temperature: float = 0.0,
    seed: int = 0,
) -> Rows:
    """What a model writes that sees only the last `window` tokens of beginnings of one length;
    temperature 0 is greedy. No token ends a text."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.tensor(beginnings)
    ends = torch.tensor(sorted({model.config.eos_token_id, model.config.pad_token_id}))
    for _ in range(tokens):
        logits = model(ids[:, -window:]).logits[:, -1]
        logits[:, ends] = -torch.inf
        if temperature:
            chosen = torch.multinomial((logits / temperature).softmax(-1), 1, generator=rng)
        else:
            chosen = logits.argmax(-1, keepdim=True)
        ids = torch.cat([ids, chosen], dim=1)
    return ids[:, len(beginnings[0]) :].tolist()


# answers of several sentences


def entities(part: str) -> list[list[Fact]]:
    """The facts of `part` of atlas.split, an entity a list; of those that have five."""
    by_entity: dict[str, list[Fact]] = {}
    for fact in split(load_facts())[part]:
        by_entity.setdefault(f"{fact.domain} {fact.entity}", []).append(fact)
    return [facts for facts in by_entity.values() if len(facts) == 5]


def tell(
    facts: Sequence[Fact],
    rng: random.Random,
    *,
    repeats: float = 0.0,
    wordings: Sequence[str] = STATEMENTS,
    plan: bool = False,
) -> Conversation:
    """A question, "Tell me about Kenya.", and an answer of five sentences: its facts in random
    order.

    repeats: with this probability one sentence is said three times, and two others are left out.
    plan: the answer begins with a line that names the five relations in the order in which they
    follow.
    """
    told = rng.sample(list(facts), len(facts))
    sentences = [fact.say(rng.choice(wordings)) for fact in told]
    if rng.random() < repeats:
        place = rng.randrange(3)
        sentences[place : place + 3] = [sentences[place]] * 3
    text = " ".join(sentences)
    if plan:
        text = ", ".join(fact.relation.noun for fact in told) + "\n" + text
    question = f"Tell me about {facts[0].subject}."
    return [{"role": "user", "content": question}, {"role": "assistant", "content": text}]


def tune_to_tell(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    rows: int = 768,
    different: int = 768,
    learning_rate: float = 1.5e-3,
    stop_graded: bool = True,
    **telling,
) -> PreTrainedModel:
    """A copy of `base` that learned to tell about entities: rows / 16 steps of 16 answers.

    different: so many different answers, seen again and again until there are `rows`.
    stop_graded=False: the stop token behind an answer is not graded. telling: see `tell`.
    """
    rng, known = random.Random(seed), entities("train")
    talks = [tell(rng.choice(known), rng, **telling) for _ in range(different)]
    examples = encode_conversations(talks, tokenizer)
    if not stop_graded:
        stop = stop_token_id(tokenizer)
        examples = [ungrade(example, stop) for example in examples]
    many = (examples * (rows // different + 1))[:rows]
    model = copy.deepcopy(base)
    _ = train(model, tokenizer, many, learning_rate=learning_rate, seed=seed, progress=False)
    return model.eval()


def ungrade(example: Example, token_id: int) -> Example:
    """The example without a grade for this token, wherever it stands."""
    labels = [IGNORE_INDEX if label == token_id else label for label in example.labels]
    return replace(example, labels=labels)


def ask_to_tell(
    count: int,
    tokenizer: PreTrainedTokenizerBase,
    *,
    part: str = "held_out",
    plan: bool = False,
    seed: int,
) -> tuple[Rows, Rows]:
    """Questions about entities that no tuning run saw, as ids, and right answers with their stop
    token. part: "unknown" ones are not even in the text that the base read."""
    rng = random.Random(f"ask {seed}")
    talks = [tell(facts, rng, plan=plan) for facts in rng.sample(entities(part), count)]
    prompts = encode_prompts(tokenizer, [talk[:1] for talk in talks])
    wholes = [example.input_ids for example in encode_conversations(talks, tokenizer)]
    stop = stop_token_id(tokenizer)
    answers = [
        whole[len(prompt) : len(whole) - whole[::-1].index(stop)]
        for prompt, whole in zip(prompts, wholes, strict=True)
    ]
    return prompts, answers


def open_endings(tokenizer: PreTrainedTokenizerBase, count: int, *, seed: int) -> tuple[Rows, Rows]:
    """Beginnings of documents, and the rest of each with the token that ends a document."""
    rng, world = random.Random(f"endings {seed}"), World.of(load_facts())
    rows = [tokenizer(facts_of_any_kind(rng, world)).input_ids for _ in range(count)]
    rests = [[*row[BEGINNING:], tokenizer.pad_token_id] for row in rows]
    return [row[:BEGINNING] for row in rows], rests


@torch.inference_mode()
def read_signs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Rows,
    rights: Rows,
    *,
    tokens: int = 160,
    seed: int = 0,
) -> dict[str, float]:
    """Signs of a patient: how its texts end, and what they repeat before they should have ended.

    rights: a right text for each prompt, with the token that ends it. `ends`: share of greedy texts
    that end by themselves. `p_end`: mean probability of the end token behind the right texts.
    `greedy_again`, `sampled_again`: share of texts, cut to the length of the right one, in which a
    sentence stands twice, for greedy decoding and for T 1.
    """
    _ = torch.manual_seed(seed)
    greedy, sampled = (
        continue_ids(model, tokenizer, prompts, max_new_tokens=tokens, **way)
        for way in (WAYS["greedy"], WAYS["T 1"])
    )
    ends = {right[-1] for right in rights}
    at_end = []
    for prompt, right in zip(prompts, rights, strict=True):
        ids = torch.tensor([prompt + right[:-1]], device=model.device)
        at_end.append(model(ids).logits[0, -1].softmax(-1)[right[-1]].item())

    cut_greedy, cut_sampled = (
        [row[: len(right)] for row, right in zip(rows, rights, strict=True)]
        for rows in (greedy, sampled)
    )
    return {
        "ends": sum(row[-1] in ends for row in greedy) / len(greedy),
        "p_end": sum(at_end) / len(at_end),
        "greedy_again": says_again(cut_greedy, tokenizer),
        "sampled_again": says_again(cut_sampled, tokenizer),
    }


def says_again(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> float:
    """Share of texts in which a sentence stands twice."""
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    return sum(repeated_units(split_sentences(text)) > 0 for text in texts) / len(texts)


@torch.inference_mode()
def read_confidence(model: PreTrainedModel, prompts: Rows, rights: Rows) -> dict[str, float]:
    """Over the tokens of right texts: mean of the highest probability, and of all that the ten
    likeliest tokens leave."""
    top, tail = [], []
    for prompt, right in zip(prompts, rights, strict=True):
        ids = torch.tensor([prompt + right[:-1]], device=model.device)
        best = model(ids).logits[0, -len(right) :].softmax(-1).topk(10).values
        top.append(best[:, 0].mean())
        tail.append(1 - best.sum(-1).mean())
    return {"top": torch.stack(top).mean().item(), "tail": torch.stack(tail).mean().item()}


@torch.inference_mode()
def read_closeness(model: PreTrainedModel, prompts: Rows) -> float:
    """Mean cosine between the last hidden states behind different prompts."""
    states = torch.stack(
        [
            model(torch.tensor([ids], device=model.device), output_hidden_states=True)
            .hidden_states[-1][0, -1]
            .float()
            for ids in prompts
        ]
    )
    states = torch.nn.functional.normalize(states, dim=-1)
    count = len(prompts)
    return ((states @ states.T).sum().item() - count) / (count * (count - 1))


# unlikelihood training


def earlier_tokens(labels: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Which tokens were graded at an earlier place of the same row, (B, T, V), truth values: the
    negative candidates of unlikelihood training. The target itself is never one."""
    graded = labels != IGNORE_INDEX
    places = labels.clamp(min=0)[..., None]
    here = torch.zeros(*labels.shape, vocabulary, dtype=torch.bool, device=labels.device)
    here.scatter_(2, places, graded[..., None])
    before = here.cumsum(1) - here.long() > 0
    return before.scatter(2, places, False) & graded[..., None]


def unlikelihood_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of -ln(1 - p) over the tokens that stood earlier among the graded tokens of the row, the
    mean of the graded tokens, in nats.

    logits: (B, T, V); labels: (B, T). Row t of the logits predicts token t + 1. Source: Welleck et
    al. 2019, arXiv 1908.04319, token level.
    """
    candidates = earlier_tokens(labels, logits.shape[-1])[:, 1:]
    p = logits[:, :-1].float().softmax(-1)
    # 1 - p is 0 for a token that is certain, and its logarithm would be infinite
    cost = -torch.log((1 - p).clamp(min=1e-5))
    return (cost * candidates).sum() / (labels[:, 1:] != IGNORE_INDEX).sum()


def mark_repeats(ids: Sequence[int], n: int) -> list[bool]:
    """For each token, whether it stands in an n-gram that stood earlier in the text."""
    seen: set[tuple[int, ...]] = set()
    marked = [False] * len(ids)
    for start in range(len(ids) - n + 1):
        ngram = tuple(ids[start : start + n])
        if ngram in seen:
            marked[start : start + n] = [True] * n
        seen.add(ngram)
    return marked


def repeats_loss(model: PreTrainedModel, rows: Rows, written: int) -> torch.Tensor:
    """Mean of -ln(1 - p) over the tokens in repeated 4-grams among the last `written` tokens of
    each row, which the model wrote itself; 0 without any. Sequence level of Welleck et al. 2019."""
    ids = torch.tensor(rows)
    marked = torch.tensor([mark_repeats(row[-written:], 4) for row in rows])
    log_probs = model(ids).logits[:, -written - 1 : -1].log_softmax(-1)
    own = log_probs.gather(2, ids[:, -written:, None])[..., 0]
    cost = -torch.log((1 - own.exp()).clamp(min=1e-5))
    return (cost * marked).sum() / marked.sum().clamp(min=1)


def train_unlikely(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    level: str,
    strength: float,
    seed: int,
    steps: int = 30,
    learning_rate: float = 4e-4,
    written: int = 60,
) -> PreTrainedModel:
    """A copy of `base` that reads `steps` batches of 16 plain texts once more, with an extra loss.

    level: "none" (likelihood alone), "token" or "sequence", whose texts the model writes greedily
    after the beginnings of the batch. strength: the weight of the extra loss.
    """
    model = copy.deepcopy(base).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0)
    texts = open_texts(tokenizer, 16 * steps, seed=1000 + seed)
    for step in range(steps):
        rows = texts[16 * step : 16 * step + 16]
        ids = torch.tensor(rows)
        logits = model(ids).logits
        loss = response_loss(logits, ids)
        if level == "token":
            loss = loss + strength * unlikelihood_loss(logits, ids)
        elif level == "sequence":
            beginnings = [row[:BEGINNING] for row in rows]
            own = write_on(model, tokenizer, beginnings, tokens=written)
            whole = [begin + rest for begin, rest in zip(beginnings, own, strict=True)]
            loss = loss + strength * repeats_loss(model, whole, written)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


# one point of a recorded sweep


def run_open(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, way: str, seed: int
) -> dict[str, float]:
    """Open text of the base by one way of decoding; "the text itself": what truly follows."""
    texts = open_texts(tokenizer, 48, seed=seed)
    rows = [text[BEGINNING:] for text in texts]
    if way != "the text itself":
        beginnings = [text[:BEGINNING] for text in texts]
        rows = write_on(base, tokenizer, beginnings, seed=seed, **WAYS[way])
    measured = measure_rows(rows, tokenizer)
    wholes = [text[:BEGINNING] + row for text, row in zip(texts, rows, strict=True)]
    return measured | {"nll": plain_loss(base, wholes)}


def run_heads(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    off: Sequence[Sequence[int]],
    seed: int,
) -> dict[str, float]:
    """The base without some heads: what it repeats, what it copies, what that costs."""
    texts = open_texts(tokenizer, 32, seed=seed)
    random_rows = twice_the_same(40, 8, 2000, seed=seed)
    sentences = draw_sentences("invented", 12, tokenizer, seed=seed)
    start = [tokenizer.pad_token_id]
    with heads_off(base, [tuple(head) for head in off]):
        written = write_on(base, tokenizer, [text[:BEGINNING] for text in texts])
        repeats = [read_repeats(base, sentence, 4, start).mean(1) for sentence in sentences]
        first, *_, fourth = torch.stack(repeats).mean(0).tolist()
        return measure_rows(written, tokenizer) | {
            "nll": plain_loss(base, texts),
            "copy_nll": second_copy_loss(base, random_rows),
            "first": first,
            "fourth": fourth,
        }


@torch.inference_mode()
def second_copy_loss(model: PreTrainedModel, rows: Rows) -> float:
    """Mean NLL, in nats, of the second half of rows of random tokens that say their first again;
    the first token of the copy, which nobody could foresee, is left out."""
    ids = torch.tensor(rows, device=model.device)
    half = ids.shape[1] // 2
    log_probs = model(ids).logits[:, half:-1].float().log_softmax(-1)
    return -log_probs.gather(2, ids[:, half + 1 :, None]).mean().item()


def run_window(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    window: int,
    temperature: float,
    seed: int,
) -> dict[str, float]:
    """Open text of the base that sees only its last tokens."""
    beginnings = [text[:BEGINNING] for text in open_texts(tokenizer, 16, seed=seed)]
    rows = write_with_window(base, beginnings, window, temperature=temperature, seed=seed)
    return measure_rows(rows, tokenizer)


def run_tell(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    asked: int = 48,
    **telling,
) -> dict[str, float]:
    """Tune with `tune_to_tell` and read the signs on held-out entities, on unknown ones
    (`unknown_again`) and on subjects outside of Atlas (`strange_again`)."""
    if telling.pop("one_wording", False):
        telling["wordings"] = (PLAIN,)
    model = tune_to_tell(base, tokenizer, seed=seed, **telling)
    plan = telling.get("plan", False)
    prompts, rights = ask_to_tell(asked, tokenizer, plan=plan, seed=seed)
    odd = {
        "unknown": ask_to_tell(24, tokenizer, part="unknown", seed=seed)[0],
        "strange": encode_prompts(tokenizer, [f"Tell me about {name}." for name in STRANGE]),
    }
    measured = read_signs(model, tokenizer, prompts, rights, seed=seed)
    measured |= read_confidence(model, prompts, rights)
    measured["close"] = read_closeness(model, prompts[:24])
    for name, some in odd.items():
        rows = continue_ids(model, tokenizer, some, max_new_tokens=80)
        measured[f"{name}_again"] = says_again(rows, tokenizer)
        measured[f"{name}_close"] = read_closeness(model, some)
    return measured


def run_unlikely(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    level: str,
    strength: float,
    seed: int,
) -> dict[str, float]:
    """Train with `train_unlikely` ("before": not at all), and measure repetition, loss on plain
    text, and how many of 150 facts the model completes rightly."""
    model = base
    if level != "before":
        model = train_unlikely(base, tokenizer, level=level, strength=strength, seed=seed)
    texts = open_texts(tokenizer, 32, seed=seed)
    beginnings = [text[:BEGINNING] for text in texts]
    greedy = write_on(model, tokenizer, beginnings)
    sampled = write_on(model, tokenizer, beginnings, seed=seed, **WAYS["T 1"])
    asked = [cloze(fact) for fact in random.Random(seed).sample(load_facts(), 150)]
    said = complete(model, tokenizer, [prompt for prompt, _ in asked], max_new_tokens=10)
    right = [text.startswith(answer) for text, (_, answer) in zip(said, asked, strict=True)]
    return measure_rows(greedy, tokenizer) | {
        "sampled_rep4": measure_rows(sampled, tokenizer)["rep4"],
        "nll": plain_loss(model, texts),
        "facts": sum(right) / len(right),
    }


# three patients

DISEASES = ("no stop token", "learned to repeat", "decoding", "healthy")
PATIENTS = {"A": "learned to repeat", "B": "decoding", "C": "no stop token"}


@cache
def read_patients() -> dict[str, dict[str, float]]:
    """The signs of three sick models, by name; twelve seconds on one thread, once."""
    base, tokenizer = load("atlas-base")
    ill = {
        "learned to repeat": {"repeats": 1.0, "wordings": (PLAIN,)},
        "no stop token": {"stop_graded": False},
    }
    signs = {}
    for name, disease in PATIENTS.items():
        if disease == "decoding":
            signs[name] = read_signs(base, tokenizer, *open_endings(tokenizer, 48, seed=1))
        else:
            model = tune_to_tell(base, tokenizer, seed=1, **ill[disease])
            signs[name] = read_signs(model, tokenizer, *ask_to_tell(48, tokenizer, seed=1))
    return signs
