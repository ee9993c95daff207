"""How near two ways to compute the same number must come; one way taken twice is compared bit for
bit.

float32 keeps 24 bits. A sum takes another value in its last ones when its terms come in another
order, and another order is what other processors, other libraries, a batch instead of a row, a
cache or a merge amount to. Each tolerance here is ten times or more what was seen with the kernels
of three kinds of processor (`make test-processors`), and far below what any mistake makes.
"""

import os

import torch
from transformers import PreTrainedModel

LOGITS = {"rtol": 1e-4, "atol": 1e-4}  # seen: 2e-5 at logits near 30
LOSS = {"rtol": 0, "atol": 2e-5}  # nats, also after 24 updates; seen: 1.4e-6
TIE = 1e-3  # two scores this near may change places


@torch.no_grad()
def assert_same_answer(
    model: PreTrainedModel, prompt: list[int], one: list[int], other: list[int]
) -> None:
    """Two greedy answers are equal, or part where two tokens tie."""
    shared = len(os.path.commonprefix([one, other]))
    if one != other:
        scores = model(input_ids=torch.tensor([[*prompt, *one[:shared]]])).logits[0, -1]
        gap = abs(scores[one[shared]] - scores[other[shared]])  # IndexError: one ends, no tie
        assert gap < TIE, f"{one} and {other} part at {shared}, where the scores are {gap} apart"


def right_answers(scores: torch.Tensor, targets: torch.Tensor) -> range:
    """How many targets may be counted as ranked first: those that lead by TIE, up to those that
    miss the lead by less than TIE."""
    own = scores.gather(1, targets[:, None])
    lead = (own - scores.scatter(1, targets[:, None], -torch.inf).amax(dim=1, keepdim=True))[:, 0]
    return range(int((lead > TIE).sum()), int((lead > -TIE).sum()) + 1)
