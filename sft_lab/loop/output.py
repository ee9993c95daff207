"""Under "learn": the folder of a run. One run at a time has it, there is room for what the run will
write, and nothing that others put there is touched. All of this is known before the first step."""

import contextlib
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from sft_lab.files import (
    ANOTHER_FOLDER,
    OutputError,
    as_folder,
    check_files,
    check_folder,
    check_folder_writable,
    remove_folder,
    whole_files,
)
from sft_lab.formats import format_bytes
from sft_lab.loop.checkpoints import check_result, save_result
from sft_lab.loop.process import lock_folder
from sft_lab.lora import adapts

CONFIG_FILES = ("config.json", "adapter_config.json")  # without one, a folder is no model
RESULT_FILES = (
    *CONFIG_FILES,
    *("generation_config.json", "model*.safetensors", "model.safetensors.index.json"),
    *("adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    "chat_template.jinja",
)
SMALL_FILES = 2**20  # configurations, headers, random state


class UnsavedError(OutputError):
    """A run came to its end and its result could not be saved in its folder.

    `history` is the History of the run. The tuned model is in memory, in the model that `train`
    was given, and on disk in `saved_in` (None where that failed too).
    """

    def __init__(self, message: str, history: Any, saved_in: Path | None) -> None:
        super().__init__(message)
        self.history, self.saved_in = history, saved_in


@contextlib.contextmanager
def output_folder(
    folder: Path | str | None,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    steps: int,
    checkpoint_every: int,
    resume: bool,
) -> Iterator[Path | None]:
    """Yield where a run of so many `steps` keeps its checkpoint; None without a `folder`.

    Raises OutputError when the folder cannot be written, has too little room, belongs to another
    run now, or holds files that the run would replace and that no run wrote; ValueError for a model
    whose result could not be loaded again, and for `resume` without a folder.
    """
    if folder is None:
        if resume:
            raise ValueError("resume=True needs the output_dir of the run to go on with")
        yield None
        return
    folder = as_folder("output_dir", folder)
    check_result(model, folder)  # now, and not after hours of training
    check_folder_writable(folder)
    with lock_folder(folder):
        checkpoint = folder / "checkpoint"
        check_folder(checkpoint)
        check_files(folder, RESULT_FILES)
        _check_room(checkpoint, model, tokenizer, steps, checkpoint_every)
        yield checkpoint


@contextlib.contextmanager
def log_folder(folder: Path | str, run: str, checkpoint: Path | None) -> Iterator[Path]:
    """Yield where a run writes TensorBoard's events; the names of its files end in `run`.

    TensorBoard draws all files of a folder as one curve, so a folder has the events of one run:
    that goes on there, or is done over. checkpoint: of the run, beside which it may write. Raises
    OutputError when the folder cannot be written, is another run's now, or holds other events.
    """
    folder = as_folder("log_dir", folder)
    check_folder_writable(folder)
    held = checkpoint is not None and folder.samefile(checkpoint.parent)
    with contextlib.nullcontext() if held else lock_folder(folder):
        events = [path.name for path in folder.iterdir() if "tfevents" in path.name]
        if others := sorted(name for name in events if not name.endswith(run)):
            raise OutputError(
                f"{folder} holds the events of another run ({others[0]}), likely one with other "
                "settings, and TensorBoard would draw both as one curve",
                f"{ANOTHER_FOLDER}, one for each run, or move those events away",
            )
        yield folder


def bytes_needed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    steps: int,
    checkpoint_every: int,
    replaced: int = 0,
) -> int:
    """What a run writes at its largest, beside what is there; `replaced` is the size of an earlier
    checkpoint that the first one replaces.

    A checkpoint holds three float32 numbers a trained parameter (weight and both means of AdamW)
    and stands until the next is whole; the last one stands until the result is.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    one = sum(3 * max(4, tensor.element_size()) * tensor.numel() for tensor in trained)
    saved = trained if adapts(model) else [*model.parameters(), *model.buffers()]
    result = sum(tensor.element_size() * tensor.numel() for tensor in saved)
    count = (steps - 1) // checkpoint_every
    kept = max(one - replaced, 0) if count else 0
    largest = max(one if count else 0, kept + max(result, one if count > 1 else 0))
    # a tokenizer's files take about 100 bytes an entry, a step in a checkpoint's history 300
    return largest + SMALL_FILES + 100 * len(tokenizer) + 300 * steps


def save_in_folder(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    checkpoint: Path,
    history: Any,
) -> None:
    """Save a run's result beside its checkpoint and delete that; after an error the result is saved
    in a new folder for temporary files, and UnsavedError says where."""
    folder = checkpoint.parent
    try:
        with whole_files(folder, last=CONFIG_FILES) as new:
            save_result(model, tokenizer, new)
    except Exception as error:  # of whatever kind: hours of training must not end with it
        saved_in = _rescue(model, tokenizer)
        kept = f", and the checkpoint before it is still in {checkpoint}" * checkpoint.exists()
        raise UnsavedError(
            f"the run is done, but its result could not be saved in {folder} ({error}). The tuned "
            f"model is in memory{f' and in {saved_in}' if saved_in else ''}{kept}",
            history,
            saved_in,
        ) from error
    try:
        remove_folder(checkpoint)
    except OSError as error:
        warnings.warn(
            f"the result is saved in {folder}, but its checkpoint could not be deleted ({error})",
            stacklevel=3,
        )


def _rescue(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Path | None:
    """Save the result in a new folder for temporary files; None where that fails as well."""
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix="sft_lab-tuned-"))
        save_result(model, tokenizer, folder)
    except Exception:  # the error that brought us here is the one to tell
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        return None
    return folder


def _check_room(
    checkpoint: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    steps: int,
    checkpoint_every: int,
) -> None:
    there = [path for path in checkpoint.glob("*") if path.is_file()]
    needed = bytes_needed(
        model,
        tokenizer,
        steps=steps,
        checkpoint_every=checkpoint_every,
        replaced=sum(path.stat().st_size for path in there),
    )
    disk = shutil.disk_usage(checkpoint.parent)
    if disk.total and disk.free < needed:  # some network disks say 0 of 0
        raise OutputError(
            f"{checkpoint.parent} has {format_bytes(disk.free)} free, and this run needs about "
            f"{format_bytes(needed)} for its checkpoints and its result",
            f"free some, {ANOTHER_FOLDER}, or make no checkpoints (checkpoint_every above the "
            "number of steps)",
        )
