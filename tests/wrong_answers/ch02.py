"""Wrong answers to the exercises of chapter 02, each with what its reader is told."""

from itertools import pairwise

import torch


def _encode(word, ranks, key=None, passes=10**6, first=None):
    tokens = first or [bytes([byte]) for byte in word.encode()]
    for _ in range(passes):
        joined = [left + right for left, right in pairwise(tokens)]
        known = [place for place, token in enumerate(joined) if token in ranks]
        if not known:
            return tokens
        place = min(known, key=key or (lambda place, joined=joined: ranks[joined[place]]))
        tokens[place : place + 2] = [joined[place]]
    return tokens


def _highest_first(word, ranks):
    tokens = [bytes([byte]) for byte in word.encode()]
    while True:
        joined = [left + right for left, right in pairwise(tokens)]
        known = [place for place, token in enumerate(joined) if token in ranks]
        if not known:
            return tokens
        place = max(known, key=lambda place: ranks[joined[place]])
        tokens[place : place + 2] = [joined[place]]


def _longest_match(word, ranks):
    rest, tokens = word.encode(), []
    while rest:
        size = next(size for size in range(len(rest), 0, -1) if size == 1 or rest[:size] in ranks)
        tokens.append(rest[:size])
        rest = rest[size:]
    return tokens


HEADER = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}"
CLOSE = "{%- endfor %}"
PROMPT = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
TURN = HEADER + "{{- m.content + '<|im_end|>\\n' }}" + CLOSE


def _tag(body):
    return HEADER + "{%- if m.role == 'assistant' %}" + body + CLOSE + PROMPT


OTHERS = "{%- else %}{{- m.content + '<|im_end|>\\n' }}{%- endif %}"
HEADER_INSIDE = (
    "{%- for m in messages %}{%- if m.role == 'assistant' %}{%- generation %}{{- "
    "'<|im_start|>assistant\\n' + m.content + '<|im_end|>' }}{%- endgeneration %}{%- else %}{{- "
    "'<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}{%- endif %}{{- '\\n' }}{%- "
    "endfor %}" + PROMPT
)


def _wrap(question):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def _by_parts(question, tokenizer, spell):
    start, stop = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    plain = lambda text: tokenizer(text).input_ids  # noqa: E731
    return [
        start,
        *plain("user\n"),
        *spell(question),
        stop,
        *plain("\n"),
        start,
        *plain("assistant\n"),
    ]


def _letters(tokenizer):
    return lambda text: tokenizer(text, split_special_tokens=True).input_ids


def _each_character(question, tokenizer):
    return _by_parts(
        question, tokenizer, lambda text: [i for char in text for i in tokenizer(char).input_ids]
    )


def _deletes(question, tokenizer):
    for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        question = question.replace(token, "")
    return tokenizer(_wrap(question)).input_ids


def _no_opening(question, tokenizer):
    start, stop = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    return [start, *_letters(tokenizer)("user\n" + question), stop]


def _pad(rows, pad, side="left", mask=None):
    width = max(map(len, rows))
    gaps = [width - len(row) for row in rows]
    lefts = [gap if side == "left" else 0 for gap in gaps]
    ids = [
        [pad] * left + row + [pad] * (gap - left)
        for left, gap, row in zip(lefts, gaps, rows, strict=True)
    ]
    ones = [
        [0] * left + [1] * len(row) + [0] * (gap - left)
        for left, gap, row in zip(lefts, gaps, rows, strict=True)
    ]
    ids, ones = torch.tensor(ids), torch.tensor(ones)
    return ids, ones if mask is None else mask(ids, ones)


def _cut(rows, pad):
    width = min(map(len, rows))
    ids = torch.tensor([row[-width:] for row in rows])
    return ids, torch.ones_like(ids)


def _in_place(rows, pad):
    answer = _pad(rows, pad)
    for row in rows:
        row[:0] = [pad] * (max(map(len, rows)) - len(row))
    return answer


WRONG_ANSWERS = {
    "2.1": [
        (
            lambda word, ranks: _encode(word, ranks, key=lambda place: place),
            "you glue the leftmost known pair",
        ),
        (_highest_first, "you glue the pair of highest rank"),
        (_longest_match, "you take the longest known token"),
        (lambda word, ranks: _encode(word, ranks, passes=1), "you glued once"),
        (lambda word, ranks: _encode(word, ranks, passes=0), "nothing was glued"),
        (
            lambda word, ranks: [bytes([b]) for b in word.encode("ascii", "ignore")],
            "do not join to its bytes",
        ),
        (lambda word, ranks: word, "return a list of bytes"),
    ],
    "2.2": [
        (TURN, "the generation prompt is missing"),
        (TURN + "{{- '<|im_start|>assistant\\n' }}", "although add_generation_prompt is false"),
        (
            TURN.replace("<|im_end|>\\n", "<|im_end|>") + PROMPT,
            "the line break after <|im_end|> is missing",
        ),
        (TURN.replace("<|im_end|>", "") + PROMPT, "nothing says where a turn ends"),
        (TURN.replace("m.content", "m.content | trim") + PROMPT, "the template trims contents"),
        (
            TURN.replace("\\n", "\\\\n") + PROMPT.replace("\\n", "\\\\n"),
            "backslash and n appear as letters",
        ),
        (TURN.replace("+ '\\n'", "") + PROMPT, "character "),
        (TURN + PROMPT.replace("\\n", ""), "the last line break is missing"),
        (TURN + PROMPT + "\n\n\n", "one line break too many"),
        (TURN.replace("{%- endfor %}", ""), "Jinja cannot use the template"),
        (["<|im_start|>"], "the template is a text"),
    ],
    "2.3": [
        (TURN + PROMPT, "there is no {% generation %} tag"),
        (HEADER_INSIDE, "the header <|im_start|>assistant is graded"),
        (
            _tag(
                "{%- generation %}{{- m.content }}{%- endgeneration %}{{- '<|im_end|>\\n' }}"
                + OTHERS
            ),
            "the stop token <|im_end|> stands outside",
        ),
        (
            _tag(
                "{%- generation %}{{- m.content + '<|im_end|>\\n' }}{%- endgeneration %}" + OTHERS
            ),
            "the line break after <|im_end|> is graded",
        ),
        (
            HEADER
            + "{%- generation %}{{- m.content + '<|im_end|>' }}{%- endgeneration %}{{- '\\n' }}"
            + CLOSE
            + PROMPT,
            "other roles are graded too",
        ),
        (
            _tag(
                "{%- if loop.last %}{%- generation %}{{- m.content + '<|im_end|>' }}{%- "
                "endgeneration %}{{- '\\n' }}{%- else %}{{- m.content + '<|im_end|>\\n' }}{%- "
                "endif %}" + OTHERS
            ),
            "1 of 3 answers are graded",
        ),
        (
            _tag("{%- generation %}{{- m.content + '<|im_end|>' }}{%- endgeneration %}" + OTHERS),
            "the last line break is missing",
        ),
    ],
    "2.4": [
        (
            lambda question, tokenizer: tokenizer(_wrap(question)).input_ids,
            "control tokens of the user's",
        ),
        (
            lambda question, tokenizer: (
                tokenizer(_wrap(question), split_special_tokens=True).input_ids
            ),
            "the template's own control tokens are spelled as letters",
        ),
        (_deletes, "the message was changed"),
        (
            lambda question, tokenizer: tokenizer(_wrap(question.replace("<|", "< |"))).input_ids,
            "the message was changed",
        ),
        (_each_character, "encode whole stretches"),
        (_no_opening, "the end is missing"),
        (lambda question, tokenizer: _wrap(question), "return a list of token ids"),
        (
            lambda question, tokenizer: (
                tokenizer(_wrap(question).replace("user\n", "User\n")).input_ids
            ),
            "the text around the question is not ChatML's",
        ),
    ],
    "2.5": [
        (lambda rows, pad: _pad(rows, pad, side="right"), "the padding stands on the right"),
        (
            lambda rows, pad: _pad(rows, pad, mask=lambda ids, ones: (ids != pad).long()),
            "the mask hides a real token",
        ),
        (
            lambda rows, pad: _pad(rows, pad, mask=lambda ids, ones: 1 - ones),
            "the mask is inverted",
        ),
        (
            lambda rows, pad: (_pad(rows, pad)[0], _pad(rows, pad, side="right")[1]),
            "both on the left",
        ),
        (
            lambda rows, pad: _pad(rows, pad, mask=lambda ids, ones: torch.ones_like(ones)),
            "padding is real",
        ),
        (_cut, "rows were cut to"),
        (_in_place, "changed `rows` in place"),
        (lambda rows, pad: _pad(rows, pad)[0], "return two things"),
    ],
}
