"""Wrong answers to the exercises of chapter 02, each with what its reader is told."""

from functools import partial
from itertools import pairwise

import torch


def _encode(word, ranks, key=None, passes=10**6):
    tokens = [bytes([byte]) for byte in word.encode()]
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


def _ascii_alone(word, ranks):
    return [bytes([byte]) for byte in word.encode("ascii", "ignore")]


def _longest_match(word, ranks):
    rest, tokens = word.encode(), []
    while rest:
        size = next(size for size in range(len(rest), 0, -1) if size == 1 or rest[:size] in ranks)
        tokens.append(rest[:size])
        rest = rest[size:]
    return tokens


HEADER = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}"
SAID = "{{- m.content + '<|im_end|>\\n' }}"
LINE = "{{- '\\n' }}"
PROMPT = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
TURN = HEADER + SAID + "{%- endfor %}"


def _grade(said):
    return "{%- generation %}{{- " + said + " }}{%- endgeneration %}"


def _tag(answer):
    """A template that writes an assistant's turn like this, behind the header."""
    chosen = "{%- if m.role == 'assistant' %}" + answer + "{%- else %}" + SAID + "{%- endif %}"
    return HEADER + chosen + "{%- endfor %}" + PROMPT


ANSWER = _grade("m.content + '<|im_end|>'")
LAST_ANSWER = "{%- if loop.last %}" + ANSWER + LINE + "{%- else %}" + SAID + "{%- endif %}"
EVERY_ROLE = HEADER + ANSWER + LINE + "{%- endfor %}" + PROMPT
HEADER_INSIDE = (
    "{%- for m in messages %}{%- if m.role == 'assistant' %}"
    + _grade("'<|im_start|>assistant\\n' + m.content + '<|im_end|>'")
    + "{%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' }}{%- endif %}"
    + LINE
    + "{%- endfor %}"
    + PROMPT
)


def _wrap(question):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def _by_letters(question, tokenizer):
    return tokenizer(_wrap(question), split_special_tokens=True).input_ids


def _each_character(question, tokenizer):
    start, stop = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    user, line, assistant = (tokenizer(text).input_ids for text in ("user\n", "\n", "assistant\n"))
    said = [token_id for letter in question for token_id in tokenizer(letter).input_ids]
    return [start, *user, *said, stop, *line, start, *assistant]


def _deletes(question, tokenizer):
    for token in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        question = question.replace(token, "")
    return tokenizer(_wrap(question)).input_ids


def _no_opening(question, tokenizer):
    start, stop = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    return [start, *tokenizer("user\n" + question, split_special_tokens=True).input_ids, stop]


def _breaks_control_tokens(question, tokenizer):
    return tokenizer(_wrap(question.replace("<|", "< |"))).input_ids


def _another_role(question, tokenizer):
    return tokenizer(_wrap(question).replace("user\n", "User\n")).input_ids


def _longest_pair(word, ranks):
    return _encode(word, {token: -len(token) for token in ranks})


def _dictionary_order(word, ranks):
    return _encode(word, {token: place for place, token in enumerate(ranks)})


def _spelled(question, tokenizer):
    head, tail = (tokenizer(text).input_ids for text in _wrap("?").split("?"))
    return [*head, *tokenizer(question, split_special_tokens=True).input_ids, *tail]


def _generates(side="left", masked=True, mask_by_id=False, placed=True, together=False, kept=0):
    def generate(model, prompts, pad, stop, most):
        width = max(map(len, prompts))
        ids, mask = torch.full((len(prompts), width), pad), torch.zeros(len(prompts), width).long()
        for i, prompt in enumerate(prompts):
            at = width - len(prompt) if side == "left" else 0
            ids[i, at : at + len(prompt)] = torch.tensor(prompt)
            mask[i, at : at + len(prompt)] = 1
        mask = (ids != pad).long() if mask_by_id else mask
        mask = mask if masked else torch.ones_like(mask)
        for _ in range(most):
            place = (mask.cumsum(1) - 1).clamp(min=0) if placed else None
            if place is None:
                place = torch.arange(ids.shape[1])[None].expand_as(ids)
            logits = model(input_ids=ids, attention_mask=mask, position_ids=place).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        new = ids[:, -most:].tolist()
        ends = [row.index(stop) if stop in row else most for row in new]
        ends = [min(ends)] * len(ends) if together else ends
        return [row[: end + kept] for row, end in zip(new, ends, strict=True)]

    return generate


def _one_by_one(model, prompts, pad, stop, most):
    alone = _generates()
    return [alone(model, [prompt], pad, stop, most)[0] for prompt in prompts]


WRONG_ANSWERS = {
    "2.1": [
        (partial(_encode, key=lambda place: place), "you glue the leftmost known pair"),
        (_highest_first, "you glue the pair of highest rank"),
        (_longest_match, "you take the longest known token"),
        (partial(_encode, passes=1), "you glued once"),
        (partial(_encode, passes=0), "nothing was glued"),
        (_ascii_alone, "do not join to its bytes"),
        (lambda word, ranks: word, "return a list of bytes"),
        (_longest_pair, "you glue the pair that makes the longest token"),
        (_dictionary_order, "you go by the order of the dictionary"),
    ],
    "2.2": [
        (TURN, "the generation prompt is missing"),
        (TURN + "{{- '<|im_start|>assistant\\n' }}", "although add_generation_prompt is false"),
        (TURN.replace("|>\\n", "|>") + PROMPT, "the line break after <|im_end|> is missing"),
        (TURN.replace("<|im_end|>", "") + PROMPT, "nothing says where a turn ends"),
        (TURN.replace("m.content", "m.content | trim") + PROMPT, "the template trims contents"),
        ((TURN + PROMPT).replace("\\n", "\\\\n"), "backslash and n appear as letters"),
        (TURN.replace("+ '\\n'", "") + PROMPT, "character "),
        (TURN + PROMPT.replace("\\n", ""), "the last line break is missing"),
        (TURN + PROMPT + "\n\n\n", "one line break too many"),
        (TURN.replace("{%- endfor %}", ""), "Jinja cannot use the template"),
        (["<|im_start|>"], "the template is a text"),
    ],
    "2.3": [
        (TURN + PROMPT, "there is no {% generation %} tag"),
        (HEADER_INSIDE, "the header <|im_start|>assistant is graded"),
        (_tag(_grade("m.content") + "{{- '<|im_end|>\\n' }}"), "<|im_end|> stands outside"),
        (_tag(_grade("m.content + '<|im_end|>\\n'")), "the line break after <|im_end|> is graded"),
        (EVERY_ROLE, "other roles are graded too"),
        (_tag(LAST_ANSWER), "1 of 3 answers are graded"),
        (_tag(ANSWER), "the line break after an answer's <|im_end|> is missing"),
    ],
    "2.4": [
        (lambda question, tokenizer: tokenizer(_wrap(question)).input_ids, "of the user's"),
        (_by_letters, "the template's own control tokens are spelled as letters"),
        (_deletes, "the message was changed"),
        (_breaks_control_tokens, "the message was changed"),
        (_each_character, "encode whole stretches"),
        (_no_opening, "the end is missing"),
        (lambda question, tokenizer: _wrap(question), "return a list of token ids"),
        (_another_role, "the text around the question is not ChatML's"),
        (lambda question, tokenizer: _spelled(" " + question, tokenizer), "a blank stands before"),
    ],
    "2.6": [
        (_generates(side="right"), "the padding stands on the right"),
        (_generates(mask_by_id=True), "the mask hides a real token"),
        (_generates(masked=False), "the model reads the padding"),
        (_generates(placed=False), "positions count the padding"),
        (_generates(together=True), "all rows end at the first stop"),
        (_generates(kept=1), "the stop token is part of the answer"),
        (_generates(kept=99), "goes on after its stop token"),
        (_one_by_one, "one call serves all prompts"),
        (lambda model, prompts, pad, stop, most: [], "an answer for each of"),
    ],
}
