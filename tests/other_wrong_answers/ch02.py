"""Wrong answers to the exercises of chapter 02, written from the statements alone."""

import re
import unicodedata
from itertools import pairwise

import torch

START, END = "<|im_start|>", "<|im_end|>"


def encode(word, ranks, *, choose=min, split=None, joined=None, usable=None, once=False):
    """Right with the defaults; every keyword is a mistake."""
    joined = joined or (lambda a, b: a + b)
    usable = usable or (lambda token: token in ranks)
    tokens = split(word) if split else [bytes([byte]) for byte in word.encode()]
    while True:
        places = [i for i, (a, b) in enumerate(pairwise(tokens)) if usable(joined(a, b))]
        if not places:
            return tokens
        i = choose(places, key=lambda i: ranks[joined(tokens[i], tokens[i + 1])])
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
        if once:
            return tokens


def first_place(places, key):
    return places[0]


def last_place(places, key):
    return places[-1]


def rightmost_of_equals(places, key):
    return min(reversed(places), key=key)


def encode_in_one_pass(word, ranks):
    """Glues from left to right, once."""
    tokens = []
    for byte in word.encode():
        tokens.append(bytes([byte]))
        while len(tokens) > 1 and tokens[-2] + tokens[-1] in ranks:
            tokens[-2:] = [tokens[-2] + tokens[-1]]
    return tokens


def encode_longest_first(word, ranks):
    data, tokens = word.encode(), []
    while data:
        size = next(n for n in range(len(data), 0, -1) if n == 1 or data[:n] in ranks)
        tokens.append(data[:size])
        data = data[size:]
    return tokens


def encode_by_rank_order(word, ranks):
    """One pass for each learned token, in order; replaces text, and so crosses no old border."""
    text = [bytes([byte]) for byte in word.encode()]
    for token in sorted(ranks, key=ranks.get, reverse=True):
        for i in range(len(text) - 1):
            if i + 1 < len(text) and text[i] + text[i + 1] == token:
                text[i : i + 2] = [token]
    return text


def encode_with_used_up_ranks(word, ranks):
    tokens = [bytes([byte]) for byte in word.encode()]
    while places := [i for i, (a, b) in enumerate(pairwise(tokens)) if a + b in ranks]:
        i = min(places, key=lambda i: ranks[tokens[i] + tokens[i + 1]])
        ranks.pop(tokens[i] + tokens[i + 1])
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return tokens


def encode_and_fill_the_ranks(word, ranks):
    for byte in word.encode():
        ranks.setdefault(bytes([byte]), 10**9)
    return encode(word, ranks)


def encode_without_truth_of_zero(word, ranks):
    return encode(word, ranks, usable=ranks.get)


def chatml(
    start=START,
    end=END,
    role="message.role",
    content="message.content",
    after_role="\\n",
    after_end="\\n",
    loop="message in messages",
    before="",
    opened="<|im_start|>assistant\\n",
    condition="add_generation_prompt",
    last="",
):
    """Right with the defaults; every keyword is a mistake."""
    return (
        before + "{%- for " + loop + " %}"
        "{{- '" + start + "' + " + role + " + '" + after_role + "' + " + content + " + '" + end
        + after_end + "' }}{%- endfor %}{%- if " + condition + " %}{{- '" + opened + "' }}"
        "{%- endif %}" + last
    )  # fmt: skip


def tagged(
    header="{{- '<|im_start|>' + m.role + '\\n' }}",
    open_tag="{%- generation %}",
    body="{{- m.content + '<|im_end|>' }}",
    close_tag="{%- endgeneration %}",
    after="{{- '\\n' }}",
    condition="m.role == 'assistant'",
    prompt="{{- '<|im_start|>assistant\\n' }}",
):
    """Right with the defaults; every keyword is a mistake."""
    return (
        "{%- for m in messages %}" + header + "{%- if " + condition + " %}" + open_tag + body
        + close_tag + after + "{%- else %}{{- m.content + '<|im_end|>\\n' }}{%- endif %}"
        "{%- endfor %}{%- if add_generation_prompt %}" + prompt + "{%- endif %}"
    )  # fmt: skip


def turns(question, tokenizer, *, spell, header="user\n", after="\n", opened="assistant\n"):
    start, end = map(tokenizer.convert_tokens_to_ids, (START, END))
    ids = [start, *tokenizer(header).input_ids, *spell(question), end]
    ids += tokenizer(after).input_ids if after else []
    return [*ids, start, *tokenizer(opened).input_ids] if opened else ids


def spelled(tokenizer):
    return lambda text: tokenizer(text, split_special_tokens=True).input_ids


def asked(change):
    """The right ids of a changed question."""

    def encode_question(question, tokenizer):
        return turns(change(question), tokenizer, spell=spelled(tokenizer))

    return encode_question


def with_parts(**parts):
    def encode_question(question, tokenizer):
        return turns(question, tokenizer, spell=spelled(tokenizer), **parts)

    return encode_question


def by_the_template(question, tokenizer):
    chat = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return tokenizer(text).input_ids


def all_spelled(question, tokenizer):
    text = f"{START}user\n{question}{END}\n{START}assistant\n"
    return tokenizer(text, split_special_tokens=True).input_ids


def unguarded(question, tokenizer):
    return turns(question, tokenizer, spell=lambda text: tokenizer(text).input_ids)


def letter_by_letter(question, tokenizer):
    spell = spelled(tokenizer)
    return turns(question, tokenizer, spell=lambda text: [i for c in text for i in spell(c)])


def word_by_word(question, tokenizer):
    spell = spelled(tokenizer)
    return turns(
        question,
        tokenizer,
        spell=lambda text: [i for c in re.findall(r"\w+|\W", text) for i in spell(c)],
    )


def only_the_end_is_guarded(question, tokenizer):
    spell = spelled(tokenizer)

    def guard(text):
        parts = re.split(r"(<\|im_end\|>)", text)
        ids = [spell(p) if p == END else tokenizer(p).input_ids for p in parts if p]
        return sum(ids, [])

    return turns(question, tokenizer, spell=guard)


def only_chatml_is_guarded(question, tokenizer):
    """Forgets the other control tokens, such as <|endoftext|>."""
    spell = spelled(tokenizer)

    def guard(text):
        parts = re.split(r"(<\|im_end\|>|<\|im_start\|>)", text)
        ids = [spell(p) if p in (START, END) else tokenizer(p).input_ids for p in parts if p]
        return sum(ids, [])

    return turns(question, tokenizer, spell=guard)


def spelled_when_attacked(question, tokenizer):
    """The usual ids, unless a control token is written: then all is spelled."""
    ordinary = by_the_template(question, tokenizer)
    return all_spelled(question, tokenizer) if START in question or END in question else ordinary


def as_a_tensor(question, tokenizer):
    return torch.tensor(turns(question, tokenizer, spell=spelled(tokenizer)))


def as_a_batch(question, tokenizer):
    return [turns(question, tokenizer, spell=spelled(tokenizer))]


def switched_for_good(question, tokenizer):
    tokenizer.split_special_tokens = not tokenizer.split_special_tokens
    return turns(question, tokenizer, spell=spelled(tokenizer))


def encode_never_to_one(word, ranks):
    """Forgets to return a word that has become one token."""
    tokens = [bytes([byte]) for byte in word.encode()]
    while len(tokens) > 1:
        places = [i for i, (a, b) in enumerate(pairwise(tokens)) if a + b in ranks]
        if not places:
            return tokens
        i = min(places, key=lambda i: ranks[tokens[i] + tokens[i + 1]])
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return None


def encode_some(word, ranks, merges):
    """Stops after so many merges."""
    tokens = [bytes([byte]) for byte in word.encode()]
    for _ in range(merges):
        places = [i for i, (a, b) in enumerate(pairwise(tokens)) if a + b in ranks]
        if not places:
            break
        i = min(places, key=lambda i: ranks[tokens[i] + tokens[i + 1]])
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]
    return tokens


def encode_fewer_merges_than_letters(word, ranks):
    """Takes letters for bytes: a letter of several bytes needs more merges."""
    return encode_some(word, ranks, len(word) - 1)


def word_by_word_with_blanks(question, tokenizer):
    spell = spelled(tokenizer)
    words = question.split(" ")
    return turns(question, tokenizer, spell=lambda _: [i for w in words for i in spell(f" {w}")])


OTHER_WRONG_ANSWERS = {
    "2.1": [
        lambda word, ranks: encode(word, ranks, choose=max),
        lambda word, ranks: encode(word, ranks, choose=first_place),
        lambda word, ranks: encode(word, ranks, choose=last_place),
        lambda word, ranks: encode(word, ranks, choose=rightmost_of_equals),
        lambda word, ranks: encode(word, ranks, once=True),
        lambda word, ranks: encode(word, ranks, split=lambda w: [c.encode() for c in w]),
        lambda word, ranks: encode(word, ranks, joined=lambda a, b: b + a),
        lambda word, ranks: [token.decode(errors="ignore") for token in encode(word, ranks)],
        lambda word, ranks: [ranks.get(token, -1) for token in encode(word, ranks)],
        lambda word, ranks: [list(token) for token in encode(word, ranks)],
        lambda word, ranks: b"".join(encode(word, ranks)),
        lambda word, ranks: [token for token in encode(word, ranks) if token in ranks],
        lambda word, ranks: [bytes([byte]) for byte in word.encode()],
        lambda word, ranks: encode(word.lower(), ranks),
        lambda word, ranks: encode(word.encode("ascii", "ignore").decode(), ranks),
        lambda word, ranks: encode(word.strip(), ranks),
        lambda word, ranks: encode(word, ranks)[::-1],
        lambda word, ranks: encode(word, ranks, split=lambda w: [c.encode("latin-1") for c in w]),
        lambda word, ranks: sorted(set(encode(word, ranks)), key=encode(word, ranks).index),
        encode_in_one_pass,
        encode_longest_first,
        encode_by_rank_order,
        encode_with_used_up_ranks,
        encode_and_fill_the_ranks,
        encode_without_truth_of_zero,
        encode_never_to_one,
        encode_fewer_merges_than_letters,
        lambda word, ranks: encode_some(word, ranks, 6),
        lambda word, ranks: encode_some(word, ranks, 10),
        lambda word, ranks: encode(word, {token: place for place, token in enumerate(ranks)}),
        lambda word, ranks: encode(word, {token: -len(token) for token in ranks}),
        lambda word, ranks: encode_some(word, ranks, len(word)),
    ],
    "2.2": [
        chatml(after_end=""),
        chatml(after_role=" "),
        chatml(after_role=""),
        chatml(after_role=":\\n"),
        chatml(opened="<|im_start|>assistant"),
        chatml(opened=""),
        chatml(opened="<|im_start|>"),
        chatml(opened="<|im_start|>assistant\\n<think>\\n"),
        chatml(opened="assistant\\n"),
        chatml(condition="true"),
        chatml(condition="false"),
        chatml(condition="messages[-1].role == 'user'"),
        chatml(role="'user'"),
        chatml(role="message.role|capitalize"),
        chatml(content="message.content|trim"),
        chatml(content="message.content|e"),
        chatml(content="message.content|replace('\\n', ' ')"),
        chatml(content="message.content|string|striptags"),
        chatml(loop="message in messages if message.role != 'system'"),
        chatml(loop="message in messages[1:]"),
        chatml(loop="message in messages|reverse"),
        chatml(loop="message in messages[-2:]"),
        chatml(loop="message in messages[:1]"),
        chatml(before="<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n"),
        chatml(before="{{- bos_token }}<|endoftext|>"),
        chatml(end="<|im_end|> "),
        chatml(end="<|endoftext|>"),
        chatml(start="<im_start>", end="<im_end>"),
        chatml(last=" "),
        chatml(last="{{ '\\n' }}"),
        chatml(content="' ' + message.content"),
        chatml().replace("\\n", "\n\n"),
        chatml().replace("{%- endfor %}", ""),
        chatml().replace("add_generation_prompt", "generation_prompt"),
        "<|im_start|>user\n{{ messages[0].content }}<|im_end|>\n<|im_start|>assistant\n",
        ["a list"],
        chatml(condition="add_generation_prompt and messages[-1].role == 'user'"),
        chatml(condition="add_generation_prompt and messages[-1].role != 'assistant'"),
        chatml(loop="message in messages if message.content"),
        chatml(loop="message in messages if message.role != 'system' or message == messages[0]"),
        chatml(content="message.content.split('</think>')[-1]"),
        chatml(content="message.content.lstrip('\\n')"),
    ],
    "2.3": [
        chatml(),
        tagged(open_tag="", close_tag=""),
        tagged(body="{{- m.content }}", close_tag="{%- endgeneration %}{{- '<|im_end|>' }}"),
        tagged(after="", body="{{- m.content + '<|im_end|>\\n' }}"),
        tagged(condition="true"),
        tagged(condition="m.role == 'user'"),
        tagged(condition="m.role != 'system'"),
        tagged(condition="m.role == 'assistant' and loop.last"),
        tagged(condition="loop.last"),
        tagged(condition="m.role == 'assistant' and loop.index0 == 1"),
        tagged(condition="m.role == 'assistant' and loop.index0 == 2"),
        tagged(
            header="{%- if m.role != 'assistant' %}{{- '<|im_start|>' + m.role + '\\n' }}"
            "{%- endif %}",
            body="{{- '<|im_start|>assistant\\n' + m.content + '<|im_end|>' }}",
        ),
        tagged(
            header="{%- if m.role != 'assistant' %}{{- '<|im_start|>' + m.role + '\\n' }}"
            "{%- else %}{{- '<|im_start|>assistant' }}{%- endif %}",
            body="{{- '\\n' + m.content + '<|im_end|>' }}",
        ),
        tagged(body="{{- m.content|trim + '<|im_end|>' }}"),
        tagged(body="{{- m.content }}", after="{{- '<|im_end|>\\n' }}"),
        tagged(body="{{- '<|im_end|>' }}", open_tag="{{- m.content }}{%- generation %}"),
        tagged(prompt="{%- generation %}{{- '<|im_start|>assistant\\n' }}{%- endgeneration %}"),
        tagged(prompt=""),
        tagged(after=""),
        tagged(open_tag="{% generation %} {{- ' ' }}", close_tag="{% endgeneration %}"),
        tagged(open_tag="{%- generate %}", close_tag="{%- endgenerate %}"),
        tagged(close_tag=""),
        tagged(header="{{- '<|im_start|>' + m.role + ' ' }}"),
        tagged(open_tag="{%- generation %}{{- '<think>\\n\\n</think>\\n\\n' }}"),
        tagged(open_tag="<|generation|>", close_tag="<|endgeneration|>"),
        tagged(condition="m.role == 'assistant' and m.content"),
        tagged(body="{{- m.content.split('</think>')[-1] + '<|im_end|>' }}"),
        tagged().replace("in messages", "in messages if m.content"),
        tagged().replace("in messages", "in messages if m.role != 'system' or m == messages[0]"),
        tagged().replace(
            "if add_generation_prompt",
            "if add_generation_prompt and messages[-1].role == 'user'",
        ),
    ],
    "2.4": [
        by_the_template,
        all_spelled,
        unguarded,
        letter_by_letter,
        word_by_word,
        only_the_end_is_guarded,
        only_chatml_is_guarded,
        spelled_when_attacked,
        as_a_tensor,
        as_a_batch,
        switched_for_good,
        asked(lambda q: q.replace(START, "").replace(END, "")),
        asked(lambda q: q.replace("<|", "< |")),
        asked(lambda q: q.replace("<|im_end|>", "<|im_end\u200b|>")),
        asked(lambda q: q.replace("<", "&lt;").replace(">", "&gt;")),
        asked(lambda q: q.strip()),
        asked(lambda q: q.rstrip()),
        asked(lambda q: " " + q),
        asked(lambda q: q.lower()),
        asked(lambda q: " ".join(q.split())),
        asked(lambda q: q.split(END)[0]),
        asked(lambda q: q.encode("ascii", "ignore").decode()),
        with_parts(header="system\n"),
        with_parts(header="user"),
        with_parts(header="user "),
        with_parts(after=""),
        with_parts(opened=""),
        with_parts(opened="assistant"),
        with_parts(opened="assistant\n<|im_end|>"),
        lambda question, tokenizer: spelled(tokenizer)(question),
        lambda question, tokenizer: turns(question, tokenizer, spell=spelled(tokenizer))[1:],
        lambda question, tokenizer: (
            [*turns(question, tokenizer, spell=spelled(tokenizer)), tokenizer.eos_token_id]
        ),
        lambda question, tokenizer: [
            float(i) for i in turns(question, tokenizer, spell=spelled(tokenizer))
        ],
        word_by_word_with_blanks,
        asked(lambda q: unicodedata.normalize("NFKC", q)),
    ],
}
