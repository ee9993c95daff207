"""Wrong answers to the exercises of chapter 17, written from the statements alone."""

import math

import torch
import torch.nn.functional as F


# 17.1
def _scores(logits, samples):
    return F.one_hot(samples, len(logits)) - logits.softmax(0)


def _baseline_left_out(logits, samples, rewards, baseline):
    return (rewards[:, None] * _scores(logits, samples)).mean(0)


def _baseline_added(logits, samples, rewards, baseline):
    return ((rewards + baseline)[:, None] * _scores(logits, samples)).mean(0)


def _own_baseline(logits, samples, rewards, baseline):
    return ((rewards - rewards.mean())[:, None] * _scores(logits, samples)).mean(0)


def _summed(logits, samples, rewards, baseline):
    return (rewards - baseline) @ _scores(logits, samples)


def _mean_over_answers(logits, samples, rewards, baseline):
    return (rewards - baseline) @ _scores(logits, samples) / len(logits)


def _a_row_each(logits, samples, rewards, baseline):
    return (rewards - baseline)[:, None] * _scores(logits, samples)


def _downhill(logits, samples, rewards, baseline):
    return -((rewards - baseline)[:, None] * _scores(logits, samples)).mean(0)


def _only_the_drawn(logits, samples, rewards, baseline):
    """∇ log π without the softmax."""
    return ((rewards - baseline)[:, None] * F.one_hot(samples, len(logits))).mean(0)


def _by_the_probability(logits, samples, rewards, baseline):
    """∇ π instead of ∇ log π."""
    p = logits.softmax(0)
    return ((rewards - baseline)[:, None] * p[samples, None] * _scores(logits, samples)).mean(0)


def _over_the_probability(logits, samples, rewards, baseline):
    """The gradient of log π by the probabilities, not by the logits."""
    p = logits.softmax(0)
    gains = (rewards - baseline) / p[samples]
    return torch.zeros_like(logits).index_add(0, samples, gains) / len(samples)


def _last_one_counts(logits, samples, rewards, baseline):
    """An answer drawn twice is overwritten."""
    gained = torch.zeros_like(logits)
    gained[samples] = rewards - baseline
    return (gained - (rewards - baseline).sum() * logits.softmax(0)) / len(samples)


def _adds_once(logits, samples, rewards, baseline):
    gained = torch.zeros_like(logits)
    gained[samples] += rewards - baseline
    return gained / len(samples) - (rewards - baseline).mean() * logits.softmax(0)


def _kept_only(logits, samples, rewards, baseline):
    """The mean over the answers that earned something."""
    kept = rewards != 0
    scores = (rewards - baseline)[kept, None] * _scores(logits, samples)[kept]
    return scores.sum(0) / max(1, int(kept.sum()))


def _kept_gains(logits, samples, rewards, baseline):
    """Negative gains are thrown away."""
    return (F.relu(rewards - baseline)[:, None] * _scores(logits, samples)).mean(0)


def _baseline_per_score(logits, samples, rewards, baseline):
    return (rewards[:, None] * _scores(logits, samples) - baseline).mean(0)


def _rewards_in_place(logits, samples, rewards, baseline):
    rewards -= baseline
    return (rewards[:, None] * _scores(logits, samples)).mean(0)


def _logits_as_probabilities(logits, samples, rewards, baseline):
    scores = F.one_hot(samples, len(logits)) - logits / logits.sum()
    return ((rewards - baseline)[:, None] * scores).mean(0)


def _by_autograd(logits, samples, rewards, baseline):
    """The statement asks for ∇ log π by hand."""
    free = logits.detach().clone().requires_grad_()
    gain = ((rewards - baseline) * free.log_softmax(0)[samples]).mean()
    return torch.autograd.grad(gain, free)[0]


# 17.2
def _equal(rewards):
    return rewards.amax(1) == rewards.amin(1)


def _advantages(rewards, spread):
    centred = rewards - rewards.mean(1, keepdim=True)
    return (centred / spread).masked_fill(_equal(rewards)[:, None], 0.0)


def _good(rewards):
    return _advantages(rewards, rewards.std(1, keepdim=True) + 1e-4)


def _share(rewards):
    return _equal(rewards).float().mean().item()


def _below_K(rewards):
    return _advantages(rewards, rewards.std(1, keepdim=True, correction=0) + 1e-4), _share(rewards)


def _inside_the_root(rewards):
    return _advantages(rewards, (rewards.var(1, keepdim=True) + 1e-4).sqrt()), _share(rewards)


def _by_the_variance(rewards):
    return _advantages(rewards, rewards.var(1, keepdim=True) + 1e-4), _share(rewards)


def _without_the_small_number(rewards):
    return _advantages(rewards, rewards.std(1, keepdim=True)), _share(rewards)


def _at_least_the_small_number(rewards):
    return _advantages(rewards, rewards.std(1, keepdim=True).clamp(min=1e-4)), _share(rewards)


def _smaller_number(rewards):
    return _advantages(rewards, rewards.std(1, keepdim=True) + 1e-8), _share(rewards)


def _no_division(rewards):
    return _advantages(rewards, 1.0), _share(rewards)


def _spread_of_all(rewards):
    return _advantages(rewards, rewards.std() + 1e-4), _share(rewards)


def _mean_of_all(rewards):
    advantages = (rewards - rewards.mean()) / (rewards.std(1, keepdim=True) + 1e-4)
    return advantages.masked_fill(_equal(rewards)[:, None], 0.0), _share(rewards)


def _over_questions(rewards):
    advantages = (rewards - rewards.mean(0)) / (rewards.std(0) + 1e-4)
    return advantages, (rewards.amax(0) == rewards.amin(0)).float().mean().item()


def _no_spread_counted(rewards):
    return _good(rewards), int(_equal(rewards).sum())


def _share_as_a_tensor(rewards):
    return _good(rewards), _equal(rewards).float().mean()


def _share_with_a_spread(rewards):
    return _good(rewards), 1 - _share(rewards)


def _share_of_solved(rewards):
    return _good(rewards), (rewards == 1).all(1).float().mean().item()


def _share_of_zeros_and_ones(rewards):
    equal = (rewards == 1).all(1) | (rewards == 0).all(1)
    return _good(rewards), equal.float().mean().item()


def _share_by_a_threshold(rewards):
    return _good(rewards), (rewards.std(1) < 1e-2).float().mean().item()


def _first_and_last_equal(rewards):
    return _good(rewards), (rewards[:, 0] == rewards[:, -1]).float().mean().item()


def _share_of_zero_advantages(rewards):
    """Counts answers, not groups."""
    return _good(rewards), (_good(rewards) == 0).float().mean().item()


def _sum_is_zero(rewards):
    return _good(rewards), (rewards.sum(1) == 0).float().mean().item()


def _equal_to_the_mean(rewards):
    """A mean of equal rewards is rounded: three times 0.1, by 3."""
    centred = rewards - rewards.mean(1, keepdim=True)
    return _good(rewards), (centred == 0).all(1).float().mean().item()


def _equal_groups_left_out(rewards):
    return _good(rewards)[~_equal(rewards)], _share(rewards)


def _groups_in_place(rewards):
    share, spread = _share(rewards), rewards.std(1, keepdim=True) + 1e-4
    rewards -= rewards.mean(1, keepdim=True)
    return rewards / spread, share


def _nan_for_equal_groups(rewards):
    advantages = _good(rewards)
    advantages[_equal(rewards)] = math.nan
    return advantages, _share(rewards)


def _advantages_alone(rewards):
    return _good(rewards)


# 17.3
def _parts(log_probs, old_log_probs, advantages, clip):
    ratio = (log_probs - old_log_probs).exp()
    kept = ratio.clamp(1 - clip, 1 + clip)
    cut = (kept * advantages < ratio * advantages).float().mean().item()
    return ratio, kept, cut


def _larger_of_two(log_probs, old_log_probs, advantages, clip):
    ratio, kept, cut = _parts(log_probs, old_log_probs, advantages, clip)
    return -torch.maximum(ratio * advantages, kept * advantages).mean(), cut


def _always_clipped(log_probs, old_log_probs, advantages, clip):
    _, kept, cut = _parts(log_probs, old_log_probs, advantages, clip)
    return -(kept * advantages).mean(), cut


def _never_clipped(log_probs, old_log_probs, advantages, clip):
    ratio, _, cut = _parts(log_probs, old_log_probs, advantages, clip)
    return -(ratio * advantages).mean(), cut


def _gain_not_loss(log_probs, old_log_probs, advantages, clip):
    ratio, kept, cut = _parts(log_probs, old_log_probs, advantages, clip)
    return torch.minimum(ratio * advantages, kept * advantages).mean(), cut


def _sum_of_tokens(log_probs, old_log_probs, advantages, clip):
    ratio, kept, cut = _parts(log_probs, old_log_probs, advantages, clip)
    return -torch.minimum(ratio * advantages, kept * advantages).sum(), cut


def _smaller_ratio(log_probs, old_log_probs, advantages, clip):
    """The smaller ratio, and A afterwards."""
    ratio, kept, cut = _parts(log_probs, old_log_probs, advantages, clip)
    return -(torch.minimum(ratio, kept) * advantages).mean(), cut


def _upside_down(log_probs, old_log_probs, advantages, clip):
    ratio, kept, cut = _parts(old_log_probs, log_probs, advantages, clip)
    return -torch.minimum(ratio * advantages, kept * advantages).mean(), cut


def _log_ratio(log_probs, old_log_probs, advantages, clip):
    ratio = log_probs - old_log_probs
    kept = ratio.clamp(1 - clip, 1 + clip)
    cut = (kept * advantages < ratio * advantages).float().mean().item()
    return -torch.minimum(ratio * advantages, kept * advantages).mean(), cut


def _log_ratio_clipped(log_probs, old_log_probs, advantages, clip):
    """clip … on the logarithm: exp(± clip)."""
    far = log_probs - old_log_probs
    ratio, kept = far.exp(), far.clamp(-clip, clip).exp()
    cut = (kept * advantages < ratio * advantages).float().mean().item()
    return -torch.minimum(ratio * advantages, kept * advantages).mean(), cut


def _one_over(log_probs, old_log_probs, advantages, clip):
    """The lower border 1 / (1 + clip)."""
    ratio = (log_probs - old_log_probs).exp()
    kept = ratio.clamp(1 / (1 + clip), 1 + clip)
    cut = (kept * advantages < ratio * advantages).float().mean().item()
    return -torch.minimum(ratio * advantages, kept * advantages).mean(), cut


def _fixed_clip(log_probs, old_log_probs, advantages, clip):
    ratio, kept, cut = _parts(log_probs, old_log_probs, advantages, 0.2)
    return -torch.minimum(ratio * advantages, kept * advantages).mean(), cut


def _loss(log_probs, old_log_probs, advantages, clip):
    ratio, kept, _ = _parts(log_probs, old_log_probs, advantages, clip)
    return ratio, kept, -torch.minimum(ratio * advantages, kept * advantages).mean()


def _outside_the_borders(log_probs, old_log_probs, advantages, clip):
    """The share ignores A."""
    ratio, kept, loss = _loss(log_probs, old_log_probs, advantages, clip)
    return loss, (ratio != kept).float().mean().item()


def _outside_where_A_counts(log_probs, old_log_probs, advantages, clip):
    ratio, kept, loss = _loss(log_probs, old_log_probs, advantages, clip)
    return loss, ((ratio != kept) & (advantages != 0)).float().mean().item()


def _zero_counts_as_cut(log_probs, old_log_probs, advantages, clip):
    ratio, kept, loss = _loss(log_probs, old_log_probs, advantages, clip)
    cut = ((ratio > 1 + clip) & (advantages >= 0)) | ((ratio < 1 - clip) & (advantages <= 0))
    return loss, cut.float().mean().item()


def _cut_above_only(log_probs, old_log_probs, advantages, clip):
    ratio, kept, loss = _loss(log_probs, old_log_probs, advantages, clip)
    return loss, ((ratio > 1 + clip) & (advantages > 0)).float().mean().item()


def _not_cut(log_probs, old_log_probs, advantages, clip):
    loss = _loss(log_probs, old_log_probs, advantages, clip)[2]
    return loss, 1 - _parts(log_probs, old_log_probs, advantages, clip)[2]


def _share_of_what_counts(log_probs, old_log_probs, advantages, clip):
    """Tokens with A = 0 are left out of the denominator."""
    ratio, kept, loss = _loss(log_probs, old_log_probs, advantages, clip)
    cut = kept * advantages < ratio * advantages
    return loss, int(cut.sum()) / max(1, int((advantages != 0).sum()))


def _share_tensor(log_probs, old_log_probs, advantages, clip):
    ratio, kept, loss = _loss(log_probs, old_log_probs, advantages, clip)
    return loss, (kept * advantages < ratio * advantages).float().mean()


def _a_count(log_probs, old_log_probs, advantages, clip):
    ratio, kept, loss = _loss(log_probs, old_log_probs, advantages, clip)
    return loss, int((kept * advantages < ratio * advantages).sum())


def _without_gradient(log_probs, old_log_probs, advantages, clip):
    _, _, cut = _parts(log_probs, old_log_probs, advantages, clip)
    return _loss(log_probs.detach(), old_log_probs, advantages, clip)[2], cut


def _loss_as_a_float(log_probs, old_log_probs, advantages, clip):
    _, _, cut = _parts(log_probs, old_log_probs, advantages, clip)
    return _loss(log_probs, old_log_probs, advantages, clip)[2].item(), cut


def _straight_through(log_probs, old_log_probs, advantages, clip):
    """The cut tokens keep a gradient."""
    ratio, kept, cut = _parts(log_probs, old_log_probs, advantages, clip)
    kept = ratio + (kept - ratio).detach()
    gain = torch.where(kept * advantages < ratio * advantages, kept, ratio) * advantages
    return -gain.mean(), cut


def _gradient_of_log_probs(log_probs, old_log_probs, advantages, clip):
    """The value is right; the gradient lacks the ratio."""
    ratio, kept, loss = _loss(log_probs, old_log_probs, advantages, clip)
    cut = kept * advantages < ratio * advantages
    way = -(torch.where(cut, 0.0, advantages) * log_probs).mean()
    return loss.detach() + way - way.detach(), cut.float().mean().item()


def _one_a_token(log_probs, old_log_probs, advantages, clip):
    ratio, kept, cut = _parts(log_probs, old_log_probs, advantages, clip)
    return -torch.minimum(ratio * advantages, kept * advantages), cut


def _mean_of_the_free(log_probs, old_log_probs, advantages, clip):
    ratio, kept, share = _parts(log_probs, old_log_probs, advantages, clip)
    free = ~(kept * advantages < ratio * advantages)
    return -(ratio * advantages)[free].sum() / free.sum().clamp(min=1), share


# 17.4
def _k1(log_probs, reference_log_probs):
    return log_probs - reference_log_probs


def _k1_positive(log_probs, reference_log_probs):
    return (log_probs - reference_log_probs).abs()


def _k1_clamped(log_probs, reference_log_probs):
    return (log_probs - reference_log_probs).clamp(min=0)


def _k2(log_probs, reference_log_probs):
    return (log_probs - reference_log_probs) ** 2 / 2


def _ratio_upside_down(log_probs, reference_log_probs):
    d = log_probs - reference_log_probs
    return torch.expm1(d) - d


def _other_direction(log_probs, reference_log_probs):
    """An estimate of KL(reference ‖ π)."""
    d = reference_log_probs - log_probs
    return d.exp() * d - torch.expm1(d)


def _without_the_one(log_probs, reference_log_probs):
    d = log_probs - reference_log_probs
    return d + torch.exp(-d)


def _ratio_taken_away(log_probs, reference_log_probs):
    d = log_probs - reference_log_probs
    return d - torch.expm1(-d)


def _half_of_the_ratio(log_probs, reference_log_probs):
    """Right on average, but negative for some tokens."""
    d = log_probs - reference_log_probs
    return d + torch.expm1(-d) / 2


def _twice_the_ratio(log_probs, reference_log_probs):
    d = log_probs - reference_log_probs
    return d + 2 * torch.expm1(-d)


def _in_bits(log_probs, reference_log_probs):
    d = log_probs - reference_log_probs
    return (d + torch.expm1(-d)) / math.log(2)


def _weighted(log_probs, reference_log_probs):
    d = log_probs - reference_log_probs
    return log_probs.exp() * (d + torch.expm1(-d))


def _summand_of_the_kl(log_probs, reference_log_probs):
    return log_probs.exp() * (log_probs - reference_log_probs)


def _averaged(log_probs, reference_log_probs):
    d = log_probs - reference_log_probs
    return (d + torch.expm1(-d)).mean()


def _mean_everywhere(log_probs, reference_log_probs):
    d = log_probs - reference_log_probs
    return (d + torch.expm1(-d)).mean().expand(log_probs.shape)


def _ratio_of_logs(log_probs, reference_log_probs):
    return log_probs - reference_log_probs + reference_log_probs / log_probs - 1


def _squared_ratio(log_probs, reference_log_probs):
    return torch.expm1(reference_log_probs - log_probs) ** 2 / 2


def _flattened(log_probs, reference_log_probs):
    d = (log_probs - reference_log_probs).flatten()
    return d + torch.expm1(-d)


def _clamped_ratio(log_probs, reference_log_probs):
    """Kept small for safety: no longer right on average."""
    d = (log_probs - reference_log_probs).clamp(-1, 1)
    return d + torch.expm1(-d)


def _in_place(log_probs, reference_log_probs):
    log_probs -= reference_log_probs
    return log_probs + torch.expm1(-log_probs)


# 17.5
def _gae(rewards, values, mask, gamma, decay, after=None):
    there = mask.bool()
    rewards, values = rewards.masked_fill(~there, 0), values.masked_fill(~there, 0)
    if after is None:
        after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    surprise = (rewards + gamma * after - values).masked_fill(~there, 0)
    advantages, carried = torch.zeros_like(values), 0.0
    for t in range(values.shape[1] - 1, -1, -1):
        carried = surprise[:, t] + gamma * decay * carried
        advantages[:, t] = carried
    return advantages, (advantages + values).masked_fill(~there, 0)


def _value_behind_the_end(rewards, values, mask, gamma, decay):
    """V of the padding counts after the last token."""
    after = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    return _gae(rewards, values, mask, gamma, decay, after)


def _last_value_goes_on(rewards, values, mask, gamma, decay):
    clean = values.masked_fill(mask == 0, 0)
    after = torch.cat([clean[:, 1:], values[:, -1:]], 1)
    return _gae(rewards, values, mask, gamma, decay, after)


def _own_value_at_the_end(rewards, values, mask, gamma, decay):
    """At the last token V stands for the V behind it."""
    next_mask = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    after = torch.where(next_mask.bool(), values.roll(-1, 1), values)
    return _gae(rewards, values, mask, gamma, decay, after)


def _rolled(rewards, values, mask, gamma, decay):
    """V of the first token comes behind the last place."""
    after = values.masked_fill(mask == 0, 0).roll(-1, 1)
    return _gae(rewards, values, mask, gamma, decay, after)


def _value_before(rewards, values, mask, gamma, decay):
    clean = values.masked_fill(mask == 0, 0)
    after = torch.cat([torch.zeros_like(clean[:, :1]), clean[:, :-1]], 1)
    return _gae(rewards, values, mask, gamma, decay, after)


def _masked_at_the_end(rewards, values, mask, gamma, decay):
    """The padding is put to 0 only in the result."""
    advantages, returns = _gae(rewards, values, torch.ones_like(mask), gamma, decay)
    return advantages.masked_fill(mask == 0, 0), returns.masked_fill(mask == 0, 0)


def _mask_ignored(rewards, values, mask, gamma, decay):
    return _gae(rewards, values, torch.ones_like(mask), gamma, decay)


def _gamma_forgotten_in_the_carry(rewards, values, mask, gamma, decay):
    there = mask.bool()
    r, v = rewards.masked_fill(~there, 0), values.masked_fill(~there, 0)
    advantages, carried, after = torch.zeros_like(v), 0.0, 0.0
    for t in range(v.shape[1] - 1, -1, -1):
        carried = r[:, t] + gamma * after - v[:, t] + decay * carried
        advantages[:, t], after = carried, v[:, t]
    return advantages, advantages + v


def _gamma_forgotten_in_the_surprise(rewards, values, mask, gamma, decay):
    there = mask.bool()
    r, v = rewards.masked_fill(~there, 0), values.masked_fill(~there, 0)
    advantages, carried, after = torch.zeros_like(v), 0.0, 0.0
    for t in range(v.shape[1] - 1, -1, -1):
        carried = r[:, t] + after - v[:, t] + gamma * decay * carried
        advantages[:, t], after = carried, v[:, t]
    return advantages, advantages + v


def _decay_forgotten(rewards, values, mask, gamma, decay):
    return _gae(rewards, values, mask, gamma, 1.0)


def _one_step(rewards, values, mask, gamma, decay):
    return _gae(rewards, values, mask, gamma, 0.0)


def _forwards(rewards, values, mask, gamma, decay):
    there = mask.bool()
    r, v = rewards.masked_fill(~there, 0), values.masked_fill(~there, 0)
    after = torch.cat([v[:, 1:], torch.zeros_like(v[:, :1])], 1)
    surprise = (r + gamma * after - v).masked_fill(~there, 0)
    advantages, carried = torch.zeros_like(v), 0.0
    for t in range(v.shape[1]):
        carried = surprise[:, t] + gamma * decay * carried
        advantages[:, t] = carried
    advantages = advantages.masked_fill(~there, 0)
    return advantages, advantages + v


def _rewards_to_come(rewards, values, mask, gamma, decay):
    """Returns from the rewards alone, which is right only for decay 1."""
    advantages, _ = _gae(rewards, values, mask, gamma, decay)
    zeros = torch.zeros_like(values)
    return advantages, _gae(rewards, zeros, mask, gamma, 1.0)[0]


def _returns_without_values(rewards, values, mask, gamma, decay):
    advantages, _ = _gae(rewards, values, mask, gamma, decay)
    return advantages, advantages


def _returns_over_the_padding(rewards, values, mask, gamma, decay):
    advantages, _ = _gae(rewards, values, mask, gamma, decay)
    return advantages, advantages + values


def _the_other_way_round(rewards, values, mask, gamma, decay):
    return _gae(rewards, values, mask, gamma, decay)[::-1]


def _whitened(rewards, values, mask, gamma, decay):
    advantages, returns = _gae(rewards, values, mask, gamma, decay)
    there = advantages[mask.bool()]
    return (advantages - there.mean()) / (there.std() + 1e-8) * mask, returns


def _rewards_behind_the_end(rewards, values, mask, gamma, decay):
    """Only the values are put to 0: the rewards of the padding flow back."""
    clean = values.masked_fill(mask == 0, 0)
    advantages, _ = _gae(rewards, clean, torch.ones_like(mask), gamma, decay)
    advantages = advantages.masked_fill(mask == 0, 0)
    return advantages, advantages + clean


def _values_in_place(rewards, values, mask, gamma, decay):
    values *= mask
    return _gae(rewards, values, mask, gamma, decay)


def _sum_of_surprises(rewards, values, mask, gamma, decay):
    """Weights by the place from the start, not from t."""
    there = mask.bool()
    r, v = rewards.masked_fill(~there, 0), values.masked_fill(~there, 0)
    after = torch.cat([v[:, 1:], torch.zeros_like(v[:, :1])], 1)
    surprise = (r + gamma * after - v).masked_fill(~there, 0)
    weighted = surprise * (gamma * decay) ** torch.arange(v.shape[1])
    advantages = weighted.flip(1).cumsum(1).flip(1).masked_fill(~there, 0)
    return advantages, advantages + v


# 17.6
def _rule(log, *, ratio=True, gradient=True, rising=None):
    first, last = log[0], log[-1]
    if first["no_spread"] == 1:
        return "solved" if first["reward"] == 1 else "cold start"
    if ratio and first["ratio"] > 0.1:
        return "wrong old log-probs"
    if gradient and first["grad_norm"] == 0:
        return "no gradient"
    rising = last["reward"] > first["reward"] if rising is None else rising
    return "healthy" if rising else "wrong sign"


def _always_healthy(log):
    return "healthy"


def _ratio_not_read(log):
    return _rule(log, ratio=False)


def _gradient_not_read(log):
    return _rule(log, gradient=False)


def _never_the_sign(log):
    return _rule(log, rising=True)


def _two_steps_only(log):
    return _rule(log, rising=log[1]["reward"] > log[0]["reward"])


def _must_rise_each_step(log):
    rewards = [row["reward"] for row in log]
    return _rule(log, rising=all(b >= a for a, b in zip(rewards, rewards[1:], strict=False)))


def _sign_of_the_loss(log):
    return _rule(log, rising=log[0]["loss"] <= 0)


def _falling_loss(log):
    return _rule(log, rising=log[-1]["loss"] < log[0]["loss"])


def _by_the_last_row(log):
    last = log[-1]
    if last["no_spread"] == 1:
        return "solved" if last["reward"] == 1 else "cold start"
    if last["ratio"] > 0.1:
        return "wrong old log-probs"
    if last["grad_norm"] == 0:
        return "no gradient"
    return "healthy" if last["reward"] > log[0]["reward"] else "wrong sign"


def _gradient_before_spread(log):
    if log[0]["grad_norm"] == 0:
        return "no gradient"
    return _rule(log)


def _any_gradient_zero(log):
    """A step without a gradient is not yet a fault: its groups may be equal."""
    verdict = _rule(log)
    if verdict in ("healthy", "wrong old log-probs", "wrong sign"):
        return "no gradient" if any(row["grad_norm"] < 0.01 for row in log) else verdict
    return verdict


def _loss_zero_is_a_fault(log):
    if log[0]["no_spread"] < 1 and abs(log[0]["loss"]) < 1e-6:
        return "no gradient"
    return _rule(log)


def _any_equal_group(log):
    if any(row["no_spread"] > 0.5 for row in log):
        return "solved" if log[-1]["reward"] > 0.5 else "cold start"
    return _rule(log)


def _solved_at_the_end(log):
    return "solved" if log[-1]["reward"] > 0.9 else _rule(log)


def _zero_at_the_end(log):
    return "cold start" if log[-1]["reward"] < 0.1 else _rule(log)


def _cold_and_solved_exchanged(log):
    exchanged = {"cold start": "solved", "solved": "cold start"}
    return exchanged.get(_rule(log), _rule(log))


def _reward_first(log):
    """A rising reward hides the wrong old log-probs."""
    if log[-1]["reward"] > log[0]["reward"]:
        return "healthy"
    return _rule(log)


def _ratio_too_large(log):
    return _rule(log, ratio=log[0]["ratio"] > 1)


def _other_words(log):
    return _rule(log).replace(" ", "_")


def _capital(log):
    return _rule(log).capitalize()


def _all_in_one_list(log):
    return [_rule(log)]


def _sign_where_reward_is_low(log):
    return _rule(log, rising=log[0]["reward"] > 0.35)


OTHER_WRONG_ANSWERS = {
    "17.1": [
        _baseline_left_out,
        _baseline_added,
        _own_baseline,
        _summed,
        _mean_over_answers,
        _a_row_each,
        _downhill,
        _only_the_drawn,
        _by_the_probability,
        _over_the_probability,
        _last_one_counts,
        _adds_once,
        _kept_only,
        _kept_gains,
        _baseline_per_score,
        _rewards_in_place,
        _logits_as_probabilities,
        _by_autograd,
    ],
    "17.2": [
        _below_K,
        _inside_the_root,
        _by_the_variance,
        _without_the_small_number,
        _at_least_the_small_number,
        _smaller_number,
        _no_division,
        _spread_of_all,
        _mean_of_all,
        _over_questions,
        _no_spread_counted,
        _share_as_a_tensor,
        _share_with_a_spread,
        _share_of_solved,
        _share_of_zeros_and_ones,
        _share_by_a_threshold,
        _first_and_last_equal,
        _share_of_zero_advantages,
        _sum_is_zero,
        _equal_to_the_mean,
        _equal_groups_left_out,
        _groups_in_place,
        _nan_for_equal_groups,
        _advantages_alone,
    ],
    "17.3": [
        _larger_of_two,
        _always_clipped,
        _never_clipped,
        _gain_not_loss,
        _sum_of_tokens,
        _smaller_ratio,
        _upside_down,
        _log_ratio,
        _log_ratio_clipped,
        _one_over,
        _fixed_clip,
        _outside_the_borders,
        _outside_where_A_counts,
        _zero_counts_as_cut,
        _cut_above_only,
        _not_cut,
        _share_of_what_counts,
        _share_tensor,
        _a_count,
        _without_gradient,
        _loss_as_a_float,
        _straight_through,
        _gradient_of_log_probs,
        _one_a_token,
        _mean_of_the_free,
    ],
    "17.4": [
        _k1,
        _k1_positive,
        _k1_clamped,
        _k2,
        _ratio_upside_down,
        _other_direction,
        _without_the_one,
        _ratio_taken_away,
        _half_of_the_ratio,
        _twice_the_ratio,
        _in_bits,
        _weighted,
        _summand_of_the_kl,
        _averaged,
        _mean_everywhere,
        _ratio_of_logs,
        _squared_ratio,
        _flattened,
        _clamped_ratio,
        _in_place,
    ],
    "17.5": [
        _value_behind_the_end,
        _last_value_goes_on,
        _own_value_at_the_end,
        _rolled,
        _value_before,
        _masked_at_the_end,
        _mask_ignored,
        _gamma_forgotten_in_the_carry,
        _gamma_forgotten_in_the_surprise,
        _decay_forgotten,
        _one_step,
        _forwards,
        _rewards_to_come,
        _returns_without_values,
        _returns_over_the_padding,
        _the_other_way_round,
        _whitened,
        _rewards_behind_the_end,
        _values_in_place,
        _sum_of_surprises,
    ],
    "17.6": [
        _always_healthy,
        _ratio_not_read,
        _gradient_not_read,
        _never_the_sign,
        _two_steps_only,
        _must_rise_each_step,
        _sign_of_the_loss,
        _falling_loss,
        _by_the_last_row,
        _gradient_before_spread,
        _any_gradient_zero,
        _loss_zero_is_a_fault,
        _any_equal_group,
        _solved_at_the_end,
        _zero_at_the_end,
        _cold_and_solved_exchanged,
        _reward_first,
        _ratio_too_large,
        _other_words,
        _capital,
        _all_in_one_list,
        _sign_where_reward_is_low,
    ],
}
