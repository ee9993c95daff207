"""Base against tuned: what counts as right, how sure the numbers are, and a page that is safe to
open."""

import copy
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from sft_lab.arguments import SettingError
from sft_lab.compare import (
    Comparison,
    Reply,
    Row,
    compare,
    read_questions,
)
from sft_lab.models import ATLAS_FOLDER
from sft_lab.records import RecordError, load_conversations
from sft_lab.report import mark_differences
from sft_lab.significance import paired_bootstrap

CHATML = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n"
    "{{ turn.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, and the control tokens of ChatML."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer, backend.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    made = PreTrainedTokenizerFast(tokenizer_object=backend)
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    made.add_special_tokens(names | {"additional_special_tokens": ["<|im_start|>"]})
    made.chat_template = CHATML
    return made


def make_parrot(tokenizer: PreTrainedTokenizerFast, answers: dict[str, str]) -> Qwen3ForCausalLM:
    """A real model whose scores are replaced: asked a question of `answers`, it writes that text,
    one token a step."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    model = Qwen3ForCausalLM(
        Qwen3Config(vocab_size=len(tokenizer), head_dim=8, intermediate_size=16, **sizes)
    ).eval()
    asked: list[list[int]] = []

    def rescore(module, arguments, keywords, output):
        input_ids = keywords["input_ids"]
        if input_ids.shape[1] > 1:  # the prompts: a new batch
            asked[:] = [
                tokenizer.encode(answers[text], add_special_tokens=False)
                for text in map(find, input_ids)
            ]
            rescore.step = 0
        for row, ids in enumerate(asked):
            output.logits[row, -1] = 0.0
            output.logits[row, -1, ids[rescore.step] if rescore.step < len(ids) else 65] = 9.0
        rescore.step += 1
        return output

    def find(ids: torch.Tensor) -> str:
        text = tokenizer.decode(ids)
        return next(question for question in answers if question in text)

    model.register_forward_hook(rescore, with_kwargs=True)
    return model


STOP = "<|im_end|>"
ASKED = [
    ("Capital of Peru?", "Lima."),
    ("Symbol of gold?", "Au"),
    ("Symbol of iron?", "Fe"),
    ("A moon?", "Io"),
]
BASE = {
    "Peru": "Lima, and so on and on",
    "gold": f" Au.{STOP}",
    "iron": "Iron",
    "moon": f"IO{STOP}",
}
TUNED = {
    "Peru": f"Lima{STOP}",
    "gold": f"Ag{STOP}",
    "iron": f"Fe.\n{STOP}",
    "moon": f"Europa{STOP}",
}


@pytest.fixture(scope="module")
def comparison(tokenizer) -> Comparison:
    base, tuned = (make_parrot(tokenizer, answers) for answers in (BASE, TUNED))
    rows = [
        {"question": q, "answer": a, "group": "places" if q != "A moon?" else "sky"}
        for q, a in ASKED
    ]
    return compare((base, tokenizer), (tuned, tokenizer), rows, seed=3, max_new_tokens=12)


def test_answers_stops_and_lengths_are_those_the_models_gave(comparison):
    result = comparison.to_dict()
    assert [row["change"] for row in result["answers"]] == [
        "improved",
        "lost",
        "improved",
        "both_wrong",
    ]
    assert [row["tuned"]["text"] for row in result["answers"]] == ["Lima", "Ag", "Fe.\n", "Europa"]
    assert (result["base"]["accuracy"], result["tuned"]["accuracy"]) == (0.25, 0.5)
    assert (result["base"]["stop_rate"], result["tuned"]["stop_rate"]) == (0.5, 1.0)
    assert result["base"]["mean_tokens"] == np.mean(
        [12, 5, 12, 3]
    )  # bytes, with the stop token; 12 is the limit
    assert result["tuned"]["mean_tokens"] == np.mean([5, 3, 5, 7])
    assert result["difference"]["accuracy"] == 0.25 and result["questions"] == 4
    assert result["groups"]["places"] == {"questions": 3, "base": 1 / 3, "tuned": 2 / 3}
    assert result["changes"] == {"improved": 2, "lost": 1, "both_wrong": 1, "both_right": 0}


def test_containing_the_answer_is_not_enough(comparison):
    first = comparison.rows[0]
    assert "Lima" in first.base.text and not first.base.right


def test_results_survive_json_and_are_the_same_for_the_same_seed(comparison):
    result = comparison.to_dict()
    assert json.loads(json.dumps(result)) == result
    assert Comparison(comparison.rows, seed=3, max_new_tokens=12).to_dict() == result


@pytest.mark.parametrize(
    "question",
    [
        ("Q?", "A"),
        ["Q?", "A"],
        {"question": "Q?", "answer": "A", "id": 7},
        [{"role": "user", "content": "Q?"}, {"role": "assistant", "content": "A"}],
    ],
)
def test_every_form_of_question_is_read(question):
    [(prompt, answer, group)] = read_questions([question])
    assert prompt in ("Q?", [{"role": "user", "content": "Q?"}]) and (answer, group) == ("A", "")


def test_bad_questions_are_all_named_by_their_place():
    bad = [
        ("Q?", "A"),
        ("Q?", " . "),
        {"question": "Q?"},
        [{"role": "user", "content": "Q?"}],
        "Q?",
        ("", "A"),
        7,
    ]
    with pytest.raises(ValueError) as error:
        read_questions(bad)
    assert re.findall(r"questions\[(\d)\]", str(error.value)) == ["1", "2", "3", "4", "5", "6"]


def test_the_last_answer_to_learn_is_the_reference_and_a_row_of_a_file_is_named(tmp_path):
    user, good = {"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}
    bad = {"role": "assistant", "content": "bad", "weight": 0}
    rows = [{"messages": [user, bad, user, good, user, bad]}, {"question": "q", "answer": "!!!"}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = load_conversations(tmp_path / "x.jsonl")
    assert read_questions([first]) == [([user, bad, user], "good", "")]
    with pytest.raises(
        ValueError, match=f"^{tmp_path / 'x.jsonl'}, row 2: the answer, '!!!' \\(str\\), is empty"
    ):
        read_questions([second, first])
    with pytest.raises(
        ValueError, match=r"^questions\[1\]: the last answer has weight 0: it is no re"
    ):
        read_questions([("q", "a"), [user, bad]])


@pytest.mark.parametrize("name", ["input", "context", "Context", "HISTORY", "system"])
def test_what_belongs_to_a_question_and_would_be_lost_is_named(name):
    row = {"question": "q", "answer": "a", "group": "g"}
    assert read_questions([row | {name: ""}]) == [("q", "a", "g")]
    with pytest.raises(ValueError, match=rf"questions\[1\]: the row has \['{name}'\] beside"):
        read_questions([row, row | {name: "text"}])


REFUSED = {
    "images": ({"images": ["a.png"]}, "the row has 'images', ['a.png'] (list): only text is"),
    "tools": ({"tools": [{"name": "f"}]}, "the row has 'tools', "),
    "unwanted": ({"label": False}, "the row has 'label' False: KTO's mark"),
    "weight": ({"weight": 0}, "the row says that it is not to be learned (its weight is 0)"),
    "no answer": ({"answer": None}, "no answer, only []"),
    "number": ({"answer": 4}, "the answer is 4 (int), not a text. Write it as text."),
    "several": ({"answer": ["a", "b"]}, "the answer is ['a', 'b'] (list), not a text"),
    "blank": ({"question": " "}, "no question, only []"),
}


@pytest.mark.parametrize("beside, cause", REFUSED.values(), ids=REFUSED)
def test_a_cause_is_named_once_with_how_many_questions_it_spoils(beside, cause):
    good = {"question": "q", "answer": "a"}
    with pytest.raises(RecordError) as error:
        read_questions([good] + [good | beside] * 600)
    first, more = str(error.value).splitlines()
    assert first.startswith(f"questions[1]: {cause}") and len(error.value.problems) == 600
    assert more == "    the same in 599 more: 2, 3, 4, 5, 6, …, all in .problems"


def test_what_no_model_is_shown_is_named_by_one_warning_and_what_is_about_the_row_is_not():
    row = {"question": "q", "answer": "a", "id": "x", "source": "s", "score": 0.5, "label": True}
    rows = [row | {"choices": [3, 4], "passage": "P"}, row | {"passage": "P", "hint": ""}]
    with pytest.warns(UserWarning) as caught:
        assert read_questions([*rows, row | {"thinking": "T"}]) == [("q", "a", "")] * 3
    [warning] = caught
    assert str(warning.message).startswith(
        "not asked, though it may belong to the question: "
        "'passage' in 2, 'choices' in 1, 'thinking' in 1 of 3 questions. "
    )


USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
UNASKABLE = {
    "picture": ([USER | {"images": ["a.png"]}, ANSWER], "turn 1 has 'images', ['a.png'] (list)"),
    "picture of the answer": ([USER, ANSWER | {"images": ["a"]}], "the last answer has 'images'"),
    "picture beside an answer": (([USER | {"image": "a"}], "a"), "turn 1 has 'image', 'a' (str)"),
    "unknown key": ([USER | {"mood": "calm"}, ANSWER], "turn 1 has mood, which would be lost"),
    "answer in the prompt": (([USER, ANSWER], "a"), "the prompt ends with an answer, 'a'"),
    "ShareGPT": (([{"from": "human", "value": "q"}], "a"), "turn 1 is {'from': 'human'"),
    "no answer": ([USER], "the last turn, {'role': 'user', 'content': 'q'} (dict), is no answer"),
    "a list in the answer": ([USER, ANSWER | {"content": ["a"]}], "the answer is ['a'] (list)"),
    "thoughts of a user": (
        [USER | {"reasoning_content": "T"}, ANSWER],
        "turn 1, user, has reasoning_content, and is no answer",
    ),
}


@pytest.mark.parametrize("question, cause", UNASKABLE.values(), ids=UNASKABLE)
def test_a_question_that_cannot_be_asked_is_named_by_its_place_and_cause(question, cause, pairs):
    with pytest.raises(RecordError) as error:
        compare(*pairs, [("Q?", "A"), question, question])
    first, more = str(error.value).splitlines()
    assert first.startswith(f"questions[1]: {cause}") and more == "    the same in 1 more: 2"


def test_no_questions_is_an_error():
    with pytest.raises(ValueError, match="no questions"):
        read_questions([])


def test_a_name_in_place_of_a_pair_is_refused(tokenizer):
    with pytest.raises(TypeError, match=r"base must be \(model, tokenizer\)"):
        compare("atlas-base", "atlas-base", ASKED)


# --- what can be known is known before the first question
# ---------------------------------------------------------------------------------------------


@pytest.fixture
def pairs(tokenizer):
    """Both models, neither of which may be asked anything."""

    def refuse(*arguments, **settings):
        raise AssertionError("a question was asked")

    models = [make_parrot(tokenizer, answers) for answers in (BASE, TUNED)]
    for model in models:
        model.generate = refuse
    return [(model, tokenizer) for model in models]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"measures": ["rouge_l", "rogue"]}, "measures: ['rogue'] unknown; there are exact_match"),
        ({"measures": ["bleu"], "language": "fr"}, "language is 'fr'; it must be one of"),
        *(({"seed": value}, f"seed is {value!r}; it must be") for value in (-1, 1.5, True, None)),
        *(
            ({"max_new_tokens": value}, f"max_new_tokens is {value!r}; it must be")
            for value in (0, -3, 2.0, True, None, "9")
        ),
        ({"names": ("one",)}, "names is ('one',); it must be two"),
        ({"names": ("a", "b", "c")}, "it must be two"),
        ({"max_new_tokens": 1}, "4 of 4 references are longer"),
        ({"max_new_tokens": 40_000}, "prompts[0] has"),
    ],
)
def test_a_comparison_that_could_not_end_is_refused_before_a_question_is_asked(
    settings, message, pairs
):
    with pytest.raises(SettingError) as found:
        compare(*pairs, ASKED, **settings)
    assert message in str(found.value) and "\n" not in str(found.value)


def test_a_reference_without_words_for_a_measure_is_named_by_its_place(pairs):
    asked = [*ASKED, ("秘鲁的首都？", "利马。")]
    with pytest.raises(SettingError, match=r"questions\[4\]: the answer '利马。' has no word"):
        compare(*pairs, asked, measures=["rouge_l"], max_new_tokens=12)


@pytest.mark.parametrize("place", [0, 1])
def test_a_question_too_long_for_one_of_the_two_is_found_before_the_other_answers(place, pairs):
    pairs[place][0].config.max_position_embeddings = 100
    asked = [*ASKED, ("Why? " * 20, "So.")]  # a token a byte
    with pytest.raises(SettingError, match=r"prompts\[4\] has .* more than the model's 100 pos"):
        compare(*pairs, asked, max_new_tokens=12)


def test_references_that_no_answer_can_reach_are_counted_and_said(tokenizer, tmp_path):
    """A token a byte: of Lima, Au, Fe and Io one has more than three; final dots do not count."""
    pairs = [(make_parrot(tokenizer, answers), tokenizer) for answers in (BASE, TUNED)]
    with pytest.warns(UserWarning, match=r"1 of 4 .*questions\[0\] has the longest, 4 tokens"):
        short = compare(*pairs, ASKED, max_new_tokens=3)
    assert short.to_dict()["references_too_long"] == 1 and not short.rows[0].tuned.right
    page = short.to_html(tmp_path / "page.html").read_text(encoding="utf-8")
    assert all("References longer than 3 tokens: 1;" in t for t in (short.table(), page))


def test_a_reference_counts_tokens_as_each_of_the_two_models_does(tokenizer, model):
    """28 bytes to one, a few tokens to the other: only what neither can write is refused."""
    atlas = AutoTokenizer.from_pretrained(ATLAS_FOLDER)
    pairs, asked = [(make_parrot(tokenizer, BASE), tokenizer), (model, atlas)], ASKED[:1]
    asked = [(question, "The capital of Peru is Lima.") for question, _ in asked]
    for pair in (pairs, pairs[::-1]):
        with pytest.warns(UserWarning, match="1 of 1 references are longer.* 27 tokens"):
            assert compare(*pair, asked, max_new_tokens=12).too_long == 1
        with pytest.raises(SettingError, match="1 of 1 references are longer"):
            compare(*pair, asked, max_new_tokens=2)


def test_references_that_can_be_reached_are_not_spoken_of(tokenizer, recwarn):
    pairs = [(make_parrot(tokenizer, answers), tokenizer) for answers in (BASE, TUNED)]
    enough = compare(*pairs, ASKED, max_new_tokens=4)
    assert enough.to_dict()["references_too_long"] == 0 and "longer than" not in enough.table()
    assert enough.rows[0].tuned.right and not enough.rows[0].tuned.stopped
    assert not [warning for warning in recwarn if "references" in str(warning.message)]


def test_numbers_of_numpy_make_the_same_comparison_and_json_holds_it(tokenizer, comparison):
    pairs = [(make_parrot(tokenizer, answers), tokenizer) for answers in (BASE, TUNED)]
    result = compare(*pairs, ASKED, seed=np.int64(3), max_new_tokens=np.int32(12)).to_dict()
    assert json.loads(json.dumps(result)) == comparison.to_dict() | {
        "groups": {},
        "answers": [row | {"group": ""} for row in comparison.to_dict()["answers"]],
    }


def test_one_model_under_both_names_is_pointed_out(tokenizer):
    model = make_parrot(tokenizer, TUNED)
    with pytest.warns(UserWarning, match="one model"):
        result = compare((model, tokenizer), (model, tokenizer), ASKED, max_new_tokens=12).to_dict()
    assert result["difference"] == {"accuracy": 0.0, "interval": [0.0, 0.0]}


def test_table_and_notebook_view_hold_the_same_numbers(comparison):
    table, view = comparison.table(), comparison._repr_html_()
    for text in (
        "right answers",
        "25 %",
        "50 %",
        "+25.0 points",
        "places (3)",
        "stopped by itself",
        "4 questions",
    ):
        assert text in table and text in view
    assert repr(comparison) == table


MEASURES = ("answer_f1", "bleu", "rouge_l", "repeated_4grams")


@pytest.fixture(scope="module")
def measured(tokenizer) -> Comparison:
    base, tuned = (make_parrot(tokenizer, answers) for answers in (BASE, TUNED))
    pairs = (base, tokenizer), (tuned, tokenizer)
    return compare(*pairs, ASKED, seed=3, max_new_tokens=12, measures=MEASURES)


def test_measures_stand_beside_what_is_reported_without_them(comparison, measured):
    found = json.loads(json.dumps(measured.to_dict()))
    measures = found.pop("measures")
    assert "measures" not in comparison.to_dict()
    assert found["base"] == comparison.to_dict()["base"] and [*measures] == [*MEASURES]
    # Lima of "Lima, and so"; au equals "Au" here; nothing of iron; io equals "IO"
    f1 = measures["answer_f1"]
    assert f1["base"] == pytest.approx((0.5 + 1 + 0 + 1) / 4) and f1["tuned"] == 0.5
    assert f1["difference"] == f1["tuned"] - f1["base"] and not f1["corpus"]
    low, high = f1["intervals"]["difference"]
    assert -1 <= low <= f1["difference"] <= high <= 1
    assert measures["bleu"]["corpus"] and measures["bleu"]["tuned"] == 0.0  # nothing of four words


def test_table_footnote_and_page_name_the_measures_and_what_they_are(measured, tmp_path):
    lines = [line.split() for line in measured.table().splitlines()]
    assert ["F1", "of", "words", "62.5", "50.0", "-12.5"] in lines
    page = Page(measured.to_html(tmp_path / "page.html").read_text(encoding="utf-8"))
    text = "".join(page.text)
    for note in (
        "Measures run from 0 to 100. Mean over the questions: F1 of words, ROUGE-L, repeated",
        "Of all answers together, questions resampled: BLEU.",
    ):
        assert note in measured.table() and note in text and note in measured._repr_html_()
    assert text.count("ROUGE-L") == 3  # a tile, a line of the figure, the footnote
    drawn = [a for tag, a in page.tags if tag == "line" and "interval" in a.get("class", "")]
    assert len(drawn) == 2 * (1 + len(MEASURES))


def test_chinese_answers_are_measured_by_characters(tokenizer):
    answers = {"秘鲁": f"利马城{STOP}"}
    pair = make_parrot(tokenizer, answers), tokenizer
    other = make_parrot(tokenizer, {"秘鲁": f"利马{STOP}"}), tokenizer
    asked = [("秘鲁的首都？", "利马。")]
    found = compare(pair, other, asked, measures=["rouge_1"], language="zh", max_new_tokens=12)
    rouge = found.to_dict()["measures"]["rouge_1"]
    assert (rouge["base"], rouge["tuned"]) == (pytest.approx(0.8), 1.0)
    assert "Each Chinese character is a word." in found.table()


SHY = TUNED | {"gold": f"I do not know.{STOP}", "moon": STOP}


def test_a_declined_answer_is_neither_right_nor_invented(tokenizer):
    shy = make_parrot(tokenizer, SHY)
    found = compare((make_parrot(tokenizer, BASE), tokenizer), (shy, tokenizer), ASKED)
    before, after = (found.to_dict()[side] for side in ("base", "tuned"))
    # right: Peru and iron; declined: gold; the empty answer is none of the three
    assert (after["accuracy"], after["declined"], after["invented"]) == (0.5, 0.25, 0.0)
    assert (after["answered"], before["answered"], before["invented"]) == (0.5, 1.0, 0.75)
    assert [row["tuned"]["declined"] for row in found.to_dict()["answers"]] == [0, 1, 0, 0]


def test_table_and_page_show_what_was_declined_where_something_was(tokenizer, comparison, tmp_path):
    shy = make_parrot(tokenizer, SHY)
    found = compare((make_parrot(tokenizer, BASE), tokenizer), (shy, tokenizer), ASKED)
    lines = [line.split() for line in found.table().splitlines()]
    assert ["declined", "0", "%", "25", "%", "+25.0", "points"] in lines
    assert ["invented", "75", "%", "0", "%", "-75.0", "points"] in lines
    page = found.to_html(tmp_path / "shy.html").read_text(encoding="utf-8")
    assert page.count("– declined</b>") == 1
    assert "<dt>declined</dt>" in page and "<dt>invented</dt>" in page
    nobody = comparison.to_html(tmp_path / "nobody.html").read_text(encoding="utf-8")
    assert "<dt>declined</dt>" not in nobody and "– declined</b>" not in nobody
    assert "declined" not in comparison.table() and "nvented" not in comparison.table()


def test_where_the_reference_declines_an_answer_that_equals_it_is_right():
    found = Reply("I do not know.", 5, stopped=True, right=True)
    assert (found.answered, found.declined, found.invented) == (True, False, False)


def make_comparison(*changes: str, text: str = "x") -> Comparison:
    """One row for each letter pair: "wr" is wrong before and right after."""
    return Comparison(
        [
            Row("q", "a", "", *(Reply(text, 3, True, letter == "r") for letter in change))
            for change in changes
        ],
        0,
        64,
    )


def test_one_model_asked_in_two_ways_is_no_mistake(tokenizer, recwarn):
    other = copy.deepcopy(tokenizer)
    other.chat_template = "{% for turn in messages %}{{ turn.content }}{% endfor %}"
    model = make_parrot(tokenizer, TUNED)
    compare((model, other), (model, tokenizer), ASKED, max_new_tokens=12)
    assert not [warning for warning in recwarn if "one model" in str(warning.message)]


def test_any_two_models_are_compared_each_through_its_own_tokenizer(tokenizer, tmp_path):
    """Another architecture, other control tokens, another template, another stop token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(
        BPE(vocab={char: i for i, char in enumerate(reversed(alphabet))}, merges=[])
    )
    backend.pre_tokenizer, backend.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    other = PreTrainedTokenizerFast(tokenizer_object=backend)
    other.add_special_tokens({"eos_token": "</s>", "pad_token": "<pad>"})
    other.chat_template = (
        "{% for turn in messages %}[{{ turn.role }}] {{ turn.content }}</s>{% endfor %}"
    )
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    stranger = LlamaForCausalLM(LlamaConfig(vocab_size=len(other), **sizes))
    comparison = compare(
        (stranger, other),
        (make_parrot(tokenizer, TUNED), tokenizer),
        ASKED,
        max_new_tokens=12,
        names=("random <Llama>", "parrot"),
    )
    result = comparison.to_dict()
    assert result["names"] == ["random <Llama>", "parrot"] and result["base"]["accuracy"] == 0.0
    assert result["tuned"]["accuracy"] == 0.5
    header = comparison.table().splitlines()[0]
    assert "random <Llama>" in header and "parrot" in header and "base" not in header
    page = Page(comparison.to_html(tmp_path / "page.html").read_text(encoding="utf-8"))
    text = "".join(page.text)
    assert "random <Llama> wrong, parrot right" in text and not re.search(
        r"\b(base|tuned)\b", text.split("}")[-1]
    )


def test_a_model_without_a_chat_template_is_told_where_to_get_one(tokenizer):
    other = copy.deepcopy(tokenizer)
    other.chat_template = None
    with pytest.raises(ValueError, match="has no chat template.*Copy one"):
        compare(
            (make_parrot(tokenizer, BASE), other), (make_parrot(tokenizer, TUNED), tokenizer), ASKED
        )


def test_other_names_speak_of_two_models_and_not_of_before_and_after():
    rows = make_comparison(*["wr"] * 20).rows
    assert (
        Comparison(rows, 0, 64, ("A", "B")).finding()
        == "B gives more right answers than A: 100 % against 0 %"
    )
    assert (
        Comparison(rows[:3], 0, 64, ("A", "B"))
        .finding()
        .startswith("Right answers: A 0 %, B 100 %; 3 questions")
    )


def test_the_finding_claims_a_difference_only_when_chance_would_rarely_give_it():
    assert (
        make_comparison(*["wr"] * 20).finding() == "Tuning raised right answers from 0 % to 100 %"
    )
    assert (
        make_comparison(*["rw"] * 20).finding() == "Tuning lowered right answers from 100 % to 0 %"
    )
    assert (
        make_comparison(*["wr"] * 5).finding().endswith("5 questions cannot tell them apart")
    )  # p = 2 / 2^5 = 0.06
    assert make_comparison(*["wr"] * 6).finding().startswith("Tuning raised")  # p = 2 / 2^6 = 0.03
    assert (
        make_comparison("wr", "rw", "rr", "wr")
        .finding()
        .endswith("4 questions cannot tell them apart")
    )
    assert (
        make_comparison(*["wr"] * 1400).finding().startswith("Tuning raised")
    )  # 2^1400 is more than a float holds
    assert make_comparison("rr", "ww").finding().endswith("2 questions cannot tell them apart")
    assert make_comparison("rw").finding().endswith("; 1 question cannot tell them apart")


@pytest.mark.parametrize(
    ("questions", "most", "words"),
    [(1, 1, "1 question, greedy decoding, at most 1 token. "), (2, 2, "2 questions, greedy")],
)
def test_the_footnote_counts_in_the_singular_and_the_plural(questions, most, words):
    comparison = Comparison(make_comparison(*["wr"] * questions).rows, 0, most)
    assert words in comparison.table()


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_shows_every_answer_and_filters_by_what_changed(comparison, tmp_path):
    path = comparison.to_html(tmp_path / "reports" / "demo.html")
    assert [file.name for file in path.parent.iterdir()] == ["demo.html"]
    page = Page(path.read_text(encoding="utf-8"))
    assert [a["class"] for tag, a in page.tags if tag == "article"] == [
        "improved",
        "lost",
        "improved",
        "both_wrong",
    ]
    radios = {a["id"]: "disabled" in a for tag, a in page.tags if tag == "input"}
    assert radios == {
        "show-all": False,
        "show-improved": False,
        "show-lost": False,
        "show-both_wrong": False,
        "show-both_right": True,
    }
    text = "".join(page.text)
    for piece in (
        "Lima, and so",
        "Europa",
        "✓ right",
        "✗ wrong",
        "stopped by itself after 3 tokens",
        "no stop token: ended at 12",
    ):
        assert piece in text


def test_all_outputs_of_a_comparison_rest_on_one_draw_of_the_bootstrap(tmp_path, monkeypatch):
    drawn = []

    def count_and_draw(*outcomes, seed):
        drawn.append(seed)
        return paired_bootstrap(*outcomes, seed=seed)

    monkeypatch.setattr("sft_lab.compare.paired_bootstrap", count_and_draw)
    comparison = make_comparison("wr", "rr", "ww", "wr")
    comparison.table(), comparison.finding(), comparison.to_dict(), comparison._repr_html_()
    comparison.to_html(tmp_path / "page.html")
    assert drawn == [0]


def test_what_a_model_says_stays_text_on_the_page(tmp_path):
    attack = "</blockquote><script>alert(1)</script><img src=https://x.org/a.png> $finding & 'x'"
    page = (
        make_comparison("ww", text=attack)
        .to_html(tmp_path / "page.html")
        .read_text(encoding="utf-8")
    )
    assert not {tag for tag, _ in Page(page).tags} & {"script", "img", "link", "iframe"}
    assert attack in "".join(Page(page).text)
    assert "default-src 'none'" in page
    assert not re.search(
        r"(src|href|url\()\s*=?\s*[\"']?https?:", re.sub(r"<blockquote>.*?</blockquote>", "", page)
    )


def test_words_that_the_reference_lacks_are_marked():
    assert mark_differences("The capital of Peru is Rome.", "The capital of Peru is Lima.") == (
        "The capital of Peru is <mark>Rome</mark>."
    )
    assert (
        mark_differences("法国的首都是伦敦。", "法国的首都是巴黎。")
        == "法国的首都是<mark>伦敦</mark>。"
    )
    assert "<mark>" not in mark_differences("and then <b>", "The capital of Peru is Lima.")
