"""Every processor equals transformers' own on random cases; searches equal theirs, or their
definition; `generate_responses` takes the processors and refuses what is none."""

import math
import random

import pytest
import torch
from tiny import make_model, make_tokenizer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from sft_lab.arguments import SettingError
from sft_lab.chat import complete, continue_ids
from sft_lab.decoding import (
    FrequencyPenalty,
    MinP,
    NoRepeatNgram,
    PresencePenalty,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    Typical,
    beam_search,
    contrastive_search,
)

CASES = 600
VOCABULARY = 23


def draw(case: int) -> tuple[random.Random, torch.Tensor, torch.Tensor]:
    """A generator, ids (B, T) and logits (B, V): some forbidden already, some equal, all scales."""
    rng = random.Random(case)
    generator = torch.Generator().manual_seed(case)
    rows, length = rng.randint(1, 4), rng.randint(1, 30)
    ids = torch.randint(0, rng.choice((3, 8, VOCABULARY)), (rows, length), generator=generator)
    scores = torch.randn(rows, VOCABULARY, generator=generator) * rng.choice((0.3, 2.0, 9.0))
    if case % 3 == 0:
        scores[:, rng.randrange(VOCABULARY)] = -math.inf
    return rng, ids, scores


def with_ties(scores: torch.Tensor) -> torch.Tensor:
    return scores.round()


PAIRS = {
    "temperature": lambda rng: (Temperature(t := rng.uniform(0.1, 3)), TemperatureLogitsWarper(t)),
    "top-k": lambda rng: (TopK(k := rng.randint(1, 30)), TopKLogitsWarper(k)),
    "top-p": lambda rng: (TopP(p := rng.uniform(0.01, 1)), TopPLogitsWarper(p)),
    "min-p": lambda rng: (MinP(p := rng.choice((0.0, 1.0, rng.random()))), MinPLogitsWarper(p)),
    "typical": lambda rng: (Typical(p := rng.uniform(0.05, 0.95)), TypicalLogitsWarper(p)),
    "repetition": lambda rng: (
        RepetitionPenalty(p := rng.uniform(0.5, 2)),
        RepetitionPenaltyLogitsProcessor(p),
    ),
    "n-gram": lambda rng: (NoRepeatNgram(n := rng.randint(1, 5)), NoRepeatNGramLogitsProcessor(n)),
}


@pytest.mark.numeric
@pytest.mark.parametrize("name", PAIRS)
def test_a_processor_equals_that_of_transformers(name):
    bent = 0
    for case in range(CASES):
        rng, ids, scores = draw(case)
        if name in ("top-k", "n-gram", "repetition") and case % 2:
            scores = with_ties(scores)
        ours, theirs = PAIRS[name](rng)
        before = scores.clone()
        torch.testing.assert_close(ours(ids, scores), theirs(ids, scores.clone()), msg=f"{case}")
        assert torch.equal(scores, before), "the logits that were given are changed"
        bent += not torch.equal(ours(ids, scores), scores)
    assert bent > CASES / 3  # else the two agree in doing nothing


@pytest.mark.numeric
def test_the_repetition_penalty_leaves_the_prompt_out_as_transformers_does():
    for case in range(CASES):
        rng, ids, scores = draw(case)
        width, penalty = rng.randint(0, ids.shape[1]), rng.uniform(0.5, 2)
        ours = RepetitionPenalty(penalty, prompt=False)
        ours.begin(torch.ones(len(ids), width))
        theirs = RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=width)
        torch.testing.assert_close(ours(ids, scores), theirs(ids, scores.clone()))


@pytest.mark.numeric
@pytest.mark.parametrize("processor", [FrequencyPenalty, PresencePenalty])
def test_frequency_and_presence_equal_a_count_by_hand(processor):
    """transformers has neither; this is the formula that OpenAI's interface and vLLM state."""
    for case in range(CASES):
        rng, ids, scores = draw(case)
        width, penalty = rng.randint(0, ids.shape[1]), rng.uniform(-1, 2)
        ours = processor(penalty)
        ours.begin(torch.ones(len(ids), width))
        wanted = scores.clone()
        for row, written in enumerate(ids[:, width:].tolist()):
            for token_id in set(written):
                times = written.count(token_id) if processor is FrequencyPenalty else 1
                wanted[row, token_id] -= penalty * times
        torch.testing.assert_close(ours(ids, scores), wanted)


@pytest.mark.parametrize("processor", [FrequencyPenalty(0.7), PresencePenalty(0.7)])
def test_subtracting_does_not_depend_on_a_constant_and_dividing_does(processor):
    _, ids, scores = draw(1)
    divide = RepetitionPenalty(1.3)
    processor.begin(torch.ones(len(ids), 0))
    shifted = scores + 4
    torch.testing.assert_close(
        processor(ids, scores).softmax(-1), processor(ids, shifted).softmax(-1)
    )
    assert not torch.allclose(divide(ids, scores).softmax(-1), divide(ids, shifted).softmax(-1))


def test_top_p_keeps_the_token_that_crosses_p_and_never_drops_all():
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    for p, kept in ((0.01, 1), (0.5, 1), (0.51, 2), (0.8, 2), (0.81, 3), (1.0, 4)):
        assert int(TopP(p)(None, scores).isfinite().sum()) == kept, p


def test_padding_is_never_said_and_each_row_has_its_own_prompt():
    scores = torch.ones(2, 6)
    ids = torch.tensor([[5, 5, 1, 2], [1, 2, 3, 4]])
    mask = torch.tensor([[0, 0, 1], [1, 1, 1]])
    counting, leaving_out = RepetitionPenalty(2.0), RepetitionPenalty(2.0, prompt=False)
    for processor in (counting, leaving_out):
        processor.begin(mask)
    assert (counting(ids, scores) < 1).tolist() == [
        [False, True, True, False, False, False],
        [False, True, True, True, True, False],
    ]
    assert (leaving_out(ids, scores) < 1).sum(dim=1).tolist() == [1, 1]


def test_the_prompt_is_not_left_out_without_knowing_where_it_ends():
    with pytest.raises(SettingError, match="where the prompt ends"):
        FrequencyPenalty(1.0)(torch.tensor([[1]]), torch.zeros(1, 3))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Temperature(0), lambda: TopK(0), lambda: TopK(2.0), lambda: TopP(0),
        lambda: TopP(1.1), lambda: MinP(-0.1), lambda: Typical(1), lambda: RepetitionPenalty(0),
        lambda: NoRepeatNgram(0), lambda: FrequencyPenalty(math.nan),
    ],
)  # fmt: skip
def test_a_setting_out_of_range_is_refused(make):
    with pytest.raises(SettingError):
        make()


# searches


def random_model(seed: int, vocabulary: int = 16) -> LlamaForCausalLM:
    """A model so small that beams differ, end early, and can be searched by the hundred."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, intermediate_size=8, max_position_embeddings=64,
        initializer_range=0.9, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.mark.parametrize("early_stopping", [False, True])
def test_beams_equal_those_of_transformers(early_stopping):
    stopped, unlike_greedy = 0, 0
    for seed in range(150):
        rng = random.Random(seed)
        model, prompt = random_model(seed), rng.choices(range(2, 16), k=rng.randint(1, 5))
        beams, penalty = rng.randint(2, 5), rng.choice((-1.0, 0.0, 0.6, 1.0, 2.0))
        ours = beam_search(
            model, prompt, beams=beams, max_new_tokens=10, stop_ids=[1],
            length_penalty=penalty, early_stopping=early_stopping,
        )  # fmt: skip
        theirs = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)).long(),
            num_beams=beams, max_new_tokens=10, do_sample=False, length_penalty=penalty,
            early_stopping=early_stopping, return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
        written = theirs.sequences[0, len(prompt) :].tolist()
        assert ours.ids == written, f"seed {seed}"
        assert ours.score == pytest.approx(theirs.sequences_scores[0].item(), rel=1e-4, abs=1e-5)
        stopped += ours.ids[-1] == 1
        greedy = beam_search(model, prompt, beams=1, max_new_tokens=10, stop_ids=[1])
        unlike_greedy += greedy.ids != ours.ids
    assert stopped > 30 and unlike_greedy > 30


def test_beams_need_a_vocabulary_that_fills_them():
    with pytest.raises(ValueError, match="need a vocabulary of 18"):
        beam_search(random_model(0), [2], beams=9, max_new_tokens=3, stop_ids=[1])


def test_contrastive_search_equals_its_definition():
    chosen_other = 0
    for seed in range(40):
        model, alpha = random_model(seed), (0.0, 0.4, 0.6, 1.0)[seed % 4]
        found = contrastive_search(model, [2, 3, 4], k=3, alpha=alpha, max_new_tokens=6)
        ids = [2, 3, 4]
        for token_id in found:
            with torch.no_grad():
                probabilities = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
                scores = {}
                for candidate in probabilities.topk(3).indices.tolist():
                    output = model(torch.tensor([[*ids, candidate]]), output_hidden_states=True)
                    *before, new = output.hidden_states[-1][0]
                    echo = max(torch.cosine_similarity(new, one, dim=0).item() for one in before)
                    likely = probabilities[candidate].item()
                    scores[candidate] = (1 - alpha) * likely - alpha * echo
            assert scores[token_id] == pytest.approx(max(scores.values()), abs=1e-5)
            chosen_other += token_id != probabilities.argmax().item()
            ids.append(token_id)
    assert chosen_other > 20


# in generate_responses


@pytest.fixture(scope="module")
def small():
    return make_model(seed=3), make_tokenizer()


def test_processors_give_what_transformers_settings_give(small):
    model, tokenizer = small
    prompts = [[2, 3, 4], [9, 8, 7, 6, 5, 9, 8], [11]]
    settings = {
        "repetition_penalty": (1.7, RepetitionPenalty(1.7)),
        "no_repeat_ngram_size": (2, NoRepeatNgram(2)),
    }
    plain = continue_ids(model, tokenizer, prompts, max_new_tokens=20)
    for name, (value, processor) in settings.items():
        # one prompt at a time: transformers' own would count padding as said
        theirs = [
            continue_ids(model, tokenizer, [one], max_new_tokens=20, **{name: value})[0]
            for one in prompts
        ]
        ours = continue_ids(model, tokenizer, prompts, max_new_tokens=20, processors=[processor])
        assert ours == theirs and ours != plain


def test_sampling_with_processors_draws_only_what_they_leave(small):
    model, tokenizer = small
    texts = complete(
        model, tokenizer, ["w5 w6"] * 30, max_new_tokens=5, processors=[TopK(1)], do_sample=True
    )
    assert set(texts) == set(complete(model, tokenizer, ["w5 w6"], max_new_tokens=5))


def test_drawing_is_among_fifty_unless_top_k_is_zero(small):
    """The words of `generate_responses` about transformers' default."""
    model, tokenizer = small

    def least_likely(input_ids, scores):  # the last ten of 61 tokens take nearly everything
        return torch.arange(61.0).expand_as(scores) * 0.001

    torch.manual_seed(0)
    rows = [[2]] * 400
    draw = {"max_new_tokens": 1, "processors": [least_likely], "do_sample": True}
    cut = {row[0] for row in continue_ids(model, tokenizer, rows, **draw)}
    free = {row[0] for row in continue_ids(model, tokenizer, rows, **draw, top_k=0)}
    assert min(cut) == 61 - 50 and min(free) < 11


def test_beams_of_generate_take_processors_that_look_back(small):
    model, tokenizer = small
    block = NoRepeatNgram(1, prompt=False)
    row, other = continue_ids(
        model, tokenizer, [[2, 3], [4]], max_new_tokens=12, processors=[block], num_beams=3
    )
    assert len(set(row)) == len(row) and len(set(other)) == len(other)


@pytest.mark.parametrize(
    ("processors", "message"),
    [
        (TopK(5), "put it into a list"),
        ("TopK", "put it into a list"),
        ([TopK], "is the class TopK itself"),
        ([TopK(5), 3], r"processors\[1\] is 3: expected a function"),
        ([lambda ids, scores: None], "returned None"),
        ([lambda ids, scores: scores[:, :3]], "expected logits of the shape"),
        ([lambda ids, scores: scores.fill_(-math.inf)], "left no possible token"),
    ],
)
def test_what_is_no_processor_is_refused(small, processors, message):
    with pytest.raises(SettingError, match=message):
        complete(*small, ["w5"], max_new_tokens=2, processors=processors)


def test_transformers_own_argument_is_sent_to_processors(small):
    with pytest.raises(SettingError, match="give processors="):
        complete(*small, ["w5"], max_new_tokens=2, logits_processor=[TopK(5)])
