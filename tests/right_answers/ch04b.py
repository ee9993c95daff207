"""Right answers to the exercises of chapter 04b, in different styles."""

import math

import numpy as np


def stop_by_best(losses, patience):
    best = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[best]:
            best = epoch
        if epoch - best >= patience:
            return best, epoch
    return best, len(losses) - 1


def stop_by_counter(losses, patience):
    lowest, best, waited, epoch = math.inf, 0, 0, 0
    for epoch, loss in enumerate(losses):
        if loss < lowest:
            lowest, best, waited = loss, epoch, 0
        else:
            waited += 1
            if waited == patience:
                break
    return best, epoch


def stop_by_prefixes(losses, patience):
    for last in range(len(losses)):
        seen = losses[: last + 1]
        best = seen.index(min(seen))
        if last - best == patience or last == len(losses) - 1:
            return best, last
    raise ValueError("no epoch")


def stop_by_numpy(losses, patience):
    so_far = np.minimum.accumulate(losses)
    bests = [int(np.argmax(so_far == low)) for low in so_far]
    ends = [i for i, best in enumerate(bests) if i - best >= patience]
    last = ends[0] if ends else len(losses) - 1
    return bests[last], last


def stop_by_records(losses, patience):
    records = [i for i in range(len(losses)) if all(losses[i] < x for x in losses[:i])]
    for here, following in zip(records, [*records[1:], math.inf], strict=True):
        if following - here > patience and here + patience < len(losses):
            return here, here + patience
    return records[-1], len(losses) - 1


RIGHT_ANSWERS = {
    "4b.1": [stop_by_best, stop_by_counter, stop_by_prefixes, stop_by_numpy, stop_by_records],
}
