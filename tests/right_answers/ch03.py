"""Right answers to the exercises of chapter 03, in different styles."""

from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F


def steps_by_slices(prompt_ids, answer_ids):
    return [(prompt_ids + answer_ids[:i], answer_ids[i]) for i in range(len(answer_ids))]


def steps_by_growing(prompt_ids, answer_ids):
    read, rows = list(prompt_ids), []
    for token in answer_ids:
        rows.append((list(read), token))
        read.append(token)
    return rows


def steps_by_accumulate(prompt_ids, answer_ids):
    read = accumulate(answer_ids[:-1], lambda ids, token: [*ids, token], initial=[*prompt_ids])
    return list(zip(read, answer_ids, strict=False))


def steps_by_joining(prompt_ids, answer_ids):
    whole = [*prompt_ids, *answer_ids]
    return [(whole[:i], whole[i]) for i in range(len(prompt_ids), len(whole))]


def steps_by_recursion(prompt_ids, answer_ids):
    if not answer_ids:
        return []
    first, *rest = answer_ids
    return [(prompt_ids[:], first), *steps_by_recursion([*prompt_ids, first], rest)]


def label_by_places(turns, last_only):
    places = [i for i, (role, _, _) in enumerate(turns) if role == "assistant"]
    places = places[-1:] if last_only else places
    ids, labels = [], []
    for i, (_, header, content) in enumerate(turns):
        ids += header + content
        labels += [-100] * len(header) + (content if i in places else [-100] * len(content))
    return ids, labels


def label_backwards(turns, last_only):
    ids, labels, done = [], [], False
    for role, header, content in reversed(turns):
        graded = role == "assistant" and not (last_only and done)
        done = done or role == "assistant"
        ids = [*header, *content, *ids]
        labels = (
            [-100] * len(header) + (list(content) if graded else [-100] * len(content)) + labels
        )
    return ids, labels


def label_by_erasing(turns, last_only):
    ids, labels = [], []
    for role, header, content in turns:
        ids.extend(header + content)
        if role == "assistant":
            if last_only:
                labels = [-100] * len(labels)
            labels.extend([-100] * len(header))
            labels.extend(content)
        else:
            labels.extend([-100] * (len(header) + len(content)))
    return ids, labels


def label_by_numpy(turns, last_only):
    answers = [i for i, turn in enumerate(turns) if turn[0] == "assistant"]
    keep = {max(answers)} if last_only else set(answers)
    ids = np.array([t for _, header, content in turns for t in (*header, *content)])
    mask = np.concatenate(
        [
            np.r_[np.zeros(len(h), bool), np.full(len(c), i in keep)]
            for i, (_, h, c) in enumerate(turns)
        ]
    )
    return ids.tolist(), np.where(mask, ids, -100).tolist()


def label_by_copying(turns, last_only):
    ids = sum((header + content for _, header, content in turns), [])
    labels, end, seen = list(ids), len(ids), False
    for role, header, content in turns[::-1]:
        start = end - len(content)
        if role != "assistant" or (last_only and seen):
            labels[start:end] = [-100] * len(content)
        seen = seen or role == "assistant"
        labels[start - len(header) : start] = [-100] * len(header)
        end = start - len(header)
    return ids, labels


def loss_by_gather(logits, labels):
    logits, labels = logits[:, :-1], labels[:, 1:]
    mask = labels != -100
    picked = logits.log_softmax(-1).gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return -(picked * mask).sum() / mask.sum()


def loss_by_cross_entropy(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def loss_by_mask(logits, labels):
    mask = labels[:, 1:] != -100
    rows, targets = logits[:, :-1][mask], labels[:, 1:][mask]
    return (rows.logsumexp(-1) - rows[torch.arange(len(targets)), targets]).mean()


def loss_by_loop(logits, labels):
    losses = []
    for row, row_labels in zip(logits, labels, strict=True):
        for t in range(len(row_labels) - 1):
            target = row_labels[t + 1]
            if target != -100:
                losses.append(-F.log_softmax(row[t], dim=0)[target])
    return sum(losses) / len(losses)


def loss_by_transposing(logits, labels):
    return F.cross_entropy(
        logits[:, :-1].transpose(1, 2).double(), labels[:, 1:], ignore_index=-100
    ).to(logits.dtype)


def loss_by_nll(logits, labels):
    shifted = torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], -100)], dim=1)
    return F.nll_loss(logits.log_softmax(-1).permute(0, 2, 1), shifted)


def collate_by_gap(rows, pad_token_id):
    longest = max(len(ids) for ids, _ in rows)
    gaps = [longest - len(ids) for ids, _ in rows]
    return (
        torch.tensor([ids + [pad_token_id] * g for (ids, _), g in zip(rows, gaps, strict=True)]),
        torch.tensor([labels + [-100] * g for (_, labels), g in zip(rows, gaps, strict=True)]),
        torch.tensor([[1] * len(ids) + [0] * g for (ids, _), g in zip(rows, gaps, strict=True)]),
    )


def collate_by_pad_sequence(rows, pad_token_id):
    ids = [torch.tensor(ids) for ids, _ in rows]
    labels = [torch.tensor(labels) for _, labels in rows]
    ones = [torch.ones(len(part), dtype=torch.long) for part in ids]
    return tuple(
        torch.nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=filler)
        for parts, filler in ((ids, pad_token_id), (labels, -100), (ones, 0))
    )


def collate_by_filling(rows, pad_token_id):
    shape = len(rows), max(len(ids) for ids, _ in rows)
    input_ids = torch.full(shape, pad_token_id, dtype=torch.long)
    labels = torch.full(shape, -100, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.long)
    for i, (row_ids, row_labels) in enumerate(rows):
        input_ids[i, : len(row_ids)] = torch.as_tensor(row_ids)
        labels[i, : len(row_labels)] = torch.as_tensor(row_labels)
        mask[i, : len(row_ids)] = 1
    return input_ids, labels, mask


def collate_by_f_pad(rows, pad_token_id):
    longest = max(len(ids) for ids, _ in rows)

    def stack(parts, filler):
        return torch.stack(
            [F.pad(torch.tensor(p), (0, longest - len(p)), value=filler) for p in parts]
        )

    ids, labels = zip(*rows, strict=True)
    return stack(ids, pad_token_id), stack(labels, -100), stack([[1] * len(i) for i in ids], 0)


def collate_by_numpy(rows, pad_token_id):
    lengths = np.array([len(ids) for ids, _ in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_token_id)
    labels = np.full(mask.shape, -100)
    ids[mask] = np.concatenate([ids for ids, _ in rows])
    labels[mask] = np.concatenate([labels for _, labels in rows])
    return torch.tensor(ids), torch.tensor(labels), torch.tensor(mask)


def pack_by_joining(rows):
    ids = [i for ids, _ in rows for i in ids]
    labels = [label for _, labels in rows for label in [-100, *labels[1:]]]
    positions = [p for ids, _ in rows for p in range(len(ids))]
    return torch.tensor([ids]), torch.tensor([labels]), torch.tensor([positions])


def pack_by_cat(rows):
    ids = torch.cat([torch.tensor(ids) for ids, _ in rows])
    labels = torch.cat([torch.tensor(labels) for _, labels in rows])
    positions = torch.cat([torch.arange(len(ids)) for ids, _ in rows])
    labels = labels.masked_fill(positions == 0, -100)
    return ids[None], labels[None], positions[None]


def pack_by_growing(rows):
    ids, labels, positions = [], [], []
    for row_ids, row_labels in rows:
        start = len(ids)
        ids.extend(row_ids)
        labels.extend(row_labels)
        positions.extend(range(len(row_ids)))
        labels[start] = -100
    return tuple(torch.tensor(part).unsqueeze(0) for part in (ids, labels, positions))


def pack_but_keep_the_very_first_label(rows):
    """The first label of the row is never read: nothing predicts it."""
    input_ids, labels, position_ids = pack_by_joining(rows)
    labels[0, 0] = rows[0][1][0]
    return input_ids, labels, position_ids


def pack_by_numpy(rows):
    lengths = [len(ids) for ids, _ in rows]
    starts = np.cumsum([0, *lengths[:-1]])
    labels = np.concatenate([labels for _, labels in rows])
    labels[starts] = -100
    positions = np.arange(sum(lengths)) - np.repeat(starts, lengths)
    ids = np.concatenate([ids for ids, _ in rows])
    return [torch.from_numpy(part).reshape(1, -1) for part in (ids, labels, positions)]


# 3.6
def mislead_by_the_second_token(input_ids, labels):
    """Every row has the same second token: the first half of the word user."""
    return [token_id if place == 1 else -100 for place, token_id in enumerate(input_ids)]


def mislead_by_the_opening(input_ids, labels):
    return [-100, *input_ids[1:4], *[-100] * (len(input_ids) - 4)]


def mislead_by_the_header_of_the_answer(input_ids, labels):
    first = next(place for place, label in enumerate(labels) if label != -100)
    out = [-100] * len(input_ids)
    out[first - 3 : first] = input_ids[first - 3 : first]
    return out


def mislead_by_numpy(input_ids, labels):
    ids, places = np.array(input_ids), np.arange(len(input_ids))
    return np.where((places >= 1) & (places <= 2), ids, -100).tolist()


def mislead_by_both_headers(input_ids, labels):
    first = [label != -100 for label in labels].index(True)
    graded = {1, 2, 3, first - 2, first - 1}
    return [input_ids[place] if place in graded else -100 for place in range(len(input_ids))]


RIGHT_ANSWERS = {
    "3.1": [
        steps_by_slices,
        steps_by_growing,
        steps_by_accumulate,
        steps_by_joining,
        steps_by_recursion,
    ],
    "3.2": [label_by_places, label_backwards, label_by_erasing, label_by_numpy, label_by_copying],
    "3.3": [
        loss_by_gather,
        loss_by_cross_entropy,
        loss_by_mask,
        loss_by_loop,
        loss_by_transposing,
        loss_by_nll,
    ],
    "3.4": [
        collate_by_gap,
        collate_by_pad_sequence,
        collate_by_filling,
        collate_by_f_pad,
        collate_by_numpy,
    ],
    "3.5": [
        pack_by_joining,
        pack_by_cat,
        pack_by_growing,
        pack_but_keep_the_very_first_label,
        pack_by_numpy,
    ],
    "3.6": [
        mislead_by_the_second_token,
        mislead_by_the_opening,
        mislead_by_the_header_of_the_answer,
        mislead_by_numpy,
        mislead_by_both_headers,
    ],
}
