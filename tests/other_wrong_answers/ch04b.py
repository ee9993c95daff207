"""Further wrong answers to the exercises of chapter 04b."""

import math


def stop(
    losses,
    patience,
    *,
    better=lambda loss, best: loss < best,
    reset=True,
    enough=lambda waited, patience: waited == patience,
    versus_previous=False,
    first=math.inf,
):
    """Right with the defaults; every keyword is a mistake."""
    lowest, best, waited, epoch = first, 0, 0, 0
    for epoch, loss in enumerate(losses):
        if better(loss, lowest):
            lowest, best, waited = loss, epoch, 0 if reset else waited
        else:
            waited += 1
            if versus_previous:
                lowest = loss
            if enough(waited, patience):
                break
    return best, epoch


def stops(**mistakes):
    return lambda losses, patience: stop(losses, patience, **mistakes)


def stopped(change):
    """The right indices, changed."""
    return lambda losses, patience: change(*stop(losses, patience), losses)


def stop_at_the_overall_best(losses, patience):
    return losses.index(min(losses)), stop(losses, patience)[1]


def stop_counts_rises_in_a_row(losses, patience):
    """Compares with the epoch before."""
    waited = 0
    for epoch in range(1, len(losses)):
        waited = waited + 1 if losses[epoch] >= losses[epoch - 1] else 0
        if waited == patience:
            return losses.index(min(losses[: epoch + 1])), epoch
    return losses.index(min(losses)), len(losses) - 1


def stop_in_place(losses, patience):
    best, last = stop(losses, patience)
    del losses[last + 1 :]
    return best, last


def last_of_equals(losses, patience):
    _, last = stop(losses, patience)
    seen = losses[: last + 1]
    return max(i for i, loss in enumerate(seen) if loss == min(seen)), last


OTHER_WRONG_ANSWERS = {
    "4b.1": [
        stop_at_the_overall_best,
        stop_counts_rises_in_a_row,
        stop_in_place,
        last_of_equals,
        stops(better=lambda loss, best: loss <= best),
        stops(better=lambda loss, best: loss > best, first=-math.inf),
        stops(better=lambda loss, best: loss < best - 0.05),
        stops(better=lambda loss, best: round(loss, 1) < round(best, 1), first=1e9),
        stops(reset=False),
        stops(enough=lambda waited, patience: waited > patience),
        stops(enough=lambda waited, patience: waited >= patience - 1),
        stops(enough=lambda waited, patience: waited == 2),
        stops(enough=lambda waited, patience: False),
        stops(enough=lambda waited, patience: True),
        stops(versus_previous=True),
        stops(first=1.0),
        stops(first=10.0),
        stopped(lambda best, last, losses: (last, best)),
        stopped(lambda best, last, losses: (best + 1, last + 1)),
        stopped(lambda best, last, losses: (best, last + 1)),
        stopped(lambda best, last, losses: (best, last - 1)),
        stopped(lambda best, last, losses: (losses[best], losses[last])),
        stopped(lambda best, last, losses: (losses[best], last)),
        stopped(lambda best, last, losses: best),
        stopped(lambda best, last, losses: (float(best), float(last))),
        stopped(lambda best, last, losses: (best, len(losses) - 1)),
        stopped(lambda best, last, losses: (best, best)),
        lambda losses, patience: (losses.index(min(losses)), len(losses) - 1),
        lambda losses, patience: (
            losses.index(min(losses)),
            min(losses.index(min(losses)) + patience, len(losses) - 1),
        ),
        lambda losses, patience: stop(losses, patience + 1),
        lambda losses, patience: stop(losses[1:], patience),
        lambda losses, patience: stop(sorted(losses), patience),
        stops(better=lambda loss, best: loss < best - 1e-3),
        stops(better=lambda loss, best: loss < best - 1e-4),
        stops(better=lambda loss, best: round(loss, 4) < round(best, 4), first=1e9),
    ],
}
