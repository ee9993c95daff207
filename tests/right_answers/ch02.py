"""Right answers to the exercises of chapter 02, in different styles."""

from itertools import pairwise


def encode_by_places(word, ranks):
    tokens = [bytes([byte]) for byte in word.encode()]
    while True:
        places = [i for i, (a, b) in enumerate(pairwise(tokens)) if a + b in ranks]
        if not places:
            return tokens
        i = min(places, key=lambda i: ranks[tokens[i] + tokens[i + 1]])
        tokens[i : i + 2] = [tokens[i] + tokens[i + 1]]


def encode_by_loop(word, ranks):
    data = word.encode("utf-8")
    tokens = [data[i : i + 1] for i in range(len(data))]
    while len(tokens) > 1:
        best, place = None, None
        for i in range(len(tokens) - 1):
            rank = ranks.get(tokens[i] + tokens[i + 1])
            if rank is not None and (best is None or rank < best):
                best, place = rank, i
        if place is None:
            break
        tokens = tokens[:place] + [tokens[place] + tokens[place + 1]] + tokens[place + 2 :]
    return tokens


def encode_by_recursion(word, ranks):
    def glue(tokens):
        found = [
            (ranks[a + b], i)
            for i, (a, b) in enumerate(zip(tokens, tokens[1:], strict=False))
            if a + b in ranks
        ]
        if not found:
            return tokens
        _, i = min(found)
        return glue([*tokens[:i], tokens[i] + tokens[i + 1], *tokens[i + 2 :]])

    return glue([byte.to_bytes(1, "big") for byte in word.encode()])


def encode_by_infinity(word, ranks):
    tokens = list(map(lambda byte: bytes((byte,)), word.encode()))
    while len(tokens) >= 2:
        costs = [ranks.get(tokens[i] + tokens[i + 1], float("inf")) for i in range(len(tokens) - 1)]
        lowest = min(costs)
        if lowest == float("inf"):
            return tokens
        i = costs.index(lowest)
        tokens[i] += tokens.pop(i + 1)
    return tokens
    return tokens


def encode_by_cuts(word, ranks):
    """Keeps the borders between tokens instead of the tokens."""
    data = word.encode()
    cuts = list(range(len(data) + 1))
    while True:
        joined = {k: data[cuts[k - 1] : cuts[k + 1]] for k in range(1, len(cuts) - 1)}
        known = [k for k in joined if joined[k] in ranks]
        if not known:
            return [data[a:b] for a, b in pairwise(cuts)]
        del cuts[min(known, key=lambda k: (ranks[joined[k]], k))]


def header_and_text(question, tokenizer):
    start, end = (tokenizer.convert_tokens_to_ids(f"<|im_{side}|>") for side in ("start", "end"))

    def spell(text):
        return tokenizer(text, split_special_tokens=True, add_special_tokens=False).input_ids

    return [
        start,
        *spell("user\n"),
        *spell(question),
        end,
        *spell("\n"),
        start,
        *spell("assistant\n"),
    ]


def joined_text(question, tokenizer):
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    ids = [start]
    ids += tokenizer("user\n" + question, split_special_tokens=True)["input_ids"]
    ids.append(end)
    ids += tokenizer("\n")["input_ids"] + [start] + tokenizer("assistant\n")["input_ids"]
    return ids


def by_template_and_hole(question, tokenizer):
    """Renders the chat around an empty place, and fills it with spelled ids."""
    chat = [{"role": "user", "content": "\x00"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    before, after = text.split("\x00")
    middle = tokenizer.encode(question, split_special_tokens=True, add_special_tokens=False)
    return tokenizer(before).input_ids + middle + tokenizer(after).input_ids


def by_vocabulary(question, tokenizer):
    vocabulary = tokenizer.get_vocab()
    parts = ["<|im_start|>", "user\n" + question, "<|im_end|>", "\n", "<|im_start|>", "assistant\n"]
    ids = []
    for place, part in enumerate(parts):
        if place in (0, 2, 4):
            ids.append(vocabulary[part])
        else:
            ids.extend(tokenizer.encode(part, split_special_tokens=True))
    return ids


def by_tokens(question, tokenizer):
    pieces = ["<|im_start|>", *tokenizer.tokenize("user\n")]
    pieces += tokenizer.tokenize(question, split_special_tokens=True)
    pieces += ["<|im_end|>", *tokenizer.tokenize("\n"), "<|im_start|>"]
    return tokenizer.convert_tokens_to_ids(pieces + tokenizer.tokenize("assistant\n"))


RIGHT_ANSWERS = {
    "2.1": [
        encode_by_places,
        encode_by_loop,
        encode_by_recursion,
        encode_by_infinity,
        encode_by_cuts,
    ],
    "2.2": [
        "{%- for message in messages %}"
        "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
        "{% for message in messages %}<|im_start|>{{ message['role'] }}{{ '\\n' }}"
        "{{ message['content'] }}<|im_end|>{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{{ '\\n' }}{% endif %}",
        """
        {%- for turn in messages -%}
            <|im_start|>{{ turn.role ~ "\\n" ~ turn.content }}<|im_end|>{{ "\\n" }}
        {%- endfor -%}
        {%- if add_generation_prompt -%}
            <|im_start|>assistant{{ "\\n" }}
        {%- endif -%}
        """,
        "{%- macro turn(role, content) -%}{{ '<|im_start|>' ~ role ~ '\\n' ~ content }}"
        "{%- endmacro -%}"
        "{%- for m in messages -%}{{ turn(m.role, m.content) }}{{ '<|im_end|>\\n' }}{%- endfor -%}"
        "{{- turn('assistant', '') if add_generation_prompt }}",
        "{%- set line = '\\n' %}"
        "{%- for message in messages %}"
        "{{- '<|im_start|>' }}{{- message['role'] }}{{- line }}{{- message['content'] }}"
        "{{- '<|im_end|>' }}{{- line }}"
        "{%- endfor %}"
        "{{- ('<|im_start|>assistant' + line) if add_generation_prompt else '' }}",
        "{% for m in messages %}{{ ['<|im_start|>', m.role, '\\n', m.content, '<|im_end|>', '\\n']"
        "|join }}{% endfor %}{% if add_generation_prompt is defined and add_generation_prompt %}"
        "{{ '<|im_start|>assistant\\n' }}{% endif %}",
        "{% for m in messages %}{{ '<|im_start|>%s\\n%s<|im_end|>\\n'|format(m.role, m.content) }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    ],
    "2.3": [
        "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
        "{%- if message.role == 'assistant' %}"
        "{%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}"
        "{%- else %}{{- message.content + '<|im_end|>' }}{%- endif %}{{- '\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
        "{% for m in messages %}{% if m['role'] == 'assistant' %}<|im_start|>assistant{{ '\\n' }}"
        "{% generation %}{{ m['content'] }}<|im_end|>{% endgeneration %}{{ '\\n' }}"
        "{% else %}<|im_start|>{{ m['role'] }}{{ '\\n' }}{{ m['content'] }}<|im_end|>{{ '\\n' }}"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{{ '\\n' }}{% endif %}",
        """
        {%- for turn in messages -%}
            <|im_start|>{{ turn.role ~ "\\n" }}
            {%- if turn.role != "assistant" -%}
                {{ turn.content }}<|im_end|>
            {%- else -%}
                {%- generation -%}
                    {{ turn.content }}<|im_end|>
                {%- endgeneration -%}
            {%- endif -%}
            {{ "\\n" }}
        {%- endfor -%}
        {%- if add_generation_prompt -%}
            <|im_start|>assistant{{ "\\n" }}
        {%- endif -%}
        """,
        "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}"
        "{%- if m.role == 'assistant' %}{%- generation %}{{- m.content }}{%- endgeneration %}"
        "{%- generation %}{{- '<|im_end|>' }}{%- endgeneration %}"
        "{%- else %}{{- m.content + '<|im_end|>' }}{%- endif %}{{- '\\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
        "{%- for m in messages %}{{- '<|im_start|>' ~ m.role ~ '\\n' }}"
        "{%- set body = m.content ~ '<|im_end|>' %}"
        "{%- if m.role == 'assistant' %}{%- generation %}{{- body }}{%- endgeneration %}"
        "{%- else %}{{- body }}{%- endif %}{{- '\\n' }}{%- endfor %}"
        "{{- '<|im_start|>assistant\\n' if add_generation_prompt }}",
        "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}"
        "{%- if m.role == 'assistant' %}\n{% generation %} {{- m.content + '<|im_end|>' }}"
        "{% endgeneration %}{%- else %}{{- m.content + '<|im_end|>' }}{%- endif %}{{- '\\n' }}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
        "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}"
        "{%- if m.role == 'assistant' %}{%- generation %}{{- m.content }}{{- '<|im_end|>' }}"
        "{%- endgeneration %}{{- '\\n' }}{%- endif %}"
        "{%- if m.role != 'assistant' %}{{- m.content + '<|im_end|>\\n' }}{%- endif %}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
    ],
    "2.4": [header_and_text, joined_text, by_template_and_hole, by_vocabulary, by_tokens],
}
