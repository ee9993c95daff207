"""Right answers to the exercises of chapter 17, each in another style; written from the statements
alone."""

import itertools
import statistics

import numpy as np
import torch
import torch.nn.functional as F


# 17.1
def _sample_by_sample(logits, samples, rewards, baseline):
    p = logits.softmax(0)
    total = torch.zeros_like(logits)
    for sample, reward in zip(samples.tolist(), rewards.tolist(), strict=True):
        score = -p
        score[sample] += 1
        total += (reward - baseline) * score
    return total / len(samples)


def _one_hot(logits, samples, rewards, baseline):
    scores = F.one_hot(samples, len(logits)) - torch.softmax(logits, dim=-1)
    return ((rewards - baseline)[:, None] * scores).mean(0)


def _rows_of_the_identity(logits, samples, rewards, baseline):
    scores = torch.eye(logits.numel(), dtype=logits.dtype) - logits.softmax(0)
    return (rewards - baseline) @ scores[samples] / samples.numel()


def _gains_by_answer(logits, samples, rewards, baseline):
    gains = rewards - baseline
    gained = torch.zeros_like(logits).index_add_(0, samples, gains.to(logits.dtype))
    return (gained - gains.sum() * logits.softmax(0)) / len(gains)


def _gradient_in_numpy(logits, samples, rewards, baseline):
    x = logits.detach().numpy().astype(np.float64)
    p = np.exp(x - x.max())
    p /= p.sum()
    gains = rewards.numpy().astype(np.float64) - baseline
    scores = (samples.numpy()[:, None] == np.arange(len(x))) - p
    return torch.from_numpy(np.einsum("k,kv->v", gains, scores) / len(gains)).to(logits.dtype)


def _answer_by_answer(logits, samples, rewards, baseline):
    p = (logits - logits.logsumexp(0)).exp()
    return torch.stack(
        [((rewards - baseline) * ((samples == v).to(p.dtype) - p[v])).mean() for v in range(len(p))]
    )


# 17.2
def _group_by_group(rewards):
    rows, equal = [], 0
    for group in rewards:
        if (group == group[0]).all():
            rows.append(torch.zeros_like(group))
            equal += 1
        else:
            rows.append((group - group.mean()) / (group.std() + 1e-4))
    return torch.stack(rows), equal / len(rewards)


def _all_at_once(rewards):
    equal = rewards.amax(1) == rewards.amin(1)
    centred = rewards - rewards.mean(1, keepdim=True)
    advantages = centred / (rewards.std(1, correction=1, keepdim=True) + 1e-4)
    return advantages.masked_fill(equal[:, None], 0.0), equal.float().mean().item()


def _groups_in_numpy(rewards):
    r = rewards.numpy().astype(np.float64)
    equal = np.ptp(r, axis=1) == 0
    centred = r - r.mean(1, keepdims=True)
    advantages = np.where(equal[:, None], 0, centred / (r.std(1, ddof=1, keepdims=True) + 1e-4))
    return torch.from_numpy(advantages).to(rewards.dtype), np.mean(equal)


def _by_statistics(rewards):
    found = []
    for group in rewards.tolist():
        if len(set(group)) == 1:
            found.append([0.0] * len(group))
            continue
        mean, spread = statistics.fmean(group), statistics.stdev(group)
        found.append([(r - mean) / (spread + 1e-4) for r in group])
    share = sum(len(set(group)) == 1 for group in rewards.tolist()) / len(rewards)
    return torch.tensor(found, dtype=rewards.dtype), share


def _variance_by_hand(rewards):
    wide = rewards.double()
    count = wide.shape[1]
    centred = wide - wide.sum(1, keepdim=True) / count
    spread = ((centred**2).sum(1, keepdim=True) / (count - 1)) ** 0.5
    flat = (rewards == rewards[:, :1]).all(1, keepdim=True)
    advantages = torch.where(flat, torch.zeros_like(centred), centred / (spread + 1e-4))
    return advantages.to(rewards.dtype), float(flat.sum()) / flat.numel()


def _from_the_first_answer(rewards):
    """A shift of the group changes nothing, and equal rewards become exact zeros."""
    shifted = rewards - rewards[:, :1]
    spread, mean = torch.std_mean(shifted, dim=1, keepdim=True)
    return (shifted - mean) / (spread + 1e-4), (shifted == 0).all(1).double().mean().item()


# 17.3
def _smaller_of_two(log_probs, old_log_probs, advantages, clip):
    ratio = (log_probs - old_log_probs).exp()
    free, kept = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    return -torch.minimum(free, kept).mean(), (kept < free).float().mean().item()


def _token_by_token(log_probs, old_log_probs, advantages, clip):
    losses, cut = [], 0
    for new, old, advantage in zip(log_probs, old_log_probs, advantages, strict=True):
        ratio = torch.exp(new - old)
        if advantage > 0 and ratio > 1 + clip:
            losses.append(-(1 + clip) * advantage)
            cut += 1
        elif advantage < 0 and ratio < 1 - clip:
            losses.append(-(1 - clip) * advantage)
            cut += 1
        else:
            losses.append(-ratio * advantage)
    loss = sum(losses) / len(losses)
    return loss + 0 * log_probs.sum(), cut / len(losses)


def _borders_by_sign(log_probs, old_log_probs, advantages, clip):
    ratio = torch.exp(log_probs - old_log_probs)
    above = (advantages > 0) & (ratio > 1 + clip)
    below = (advantages < 0) & (ratio < 1 - clip)
    ratio = ratio.masked_fill(above, 1 + clip).masked_fill(below, 1 - clip)
    return -(ratio * advantages).mean(), float((above | below).sum()) / len(ratio)


def _larger_loss(log_probs, old_log_probs, advantages, clip):
    ratio = log_probs.exp() / old_log_probs.exp()
    losses = torch.stack([-advantages * ratio, -advantages * ratio.clip(1 - clip, 1 + clip)])
    cut = (losses[1] > losses[0]).tolist()
    return torch.max(losses[0], losses[1]).mean(), sum(cut) / len(cut)


def _halves(log_probs, old_log_probs, advantages, clip):
    """ratio · A has an upper border for A > 0, a lower one for A < 0."""
    ratio = torch.exp(log_probs - old_log_probs)
    gain = F.relu(advantages) * torch.clamp(ratio, max=1 + clip)
    gain = gain - F.relu(-advantages) * torch.clamp(ratio, min=1 - clip)
    cut = [
        (a > 0 and r > 1 + clip) or (a < 0 and r < 1 - clip)
        for a, r in zip(advantages.tolist(), ratio.tolist(), strict=True)
    ]
    return gain.mean().neg(), statistics.fmean(cut)


def _dot_product(log_probs, old_log_probs, advantages, clip):
    ratio = (log_probs - old_log_probs).exp()
    kept = torch.where(ratio > 1 + clip, 1 + clip, torch.where(ratio < 1 - clip, 1 - clip, ratio))
    moved = torch.where(ratio * advantages > kept * advantages, kept, ratio)
    share = np.mean((torch.sign(advantages) * (ratio - kept)).detach().numpy() > 0)
    return -(moved @ advantages) / advantages.numel(), share


# 17.4
def _plain(log_probs, reference_log_probs):
    difference = log_probs - reference_log_probs
    return difference + torch.exp(-difference) - 1


def _as_in_trl(log_probs, reference_log_probs):
    return torch.exp(reference_log_probs - log_probs) - (reference_log_probs - log_probs) - 1


def _expm1(log_probs, reference_log_probs):
    d = reference_log_probs - log_probs
    return torch.expm1(d) - d


def _from_probabilities(log_probs, reference_log_probs):
    ratio = reference_log_probs.exp() / log_probs.exp()
    return ratio - 1 - ratio.log()


def _in_double(log_probs, reference_log_probs):
    d = (reference_log_probs.double() - log_probs.double()).numpy(force=True)
    return torch.as_tensor(np.expm1(d) - d).to(log_probs.dtype).clamp(min=0)


def _pair_by_pair(log_probs, reference_log_probs):
    found = torch.empty_like(log_probs)
    for place in itertools.product(*map(range, log_probs.shape)):
        k1 = log_probs[place] - reference_log_probs[place]
        found[place] = k1 + (1 / k1.exp() - 1)
    return found


# 17.5
def _from_the_end(rewards, values, mask, gamma, decay):
    there = mask > 0
    r = torch.where(there, rewards, 0.0)
    v = torch.where(there, values, 0.0)
    advantages = torch.zeros_like(v)
    after = carried = torch.zeros_like(v[:, 0])
    for t in reversed(range(v.shape[1])):
        carried = r[:, t] + gamma * after - v[:, t] + gamma * decay * carried
        advantages[:, t] = carried
        after = v[:, t]
    return advantages, advantages + v


def _columns(rewards, values, mask, gamma, decay):
    rewards, values = (x.masked_fill(mask == 0, 0) for x in (rewards, values))
    after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    surprise = rewards + gamma * after - values
    columns, last = [], 0.0
    for column in surprise.unbind(1)[::-1]:
        last = column + gamma * decay * last
        columns.insert(0, last)
    advantages = torch.stack(columns, 1)
    return advantages, advantages + values


def _by_answer(rewards, values, mask, gamma, decay):
    advantages, returns = torch.zeros_like(values), torch.zeros_like(values)
    for n, length in enumerate(mask.sum(1).int().tolist()):
        v = [*values[n, :length].tolist(), 0.0]
        carried = 0.0
        for t in range(length - 1, -1, -1):
            surprise = rewards[n, t].item() + gamma * v[t + 1] - v[t]
            carried = surprise + gamma * decay * carried
            advantages[n, t], returns[n, t] = carried, carried + v[t]
    return advantages, returns


def _flipped_numpy(rewards, values, mask, gamma, decay):
    there = mask.numpy() == 1
    r = np.where(there, rewards.numpy(), 0).astype(np.float64).T
    v = np.where(there, values.numpy(), 0).astype(np.float64).T
    out = np.zeros((len(r) + 1, r.shape[1]))
    v = np.concatenate([v, np.zeros_like(v[:1])])
    for t in np.arange(len(r))[::-1]:
        out[t] = r[t] - v[t] + gamma * (v[t + 1] + decay * out[t + 1])
    advantages = torch.from_numpy(out[:-1].T.copy()).to(values.dtype)
    return advantages, torch.from_numpy((out + v)[:-1].T.copy()).to(values.dtype)


def _returns_first(rewards, values, mask, gamma, decay):
    """The λ-return: G = r + γ ((1 − λ) V' + λ G')."""
    there = mask.bool()
    returns = torch.zeros_like(values)
    after, later = values.new_zeros(len(values)), values.new_zeros(len(values))
    for t in range(values.shape[1] - 1, -1, -1):
        now = rewards[:, t] + gamma * ((1 - decay) * after + decay * later)
        later = torch.where(there[:, t], now, 0.0)
        after = torch.where(there[:, t], values[:, t], 0.0)
        returns[:, t] = later
    return torch.where(there, returns - values, 0.0), returns


def _ends_known(rewards, values, mask, gamma, decay):
    there = mask.bool()
    advantages = torch.zeros_like(values)
    carried = torch.zeros(len(values), dtype=values.dtype)
    for t in range(values.shape[1])[::-1]:
        surprise = rewards[:, t] - values[:, t]
        if t + 1 < values.shape[1]:
            goes_on = there[:, t + 1]
            more = gamma * values[:, t + 1] + gamma * decay * carried
            surprise = surprise + torch.where(goes_on, more, torch.zeros_like(more))
        carried = torch.where(there[:, t], surprise, torch.zeros_like(surprise))
        advantages[:, t] = carried
    returns = torch.where(there, advantages + values, torch.zeros_like(values))
    return advantages, returns


# 17.6
def _by_first_and_last(log):
    first, last = log[0], log[-1]
    if first["no_spread"] == 1:
        return "solved" if first["reward"] == 1 else "cold start"
    if first["ratio"] > 0.1:
        return "wrong old log-probs"
    if first["grad_norm"] == 0:
        return "no gradient"
    return "healthy" if last["reward"] > first["reward"] else "wrong sign"


def _over_all_steps(log):
    rewards = [row["reward"] for row in log]
    if all(reward == 0 for reward in rewards):
        return "cold start"
    if all(reward == 1 for reward in rewards):
        return "solved"
    if max(row["ratio"] for row in log) > 1e-3:
        return "wrong old log-probs"
    if max(row["grad_norm"] for row in log) < 1e-12:
        return "no gradient"
    half = len(log) // 2
    return "healthy" if sum(rewards[-half:]) > sum(rewards[:half]) else "wrong sign"


def _by_slope(log):
    table = {key: np.array([row[key] for row in log]) for key in log[0]}
    slope = np.polyfit(np.arange(len(log)), table["reward"], 1)[0]
    tests = {
        "cold start": not table["reward"].any(),
        "solved": (table["reward"] >= 1).all(),
        "wrong old log-probs": (table["ratio"] > 0.05).any(),
        "no gradient": not table["grad_norm"].any(),
        "wrong sign": slope < 0,
        "healthy": True,
    }
    return next(name for name, holds in tests.items() if holds)


def _by_match(log):
    row = log[0]
    match (row["no_spread"] > 0.99, row["ratio"] > 0.01, row["grad_norm"] > 1e-9):
        case (True, _, _):
            return "cold start" if row["reward"] < 0.5 else "solved"
        case (_, True, _):
            return "wrong old log-probs"
        case (_, _, False):
            return "no gradient"
    gained = log[-1]["reward"] - row["reward"]
    return ("wrong sign", "healthy")[gained > 0]


def _ratio_first(log):
    """The fault of the ratio does not depend on what is earned."""
    if any(row["ratio"] > 1e-5 for row in log):
        return "wrong old log-probs"
    if {row["reward"] for row in log} == {0.0}:
        return "cold start"
    if {row["reward"] for row in log} == {1.0}:
        return "solved"
    if not any(row["grad_norm"] for row in log):
        return "no gradient"
    quarter = max(1, len(log) // 4)
    begin = statistics.fmean(row["reward"] for row in log[:quarter])
    end = statistics.fmean(row["reward"] for row in log[-quarter:])
    return "healthy" if end >= begin else "wrong sign"


RIGHT_ANSWERS = {
    "17.1": [
        _sample_by_sample,
        _one_hot,
        _rows_of_the_identity,
        _gains_by_answer,
        _gradient_in_numpy,
        _answer_by_answer,
    ],
    "17.2": [
        _group_by_group,
        _all_at_once,
        _groups_in_numpy,
        _by_statistics,
        _variance_by_hand,
        _from_the_first_answer,
    ],
    "17.3": [
        _smaller_of_two,
        _token_by_token,
        _borders_by_sign,
        _larger_loss,
        _halves,
        _dot_product,
    ],
    "17.4": [_plain, _as_in_trl, _expm1, _from_probabilities, _in_double, _pair_by_pair],
    "17.5": [
        _from_the_end,
        _columns,
        _by_answer,
        _flipped_numpy,
        _returns_first,
        _ends_known,
    ],
    "17.6": [_by_first_and_last, _over_all_steps, _by_slope, _by_match, _ratio_first],
}
