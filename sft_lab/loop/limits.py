"""Under "learn": before the first step, can this model take these rows at all?

A token id without a row in the embedding, or more tokens than the model has positions, ends a run
in the middle with an IndexError from inside a layer, and on a GPU with an error that names nothing.
Some models take too long a row without a word and learn at places where they never learned to read.
"""

import sys
from collections.abc import Sequence

import torch

from sft_lab.batches import check_pad
from sft_lab.examples import IGNORE_INDEX, Example

# What configs call the number of positions: most of them, and a decoder beside an encoder.
POSITIONS = ("max_position_embeddings", "max_target_positions")


def check_rows(
    model: torch.nn.Module, pad_token_id: int | None, **groups: Sequence[Example] | None
) -> None:
    """Raise ValueError, in one line with what to do, for the first example that the model cannot
    take, by the name of its group and its place in it; and for a pad token that is none.

    Packed rows count as examples do: positions start again with each of them.
    """
    check_pad(pad_token_id)
    entries, positions = count_entries(model), count_positions(model)
    if not 0 <= pad_token_id < entries:
        raise ValueError(f"the pad token has the id {pad_token_id}, {_explain(entries)}")
    for name, examples in groups.items():
        for place, example in enumerate(examples or ()):
            ids = example.input_ids
            if len(ids) > positions:
                raise ValueError(
                    f"{name}[{place}] has {len(ids)} tokens, but the model has {positions} "
                    f"positions: encode with max_tokens={positions}, or leave it out. A model that "
                    "computes its positions and reads further says so in "
                    "model.config.max_position_embeddings"
                )
            known = {*ids, *example.labels} - {IGNORE_INDEX}
            if known and (min(known) < 0 or max(known) >= entries):
                wrong = next(number for number in known if not 0 <= number < entries)
                what = f"token id {wrong} at place {ids.index(wrong)}" if wrong in ids else ""
                what = what or f"label {wrong} at place {example.labels.index(wrong)}"
                raise ValueError(f"{name}[{place}] has {what}, {_explain(entries)}")


def _explain(entries: int) -> str:
    return (
        f"but the model's embedding has the ids 0 to {entries - 1}: for tokens that were added to "
        "the tokenizer, call model.resize_token_embeddings(len(tokenizer)) first; otherwise encode "
        "with the model's own tokenizer"
    )


def count_entries(model: torch.nn.Module) -> int:
    """How many token ids the model can read and predict; without end for one that has no such
    layers, which loop.probes refuses."""
    found = [sys.maxsize]
    for get in ("get_input_embeddings", "get_output_embeddings"):
        try:
            layer = getattr(model, get)()
        except (AttributeError, NotImplementedError):
            continue
        weight = getattr(layer, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() == 2:
            found.append(weight.shape[0])
    return min(found)


def count_positions(model: torch.nn.Module) -> int:
    """How many tokens an example may have; without end for a model that names no limit."""
    config = getattr(model, "config", None)
    if not hasattr(config, "get_text_config"):
        return sys.maxsize
    config = config.get_text_config()
    named = [getattr(config, name, None) for name in POSITIONS]
    # XLNet says -1, and means none
    limits = [limit for limit in named if isinstance(limit, int) and limit > 0][:1]
    for name, layer in model.named_modules():
        # RoBERTa counts its positions from behind the pad token's id, and its config does not
        if name.endswith("position_embeddings") and getattr(layer, "padding_idx", None) is not None:
            limits.append(layer.num_embeddings - layer.padding_idx - 1)
    return min(limits, default=sys.maxsize)
