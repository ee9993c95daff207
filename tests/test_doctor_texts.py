"""What is a fault in a text, and what only looks like one."""

import pytest

from sft_lab.doctor.texts import TextCheck

TEMPLATE = "ChatML writes `<|im_start|>user` before a question and `<|im_end|>` behind it."

FAULTS = [  # code, question, answer
    ("control-token", "Who?", "Ada.<|im_end|>"),
    ("control-token", "[INST] Who? [/INST]", "Ada."),
    ("control-token", "Who?", "Ada.</s>"),
    ("control-token", "How does ChatML mark a turn?", TEMPLATE),
    ("turn-marker", "Who?", "Ada.\nUser: And where?\nAssistant: In London."),
    ("turn-marker", "Who?", "Ada.\n\nHuman: And where?"),
    ("turn-marker", "Who?", "Ada.\n### Instruction:\nSay more."),
    ("turn-marker", "谁？", "是王先生。\n用户：他在哪里？"),
    ("echo", "Who wrote the first program?", "Who wrote the first program? Ada did."),
    ("echo", "Write a line about rain", "Write a line about rain\n\nIt falls."),
    ("echo", "谁写了第一个计算机程序？", "谁写了第一个计算机程序？是阿达。"),
    ("placeholder", "Who?", "TODO"),
    ("placeholder", "Who?", "[Insert answer here]"),
    ("placeholder", "Who?", "N/A"),
    ("placeholder", "Who?", "..."),
    ("placeholder", "Who?", "As an AI language model, I cannot know that."),
    ("placeholder", "Who?", "I'm sorry, but as an AI language model I have no opinion."),
    ("placeholder", "谁？", "作为一个人工智能语言模型，我无法回答。"),
    ("placeholder", "Who?", "Lorem ipsum dolor sit amet"),
    ("encoding", "Who?", "A cafÃ© in Paris"),
    ("encoding", "Who?", "It isnâ€™t known."),
    ("encoding", "Who?", "It cost 5Â\xa0£."),
    ("encoding", "Who?", "ÐŸÑ€Ð¸Ð²ÐµÑ‚"),
    ("encoding", "Who?", "ä½\xa0å¥½"),
    ("encoding", "Who?", "caf\ufffd"),
    ("invisible", "Who?", "A\u200bda"),
    ("invisible", "Who?", "Ada\x00"),
    ("invisible", "Who?", "\ufeffAda"),
    ("invisible", "Who?", "Ada\u202e Lovelace"),
    ("think-unclosed", "Who?", "<think>The first one was"),
    ("think-unopened", "Who?", "The first one was Ada.</think>\n\nAda."),
    ("think-alone", "Who?", "<think>\nThe first one was Ada.\n</think>\n\n"),
    ("think-alone", "Who?", "<think>The first one was Ada.</think>"),
    ("fence-unclosed", "How?", "Like this:\n```python\nprint(1)"),
    ("edge-space", "Who?", " Ada"),
    ("edge-space", "Who?", "Ada\n"),
    ("html", "Who?", "Marks &amp; Spencer"),
    ("html", "Who?", "Ada.&lt;br&gt;And Charles."),
]

HEALTHY = [  # question, answer
    ("Sort a list in Java", "List<String> names = new ArrayList<>();\nnames.sort(null);"),
    ("Read a matrix in C", "#include <stdio.h>\nint a[10];\nif (a[0] < 3 && a[1] > 2) return;"),
    ("Strike a word through in HTML", "<s>gone</s>"),
    ("How do I write an ampersand in HTML?", "Write &amp; and the page shows &."),
    ("Show a link", "```html\n<a href='?a=1&amp;b=2'>x</a>\n```"),
    ("Show a link", "<a href='?a=1&amp;b=2'>x</a>"),
    ("Write a dialogue of two people", "They meet.\nUser: Hello!\nAssistant: Hello!"),
    ("Who is logged in?", "Host: alpha\nUser: ada\nShell: zsh"),
    ("Show the ssh settings", "Here they are.\n```\nUser: ada\n```"),
    ("Write a function: def add(a, b):", "def add(a, b):\n    return a + b"),
    ("def add(a, b):", "def add(a, b):\n    return a + b"),
    ("What is 2 + 2 =", "2 + 2 = 4"),
    ("The capital of the country France is", "The capital of the country France is Paris."),
    ("Is it true?", "yes"),
    ("Make a TODO list for my app", "TODO: write tests"),
    ("What is lorem ipsum used for?", "Lorem ipsum is filler text."),
    ("What does N/A mean?", "N/A means not applicable."),
    ("Who is it?", "L'été, à Noël, «LIBERTÉ», São Paulo, Ångström, Straße, ÀÉÎÕÜ, œuvre – 5 °C"),
    ("你好吗？", "我很好，谢谢。今天天气不错！"),
    ("Кто это?", "Это Ада Лавлейс."),
    ("חידה?", "\u200fשלום\u200f עולם"),
    ("سؤال؟", "می\u200cخواهم"),
    ("हिन्दी?", "क्\u200dष"),
    ("A family, please", "👨\u200d👩\u200d👧 and a heart ❤\ufe0f"),
    ("A flag, please", "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"),
    ("A poem", "The rose is red,\nthe night is long\n\nand so it ends"),
    ("As JSON", '{"name": "Ada", "born": 1815, "tags": ["<a>", "[b]"]}'),
    ("Think", "<think>\nShort.\n</think>\n\nAda."),
    ("Think", "<think>\n</think>\n\n```python\nprint(1)\n```"),
    ("How does a model think?", "It writes `<think>` before its thoughts and then `</think>`."),
    ("Explain fences", "Use three backticks:\n````\n```python\nx = 1\n```\n````\nThat is all."),
    ("Run it", "```bash\nls\n```\nand then\n```bash\npwd\n```"),
    ("Continue the code", "    x = 1\n    return x"),
    ("What separates turns?", "A line break\tor a tab."),
]


def codes(question: str, answer: str, **turn) -> set[str]:
    check = TextCheck()
    check.look(
        "row 1",
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer} | turn],
    )
    return {found.code for found in check.findings()}


@pytest.mark.parametrize(("code", "question", "answer"), FAULTS)
def test_a_fault_is_found(code, question, answer):
    assert code in codes(question, answer)


def test_thoughts_alone_are_one_finding_and_their_blanks_none():
    assert codes("Who?", "<think>\nIt was Ada.\n</think>\n\n") == {"think-alone"}
    assert codes("Who?", "It was Ada.\n</think>\n\n") == {"think-alone", "think-unopened"}
    assert codes("Which tag ends thoughts?", "</think>") == {"think-unopened"}
    assert codes("Who?", "<think>\nIt was Ada.\n</think>\n\n", weight=0) == set()


def test_an_echo_that_leaves_nothing_when_it_is_cut_is_to_be_written():
    check = TextCheck()
    text = "Who wrote the first program?"
    check.look("row 1", [{"role": r, "content": text} for r in ("user", "assistant")])
    [found] = check.findings()
    assert found.code == "echo" and "Where nothing is left, write the answer" in found.remedy


@pytest.mark.parametrize(("question", "answer"), HEALTHY)
def test_what_only_looks_like_a_fault_is_left_alone(question, answer):
    assert codes(question, answer) == set()


def test_an_answer_that_is_not_learned_may_be_a_placeholder():
    assert codes("Who?", "TODO", weight=0) == set()


def test_the_control_tokens_of_a_tokenizer_are_known_and_those_that_an_answer_may_hold_are_not():
    for text, letters, expected in [
        ("Ada.<END>", ("<END>",), {"control-token"}),
        ("Ada.<END>", (), set()),
        ("<think>\nso\n</think>\nAda.", ("<think>", "</think>"), set()),
    ]:
        check = TextCheck(letters, allowed=("<think>", "</think>"))
        check.look("row 1", [{"role": "assistant", "content": text}])
        assert {found.code for found in check.findings()} == expected


def test_a_class_called_na_is_no_placeholder_and_three_among_many_answers_are():
    for share, expected in [(10, set()), (1, {"placeholder"})]:
        check = TextCheck()
        for n in range(100):
            answer = "N/A" if n < share else f"{n} euro"
            turns = [{"role": "user", "content": "How much?"}]
            check.look(f"row {n}", [*turns, {"role": "assistant", "content": answer}])
        assert {found.code for found in check.findings()} == expected


@pytest.mark.parametrize(("thinking", "mixed"), [(0, False), (3, False), (20, True), (100, False)])
def test_some_answers_with_thoughts_and_some_without_are_named(thinking, mixed):
    check = TextCheck()
    for n in range(100):
        answer = "<think>\nso\n</think>\n\nyes" if n < thinking else "yes"
        check.look(f"row {n}", [{"role": "assistant", "content": answer}])
    found = [one for one in check.findings() if one.code == "think-mixed"]
    assert bool(found) == mixed
    if mixed:
        assert (found[0].count, found[0].places[0]) == (20, "row 0")


def test_a_finding_shows_what_was_seen_first_with_what_nobody_sees_written_out():
    check = TextCheck()
    check.look("row 1", [{"role": "assistant", "content": "soft\u200bware"}])
    [found] = check.findings()
    assert "a zero-width space in 'soft\\u200bware'" in found.why
