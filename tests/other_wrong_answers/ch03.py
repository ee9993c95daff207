"""Wrong answers to the exercises of chapter 03, written from the statements alone."""

import math

import torch
import torch.nn.functional as F

PAD = -100


def steps(prompt, answer):
    return [(prompt + answer[:i], answer[i]) for i in range(len(answer))]


def steps_of_one_list(prompt_ids, answer_ids):
    read, rows = list(prompt_ids), []
    for token in answer_ids:
        rows.append((read, token))
        read.append(token)
    return rows


def steps_that_extend_the_prompt(prompt_ids, answer_ids):
    rows = []
    for token in answer_ids:
        rows.append((list(prompt_ids), token))
        prompt_ids.append(token)
    return rows


def steps_that_extend_and_restore(prompt_ids, answer_ids):
    """Leaves the prompt longer by all but the last token."""
    rows = []
    for i, token in enumerate(answer_ids):
        if i:
            prompt_ids += [answer_ids[i - 1]]
        rows.append((prompt_ids[:], token))
    return rows


def steps_by_dict(prompt_ids, answer_ids):
    return [
        (list(read), token)
        for token, read in {token: read for read, token in steps(prompt_ids, answer_ids)}.items()
    ]


def label(turns, last_only, *, role="assistant", last=None, fill=PAD, header_graded=False):
    """Right with the defaults; every keyword is a mistake."""
    answers = [i for i, turn in enumerate(turns) if turn[0] == role]
    keep = (last(turns, answers) if last else answers[-1:]) if last_only else answers
    ids, labels = [], []
    for i, (_, header, content) in enumerate(turns):
        ids += header + content
        graded = i in keep
        labels += header if header_graded and graded else [fill] * len(header)
        labels += content if graded else [fill] * len(content)
    return ids, labels


def labelled(**mistakes):
    return lambda turns, last_only: label(turns, last_only, **mistakes)


def relabelled(change):
    """The right ids and labels, changed."""
    return lambda turns, last_only: change(*label(turns, last_only))


def label_by_equality(turns, last_only):
    """Knows the last answer by its content."""
    last = [content for role, _, content in turns if role == "assistant"][-1]
    ids, labels = [], []
    for role, header, content in turns:
        graded = role == "assistant" and (not last_only or content == last)
        ids += header + content
        labels += [PAD] * len(header) + (content if graded else [PAD] * len(content))
    return ids, labels


def label_by_index(turns, last_only):
    """Looks for the last answer from the front."""
    answers = [turn for turn in turns if turn[0] == "assistant"]
    return label(turns, last_only, last=lambda turns, _: [turns.index(answers[-1])])


def label_by_id(turns, last_only):
    """Grades every token that an answer holds, wherever it stands."""
    ids, labels = label(turns, last_only)
    graded = set(labels) - {PAD}
    return ids, [i if i in graded else PAD for i in ids]


def label_in_place(turns, last_only):
    ids, labels = [], []
    places = [i for i, turn in enumerate(turns) if turn[0] == "assistant"]
    for i, (role, header, content) in enumerate(turns):
        graded = role == "assistant" and (not last_only or i == places[-1])
        start = len(header)
        header += content
        ids += header
        labels += [PAD] * start + (content if graded else [PAD] * len(content))
    return ids, labels


def label_pops(turns, last_only):
    while last_only and turns[-1][0] != "assistant":
        turns.pop()
    return label(turns, last_only)


def label_cuts_after_the_answer(turns, last_only):
    if last_only:
        end = max(i for i, turn in enumerate(turns) if turn[0] == "assistant")
        turns = turns[: end + 1]
    return label(turns, last_only)


def token_losses(logits, labels):
    """Right: the losses (n,) of all graded tokens."""
    mask = labels[:, 1:] != PAD
    rows, targets = logits[:, :-1][mask], labels[:, 1:][mask]
    return rows.logsumexp(-1) - rows.gather(-1, targets[:, None])[:, 0]


def unmasked(logits, labels):
    picked = logits[:, :-1].log_softmax(-1).gather(-1, labels[:, 1:].clamp(min=0)[..., None])
    return -picked[..., 0], labels[:, 1:] != PAD


def loss_of_row_means(logits, labels):
    losses, mask = unmasked(logits, labels)
    return ((losses * mask).sum(1) / mask.sum(1)).mean()


def loss_over_the_labels_before_the_shift(logits, labels):
    losses, mask = unmasked(logits, labels)
    return (losses * mask).sum() / (labels != PAD).sum()


def loss_in_place(logits, labels):
    mask = labels[:, 1:] != PAD
    labels[labels == PAD] = 0
    picked = logits[:, :-1].log_softmax(-1).gather(-1, labels[:, 1:, None])[..., 0]
    return -(picked * mask).sum() / mask.sum()


def loss_unshifted(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def loss_shifted_back(logits, labels):
    return F.cross_entropy(logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten())


def loss_shifted_twice(logits, labels):
    return F.cross_entropy(logits[:, :-2].flatten(0, 1), labels[:, 2:].flatten())


def loss_of_the_first_row(logits, labels):
    return token_losses(logits[:1], labels[:1]).mean()


def loss_shifted_in_the_flat(logits, labels):
    """Shifts after joining the rows: the last token of a row predicts the next row's first."""
    return F.cross_entropy(logits.flatten(0, 1)[:-1], labels.flatten()[1:])


def loss_ignoring_zero(logits, labels):
    return token_losses(logits, labels.masked_fill(labels == 0, PAD)).mean()


def loss_from_the_first_graded_on(logits, labels):
    """Takes each answer for one run: -100 inside it is graded as token 0."""
    labels = labels.clone()
    for row in labels:
        graded = (row[1:] != PAD).nonzero().flatten() + 1
        run = row[graded[0] : graded[-1] + 1]
        run[run == PAD] = 0
    return token_losses(logits, labels).mean()


def collate(rows, pad_token_id, *, width=max, fill=None, label_fill=PAD):
    width = width([len(ids) for ids, _ in rows])
    fill = pad_token_id if fill is None else fill
    gaps = [width - len(ids) for ids, _ in rows]
    return (
        torch.tensor([ids + [fill] * gap for (ids, _), gap in zip(rows, gaps, strict=True)]),
        torch.tensor(
            [labels + [label_fill] * gap for (_, labels), gap in zip(rows, gaps, strict=True)]
        ),
        torch.tensor(
            [[1] * len(ids) + [0] * gap for (ids, _), gap in zip(rows, gaps, strict=True)]
        ),
    )


def collated(change):
    """The right tensors, changed."""
    return lambda rows, pad_token_id: change(*collate(rows, pad_token_id))


def collate_on_the_left(rows, pad_token_id):
    width = max(len(ids) for ids, _ in rows)
    return (
        torch.tensor([[pad_token_id] * (width - len(ids)) + ids for ids, _ in rows]),
        torch.tensor([[PAD] * (width - len(ids)) + labels for ids, labels in rows]),
        torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids, _ in rows]),
    )


def collate_masks_by_id(rows, pad_token_id):
    ids, labels, _ = collate(rows, pad_token_id)
    return ids, labels, (ids != pad_token_id).long()


def collate_labels_by_id(rows, pad_token_id):
    ids, labels, mask = collate(rows, pad_token_id)
    return ids, labels.masked_fill(ids == pad_token_id, PAD), mask


def collate_labels_from_the_ids(rows, pad_token_id):
    ids, _, mask = collate(rows, pad_token_id)
    return ids, ids.masked_fill(mask == 0, PAD), mask


def collate_in_place(rows, pad_token_id):
    width, lengths = max(len(ids) for ids, _ in rows), [len(ids) for ids, _ in rows]
    for ids, labels in rows:
        while len(ids) < width:
            ids.append(pad_token_id)
            labels.append(PAD)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    return torch.tensor([i for i, _ in rows]), torch.tensor([x for _, x in rows]), mask.long()


def collate_strips_trailing_pads(rows, pad_token_id):
    ids, labels, mask = collate(rows, pad_token_id)
    for row, row_mask in zip(ids.tolist(), mask, strict=True):
        last = max((i for i, x in enumerate(row) if x != pad_token_id), default=-1)
        row_mask[last + 1 :] = 0
    return ids, labels, mask


def collate_masks_the_ungraded(rows, pad_token_id):
    ids, labels, _ = collate(rows, pad_token_id)
    return ids, labels, (labels != PAD).long()


def pack(rows, *, first=PAD, start=0):
    """Right with the defaults."""
    ids = [i for ids, _ in rows for i in ids]
    labels = [x for _, labels in rows for x in ([first, *labels[1:]] if first else labels)]
    positions = [start + p for ids, _ in rows for p in range(len(ids))]
    return torch.tensor([ids]), torch.tensor([labels]), torch.tensor([positions])


def packed(change):
    return lambda rows: change(*pack(rows))


def pack_in_place(rows):
    for _, labels in rows:
        labels[0] = PAD
    return pack(rows)


def pack_masks_the_last_label(rows):
    return pack([(ids, [*labels[:-1], PAD]) for ids, labels in rows], first=None)


def pack_masks_only_the_first_example(rows):
    ids, labels, positions = pack(rows, first=None)
    labels[0, 0] = PAD
    return ids, labels, positions


def pack_masks_all_but_the_last_example(rows):
    ids, labels, positions = pack(rows)
    labels[0, -len(rows[-1][0])] = rows[-1][1][0]
    return ids, labels, positions


def pack_with_a_separator(rows):
    ids, labels, positions = pack([(ids + [0], labels + [PAD]) for ids, labels in rows])
    return ids, labels, positions


def pack_padded(rows):
    width = max(len(ids) for ids, _ in rows)
    return pack([(i + [0] * (width - len(i)), x + [PAD] * (width - len(x))) for i, x in rows])


def pack_with_a_position_for_each_example(rows):
    ids, labels, _ = pack(rows)
    return ids, labels, torch.tensor([[k for k, (i, _) in enumerate(rows) for _ in i]])


def pack_positions_of_equal_lengths(rows):
    ids, labels, _ = pack(rows)
    return ids, labels, (torch.arange(ids.shape[1]) % len(rows[0][0]))[None]


def pack_shifts_the_labels(rows):
    ids, labels, positions = pack(rows)
    return ids, torch.cat([labels[:, 1:], torch.tensor([[PAD]])], dim=1), positions


def label_by_header_length(turns, last_only, length):
    """Ignores as many tokens of each turn as `length(header)` says."""
    _, right = label(turns, last_only)
    ids, labels = [], []
    for _, header, content in turns:
        start = len(ids) + len(header)
        ids += header + content
        labels += [PAD] * length(header) + right[start : len(ids)]
    return ids, labels


def label_by_the_first_header(turns, last_only):
    return label_by_header_length(turns, last_only, lambda header: len(turns[0][1]))


# 3.6
def mislead_in_place(input_ids, labels):
    for place in range(len(labels)):
        labels[place] = input_ids[place] if place == 1 else -100
    return labels


OTHER_WRONG_ANSWERS = {
    "3.1": [
        lambda p, a: [(p + a[: i + 1], a[i]) for i in range(len(a))],
        lambda p, a: [(p + a[:i], a[i - 1]) for i in range(1, len(a) + 1)],
        lambda p, a: [(p + a[:i], a[i]) for i in range(1, len(a))],
        lambda p, a: [(p + a[:i], a[i]) for i in range(len(a) - 1)],
        lambda p, a: [(a[:i], a[i]) for i in range(len(a))],
        lambda p, a: [(p, a[i]) for i in range(len(a))],
        lambda p, a: [((p + a)[:i], (p + a)[i]) for i in range(1, len(p + a))],
        lambda p, a: [(a[i], p + a[:i]) for i in range(len(a))],
        lambda p, a: [(p + a[: a.index(x)], x) for x in a],
        lambda p, a: [(p + a[:i], [a[i]]) for i in range(len(a))],
        lambda p, a: [(p + a[:i], a[i:]) for i in range(len(a))],
        lambda p, a: [(p + a[max(0, i - 1) : i], a[i]) for i in range(len(a))],
        lambda p, a: [(p[-1:] + a[:i], a[i]) for i in range(len(a))],
        lambda p, a: [(p[:i] + a[:i], a[i]) for i in range(len(a))],
        lambda p, a: [(p + a[:i], a[i]) for i in range(len(p))],
        lambda p, a: [(p + a[:i], a[i]) for i in range(len(a)) if a[i] not in a[:i]],
        lambda p, a: steps(p, a)[::-1],
        lambda p, a: steps(p, a)[0],
        lambda p, a: [read for read, _ in steps(p, a)],
        lambda p, a: dict((x, read) for read, x in steps(p, a)),
        lambda p, a: [(torch.tensor(read).float().tolist(), float(x)) for read, x in steps(p, a)],
        lambda p, a: [([x for x in read if x], token) for read, token in steps(p, a)],
        lambda p, a: ([read for read, _ in steps(p, a)], a),
        steps_of_one_list,
        steps_that_extend_the_prompt,
        steps_that_extend_and_restore,
        steps_by_dict,
        lambda p, a: [(p + a[:i], a[i]) for i in range(len(a)) if i == 0 or a[i] != a[i - 1]],
    ],
    "3.2": [
        lambda turns, last_only: label(turns, False),
        lambda turns, last_only: label(turns, True),
        lambda turns, last_only: label(turns, not last_only),
        labelled(last=lambda turns, answers: [len(turns) - 1]),
        labelled(last=lambda turns, answers: answers[:1]),
        labelled(last=lambda turns, answers: answers[-2:]),
        labelled(last=lambda turns, answers: []),
        labelled(role="user"),
        labelled(fill=0),
        labelled(fill=-1),
        labelled(header_graded=True),
        relabelled(lambda ids, labels: (ids, [*labels[1:], PAD])),
        relabelled(lambda ids, labels: (ids, [PAD, *labels[:-1]])),
        relabelled(lambda ids, labels: (ids, ids)),
        relabelled(lambda ids, labels: (labels, ids)),
        relabelled(lambda ids, labels: (torch.tensor(ids), torch.tensor(labels))),
        relabelled(lambda ids, labels: ([float(i) for i in ids], [float(x) for x in labels])),
        relabelled(lambda ids, labels: (ids, [x or PAD for x in labels])),
        relabelled(lambda ids, labels: (ids, [x for x in labels if x != PAD])),
        relabelled(lambda ids, labels: (ids, [int(x != PAD) for x in labels])),
        relabelled(lambda ids, labels: ids),
        relabelled(lambda ids, labels: (ids, labels, [1] * len(ids))),
        relabelled(lambda ids, labels: ([ids], [labels])),
        relabelled(
            lambda ids, labels: (
                ids,
                [
                    PAD if x != PAD and (i + 1 == len(labels) or labels[i + 1] == PAD) else x
                    for i, x in enumerate(labels)
                ],
            )
        ),
        labelled(last=lambda turns, answers: [a for a in answers if turns[a:] == turns[a:][:1]]),
        lambda turns, last_only: label(
            [
                ("assistant" if i % 2 else "user", header, content)
                for i, (_, header, content) in enumerate(turns)
            ],
            last_only,
        ),
        label_by_equality,
        label_by_index,
        label_by_id,
        label_in_place,
        label_pops,
        label_cuts_after_the_answer,
        lambda turns, last_only: label(
            [(role, [], content) for role, _, content in turns], last_only
        ),
        label_by_the_first_header,
        lambda turns, last_only: label_by_header_length(turns, last_only, lambda header: 3),
        labelled(last=lambda turns, answers: [a for a in answers if a >= len(turns) - 2]),
        labelled(last=lambda turns, answers: [len(turns) - 1 - (turns[-1][0] != "assistant")]),
    ],
    "3.3": [
        loss_of_row_means,
        loss_over_the_labels_before_the_shift,
        loss_in_place,
        loss_unshifted,
        loss_shifted_back,
        loss_shifted_twice,
        loss_of_the_first_row,
        loss_shifted_in_the_flat,
        loss_ignoring_zero,
        lambda x, y: F.cross_entropy(
            x[:, :-1].flatten(0, 1), y[:, 1:].flatten().clamp(min=0), ignore_index=0
        ),
        lambda x, y: F.cross_entropy(x[:, :-1].flatten(0, 1), y[:, 1:].flatten().clamp(min=0)),
        lambda x, y: unmasked(x, y)[0].mean(),
        lambda x, y: (unmasked(x, y)[0] * unmasked(x, y)[1]).mean(),
        lambda x, y: token_losses(x, y).sum(),
        lambda x, y: token_losses(x, y).sum() / len(x),
        lambda x, y: -token_losses(x, y).mean(),
        lambda x, y: token_losses(x, y).median(),
        lambda x, y: token_losses(x, y).mean() / math.log(2),
        lambda x, y: token_losses(x, y).mean().item(),
        lambda x, y: token_losses(x, y).mean()[None],
        lambda x, y: token_losses(x, y),
        lambda x, y: token_losses(x, y).mean().exp(),
        lambda x, y: -token_losses(x, y).neg().exp().mean().log(),
        lambda x, y: token_losses(x, y).sum() / y.ne(0).logical_and(y.ne(PAD)).sum(),
        lambda x, y: F.cross_entropy(
            x[:, :-1].flatten(0, 1).softmax(-1), y[:, 1:].flatten(), ignore_index=PAD
        ),
        lambda x, y: token_losses(x[:, :5], y[:, :5]).mean(),
        loss_from_the_first_graded_on,
        lambda x, y: (
            -x[:, :-1]
            .softmax(-1)
            .log()
            .gather(-1, y[:, 1:].clamp(min=0)[..., None])[..., 0][y[:, 1:] != PAD]
            .mean()
        ),
        lambda x, y: token_losses(x, y).clamp(max=-math.log(1e-9)).mean(),
        lambda x, y: token_losses(x.clamp(-100, 100), y).mean(),
        lambda x, y: -(token_losses(x, y).neg().exp() + 1e-12).log().mean(),
    ],
    "3.4": [
        collate_on_the_left,
        collate_masks_by_id,
        collate_labels_by_id,
        collate_labels_from_the_ids,
        collate_in_place,
        collate_strips_trailing_pads,
        collate_masks_the_ungraded,
        lambda rows, p: collate(rows, p, label_fill=p),
        lambda rows, p: collate(rows, p, label_fill=0),
        lambda rows, p: collate(rows, p, fill=0),
        lambda rows, p: collate(rows, p, fill=PAD),
        lambda rows, p: collate(rows, p, width=lambda lengths: max(lengths) + 1),
        lambda rows, p: collate(rows, p, width=lambda lengths: 512),
        lambda rows, p: collate(rows, p, width=lambda lengths: lengths[0]),
        lambda rows, p: collate(sorted(rows, key=lambda row: len(row[0])), p),
        lambda rows, p: collate([(i[:3], x[:3]) for i, x in rows], p),
        collated(lambda ids, labels, mask: (ids, labels, torch.ones_like(mask))),
        collated(lambda ids, labels, mask: (ids, labels, 1 - mask)),
        collated(lambda ids, labels, mask: (ids, mask, labels)),
        collated(lambda ids, labels, mask: (labels, ids, mask)),
        collated(lambda ids, labels, mask: (ids, labels)),
        collated(lambda ids, labels, mask: (ids.tolist(), labels.tolist(), mask.tolist())),
        collated(lambda ids, labels, mask: (ids.float(), labels, mask)),
        collated(lambda ids, labels, mask: (ids, labels.float(), mask)),
        collated(lambda ids, labels, mask: (ids, labels, mask.float())),
        collated(lambda ids, labels, mask: (ids, labels.roll(-1, dims=1), mask)),
        collated(lambda ids, labels, mask: (ids, labels.masked_fill(labels == 0, PAD), mask)),
        collated(lambda ids, labels, mask: torch.stack([ids, labels, mask])),
        collated(lambda ids, labels, mask: {"input_ids": ids, "labels": labels, "mask": mask}),
        collated(lambda ids, labels, mask: (ids.T, labels.T, mask.T)),
        collated(lambda ids, labels, mask: (ids.numpy(), labels.numpy(), mask.numpy())),
    ],
    "3.5": [
        pack_in_place,
        pack_masks_the_last_label,
        pack_masks_only_the_first_example,
        pack_masks_all_but_the_last_example,
        pack_with_a_separator,
        pack_padded,
        pack_with_a_position_for_each_example,
        pack_positions_of_equal_lengths,
        pack_shifts_the_labels,
        lambda rows: pack(rows, first=None),
        lambda rows: pack(rows, start=1),
        lambda rows: pack(rows[::-1]),
        lambda rows: pack(sorted(rows, key=lambda row: len(row[0]))),
        lambda rows: pack(rows[:-1]),
        lambda rows: pack(rows[:2]),
        packed(lambda ids, labels, pos: (ids, labels, torch.arange(ids.shape[1])[None])),
        packed(lambda ids, labels, pos: (ids, labels, torch.zeros_like(pos))),
        packed(lambda ids, labels, pos: (ids[0], labels[0], pos[0])),
        packed(lambda ids, labels, pos: (ids.tolist(), labels.tolist(), pos.tolist())),
        packed(lambda ids, labels, pos: (ids, labels, pos.float())),
        packed(lambda ids, labels, pos: (ids.float(), labels, pos)),
        packed(lambda ids, labels, pos: (ids, labels.float(), pos)),
        packed(lambda ids, labels, pos: (ids, pos, labels)),
        packed(lambda ids, labels, pos: (ids, labels)),
        packed(lambda ids, labels, pos: (ids, labels.masked_fill(labels == 0, PAD), pos)),
        packed(lambda ids, labels, pos: (ids, ids, pos)),
        packed(lambda ids, labels, pos: (ids, labels, torch.ones_like(pos))),
        packed(lambda ids, labels, pos: (ids, labels, pos.flip(1))),
    ],
    "3.6": [
        lambda ids, labels: list(labels),
        lambda ids, labels: list(ids),
        lambda ids, labels: [-100] * len(ids),
        lambda ids, labels: [ids[0]] + [-100] * (len(ids) - 1),
        lambda ids, labels: [-100, *ids[1:]],
        lambda ids, labels: [i if y == -100 else -100 for i, y in zip(ids, labels, strict=True)],
        lambda ids, labels: labels[1:] + [-100],
        lambda ids, labels: [-100] + labels[:-1],
        lambda ids, labels: [ids[1]] * len(ids),
        lambda ids, labels: [-100, ids[1]],
        lambda ids, labels: [0, ids[1], *[0] * (len(ids) - 2)],
        lambda ids, labels: [None, ids[1], *[None] * (len(ids) - 2)],
        lambda ids, labels: [-100.0, float(ids[1]), *[-100.0] * (len(ids) - 2)],
        mislead_in_place,
    ],
}
