"""Station "doctor": what the files of a model and of an adapter say before either is loaded.

Read are configurations, the names and shapes in the weights' headers, and a few rows of the
embedding: a folder of 15 GB takes a second. The model itself is built without numbers.
"""

import json
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from sft_lab.cards import card_gib, find_changes, needed_gib
from sft_lab.control import find_controls
from sft_lab.doctor.causes import describe
from sft_lab.findings import Finding
from sft_lab.fingerprint import check_fingerprint
from sft_lab.lora import (
    CONFIG_FILE,
    FINGERPRINT,
    GENERATION_FILE,
    PREFIX,
    WEIGHTS_FILE,
    check_kind,
)
from sft_lab.models import ModelError, check_vocabulary, find_source
from sft_lab.rendering import stop_token_id

SAMPLE = 256  # ordinary rows of an embedding that one row is compared with
# Cosine of two rows above which they count as one. Control tokens of atlas-base that no text has:
# 0.99999; after 3,200 rows of tuning 0.994; smollm2-135m, tuned by its makers, 0.9906; words 0.76.
SAME = 0.999
READ_AT_MOST = 600 * 10**6  # bytes of weights that are compared with an adapter's fingerprint
LORA = re.compile(r"\.lora_(?:embedding_)?([AB])(?:\.weight)?$")
EMBEDDINGS = re.compile(r"embed|lm_head|wte|wpe|trainable_tokens")
MEDIA = re.compile("image|picture|vision|video|audio")
# what holds weights, or names the files that do; an adapter's files too
WEIGHTS = re.compile(r"\.(?:safetensors|gguf|bin|pt|pth|ckpt|h5|index\.json)$|^adapter_config")
ROWS = 8  # of a batch, where memory is predicted


@dataclass
class Saved:
    """A model as it lies on the disk.

    folder: None where it is not here. outline: the model without numbers, None where its
    architecture cannot be built. files: by tensor's name; {} for a GGUF file. findings: why
    something is missing.
    """

    name: str
    folder: Path | None = None
    gguf: bool = False
    config: PreTrainedConfig | None = None
    outline: PreTrainedModel | None = None
    files: dict[str, Path] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def read_rows(self, tensor: str, rows: list[int]) -> torch.Tensor:
        """Some rows of a matrix, in float32."""
        with safe_open(self.files[tensor], "pt") as file:
            part = file.get_slice(tensor)
            return torch.stack([part[row] for row in rows]).float()

    def read(self, tensor: str) -> torch.Tensor:
        with safe_open(self.files[tensor], "pt") as file:
            return file.get_tensor(tensor)


def open_model(name_or_folder: str | Path) -> Saved:
    """Find a model's files and read all but its weights."""
    saved = Saved(str(name_or_folder))
    try:
        source, gguf_file = find_source(saved.name)
    except ModelError as error:
        folder = Path(saved.name).expanduser()
        described = (folder / "config.json").is_file()
        if not folder.is_dir() or any(WEIGHTS.search(path.name) for path in folder.iterdir()):
            saved.findings.append(describe("model-refused", detail=str(error)))
        elif described:
            _read_without_weights(saved, folder)
        else:
            saved.findings.append(describe("not-examined", detail=f"{folder} holds no model"))
        return saved
    folder = Path(source)
    if not folder.is_dir():
        cached = try_to_load_from_cache(source, "config.json")
        if not isinstance(cached, str):
            saved.findings.append(describe("not-examined", detail=f"{source} is not here"))
            return saved
        folder = Path(cached).parent
    saved.folder, saved.gguf = folder, bool(gguf_file)
    _read_outline(saved, gguf_file)
    if saved.config is not None and not saved.gguf:
        _read_headers(saved)
    return saved


def _read_without_weights(saved: Saved, folder: Path) -> None:
    """Of a folder with config and tokenizer alone, as one has it before a card is paid for."""
    saved.folder = folder
    detail = f"{folder} holds no weights, so the rows of the embedding cannot be looked at"
    saved.findings.append(describe("not-examined", detail=detail))
    _read_outline(saved, None)


def _read_outline(saved: Saved, gguf_file: str | None) -> None:
    """Its config, and the model that it describes, without numbers."""
    with _quiet():
        try:
            saved.config = _read_config(saved.folder, gguf_file)
        except Exception as error:  # the libraries raise whatever a damaged file leads to
            saved.findings.append(describe("model-refused", detail=_one_line(error)))
            return
        try:
            with torch.device("meta"):
                saved.outline = AutoModelForCausalLM.from_config(
                    saved.config, trust_remote_code=False
                )
        except Exception as error:  # an architecture that needs its numbers, or another task's
            saved.findings.append(describe("not-examined", detail=_one_line(error)))


def _read_config(folder: Path, gguf_file: str | None) -> PreTrainedConfig:
    if not gguf_file:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    state = (folder / gguf_file).stat()
    return _read_gguf_config(folder, gguf_file, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4)
def _read_gguf_config(folder: Path, gguf_file: str, *_state: int) -> PreTrainedConfig:
    """Takes seconds, as the whole vocabulary is read with it. _state: of the file, so that nothing
    outdated is kept."""
    return AutoConfig.from_pretrained(folder, gguf_file=gguf_file, trust_remote_code=False)


def _read_headers(saved: Saved) -> None:
    """Which file holds which tensor."""
    for path in sorted(saved.folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt") as file:
                saved.files |= dict.fromkeys(file.keys(), path)
        except (SafetensorError, OSError) as error:
            detail = f"{path} is damaged: {_one_line(error)}"
            saved.findings.append(describe("model-refused", detail=detail))
    for index in saved.folder.glob("*.safetensors.index.json"):
        try:
            named = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            missing = sorted({*named.values()} - {path.name for path in saved.files.values()})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            missing = [f"{index.name} is damaged: {_one_line(error)}"]
        if missing:
            detail = f"{index.name} names {missing[0]}, which is not there"
            saved.findings.append(describe("model-refused", detail=detail))


# the model


def check_model(name_or_folder: str | Path, tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    """What the files of a model say about its stop token and its embedding, beside this tokenizer.

    The numbers of the model are not loaded. What could not be examined (a GGUF file's embedding, a
    model of the hub that is not on this machine) is a note.
    """
    saved = open_model(name_or_folder)
    stop = _find_stop(tokenizer)
    found = saved.findings + _check_eos(tokenizer, stop)
    if saved.config is not None and stop is not None:
        found += _check_ends(saved, tokenizer, stop)
    if saved.outline is not None:
        found += _check_vocabulary(saved, tokenizer)
    if saved.gguf:
        found.append(
            describe(
                "not-examined",
                detail=f"{saved.name} is a GGUF file: the rows of its embedding are packed",
            )
        )
    elif stop is not None and (how := find_untrained(saved, tokenizer, stop)):
        token = tokenizer.convert_ids_to_tokens(stop)
        found.append(describe("stop-row-untrained", detail=f"{token!r}: {how}"))
    return found


def _find_stop(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that the template ends an answer with; None where that cannot be told, which
    check_tokenizer says."""
    try:
        return stop_token_id(tokenizer) if tokenizer.chat_template else None
    except ValueError:
        return None


def _check_eos(tokenizer: PreTrainedTokenizerBase, stop: int | None) -> list[Finding]:
    if stop is None or tokenizer.eos_token_id == stop:
        return []
    token = tokenizer.convert_ids_to_tokens(stop)
    return [
        describe("tokenizer-eos", detail=f"{tokenizer.eos_token!r}, the stop token is {token!r}")
    ]


def _check_ends(saved: Saved, tokenizer: PreTrainedTokenizerBase, stop: int) -> list[Finding]:
    """Whether the model stops by itself at the stop token."""
    try:
        ends = read_ends(saved.folder, saved.config)
    except ValueError as error:
        return [describe("model-refused", detail=str(error))]
    if stop in ends:
        return []
    named = ", ".join(str(tokenizer.convert_ids_to_tokens(token_id)) for token_id in ends)
    token = tokenizer.convert_ids_to_tokens(stop)
    return [describe("stop-not-named", detail=f"names {named or 'no token'}, not {token!r}")]


def read_ends(folder: Path, config: PreTrainedConfig | None) -> list[int]:
    """The token ids at which `generate` stops by itself: the generation configuration's, else the
    configuration's. ValueError for a damaged file."""
    path = folder / GENERATION_FILE
    ends = None if config is None else getattr(config.get_text_config(), "eos_token_id", None)
    if path.is_file():
        try:
            ends = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{path} is damaged ({_one_line(error)})") from error
    return [ends] if isinstance(ends, int) else list(ends or [])


def _check_vocabulary(saved: Saved, tokenizer: PreTrainedTokenizerBase) -> list[Finding]:
    try:
        note = check_vocabulary(saved.name, saved.outline, tokenizer)
    except (ModelError, ValueError) as error:
        return [describe("ids-outside", detail=_one_line(error).removeprefix(f"{saved.name}: "))]
    if not note:
        return []
    entries = len(saved.outline.get_input_embeddings().weight)
    beyond = [token for token, token_id in tokenizer.get_vocab().items() if token_id >= entries]
    # Gemma 3's text models ship with a token for pictures too many
    harmless = all(MEDIA.search(token) for token in beyond)
    return [describe("ids-outside-unused" if harmless else "ids-outside", detail=note)]


def find_untrained(saved: Saved, tokenizer: PreTrainedTokenizerBase, stop: int) -> str:
    """How one can see that a token's row of the embedding, or of the head, was never trained; ""
    where one cannot. A row that text never asked for is like those of other unused tokens, or still
    as it was drawn at the beginning."""
    if saved.outline is None:
        return ""
    names = {id(value): name for name, value in saved.outline.named_parameters()}
    for what, layer in (
        ("embedding", saved.outline.get_input_embeddings()),
        ("head", saved.outline.get_output_embeddings()),
    ):
        name = names.get(id(getattr(layer, "weight", None)))
        if name in saved.files and (how := _compare_row(saved, name, tokenizer, stop)):
            return f"its row of the {what} {how}"
    return ""


def _compare_row(saved: Saved, tensor: str, tokenizer: PreTrainedTokenizerBase, stop: int) -> str:
    with safe_open(saved.files[tensor], "pt") as file:
        entries = file.get_slice(tensor).get_shape()[0]
    vocabulary = {token_id: token for token, token_id in tokenizer.get_vocab().items()}
    controls = {*find_controls(tokenizer).ids.values()} - {stop}
    spare = [token_id for token_id in range(entries) if token_id not in vocabulary][:16]
    kin = [token_id for token_id in sorted(controls)[:48] if token_id < entries] + spare
    ordinary = sorted(set(vocabulary) - controls - {stop} - tokenizer.added_tokens_decoder.keys())
    ordinary = [token_id for token_id in ordinary[:: max(1, len(ordinary) // SAMPLE)]]
    ordinary = [token_id for token_id in ordinary if token_id < entries]
    if stop >= entries or not ordinary:
        return ""
    row = saved.read_rows(tensor, [stop])[0]
    sample = saved.read_rows(tensor, ordinary)
    size, sizes = row.norm(), sample.norm(dim=1)
    if size < 0.2 * sizes.median():
        return f"is {size:.2g} long, where a usual one is {sizes.median():.2g}"
    if kin:
        cosines = torch.cosine_similarity(saved.read_rows(tensor, kin), row[None])
        nearest = int(cosines.argmax())
        if cosines[nearest] > SAME:
            other = vocabulary.get(kin[nearest], f"id {kin[nearest]}, which no text has")
            return f"is the same as that of {other!r}"
    drawn = getattr(saved.config.get_text_config(), "initializer_range", None)
    common = sample.mean(dim=0)
    shared = torch.cosine_similarity(sample, common[None]).median()
    alone = torch.cosine_similarity(row, common, dim=0)
    odd = drawn and abs(row.std() / drawn - 1) < 0.1 and abs(sample.std() / drawn - 1) > 0.25
    if odd and shared > 0.2 and alone.abs() < 0.1:
        return f"is still as it was drawn, with deviation {drawn}"
    return ""


# the adapter


def check_adapter(
    folder: str | Path, name_or_folder: str | Path, tokenizer: PreTrainedTokenizerBase
) -> list[Finding]:
    """What an adapter's two files say, and whether they meet this base. LoRA of any kind is read;
    of other kinds only the names."""
    folder = Path(folder).expanduser()
    try:
        check_kind(folder, adapter=True)
        config, tensors, base = _read_adapter(folder)
    except (ValueError, OSError) as error:
        return [describe("adapter-refused", detail=_one_line(error))]
    found = _check_values(folder, tensors)
    with _quiet():
        saved = open_model(name_or_folder)
    if saved.outline is not None:
        found += _check_keys(folder, config, tensors, saved)
    found += _check_base(config, base, saved)
    if not _trains_embedding(config, tensors) and saved.files:
        stop = _find_stop(tokenizer)
        how = "" if stop is None else find_untrained(saved, tokenizer, stop)
        if how:
            token = tokenizer.convert_ids_to_tokens(stop)
            found.append(describe("stop-row-frozen", detail=f"{token!r}: {how}"))
    return found


def _read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], str | None]:
    """Config, tensors and the base's fingerprint. ValueError for files that cannot be read."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        with safe_open(folder / WEIGHTS_FILE, "pt") as file:
            base = (file.metadata() or {}).get(FINGERPRINT)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (ValueError, SafetensorError) as error:
        raise ValueError(f"{folder} is damaged: {_one_line(error)}") from error
    if not isinstance(config, dict) or not tensors:
        raise ValueError(f"{folder} is damaged: its config or its weights are empty")
    return config, tensors, base


def _check_values(folder: Path, tensors: dict[str, torch.Tensor]) -> list[Finding]:
    """An update of nothing, or of numbers that are none."""
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        return [describe("adapter-not-finite", detail=f"{len(broken)}, first {broken[0]}")]
    seconds = [
        tensor
        for name, tensor in tensors.items()
        if (found := LORA.search(name)) and found[1] == "B"
    ]
    if seconds and not any(tensor.count_nonzero() for tensor in seconds):
        return [describe("adapter-inert", detail=f"{len(seconds)} layers")]
    return []


def _check_keys(
    folder: Path, config: dict[str, Any], tensors: dict[str, torch.Tensor], saved: Saved
) -> list[Finding]:
    """Whether each pair of A and B has a layer of the base of its shape, and each layer that the
    config names a pair."""
    shapes = {
        name: tuple(module.weight.shape)
        for name, module in saved.outline.named_modules()
        if isinstance(getattr(module, "weight", None), torch.Tensor) and module.weight.dim() == 2
    }
    wrong, met = [], set()
    for key, tensor in tensors.items():
        part = LORA.search(key)
        if not part:
            continue  # a whole layer beside LoRA: modules_to_save
        layer = key[: part.start()].removeprefix(PREFIX)
        if not key.startswith(PREFIX) or layer not in shapes:
            wrong.append(f"{key}: no such layer")
        elif tensor.dim() == 2 and not _fits(key, part[1], tensor, shapes[layer]):
            wrong.append(f"{key} is {tuple(tensor.shape)}, the layer {shapes[layer]}")
        met.add(layer)
    narrowed = any(config.get(name) for name in ("layers_to_transform", "exclude_modules"))
    if not wrong and isinstance(config.get("target_modules"), list) and not narrowed:
        wrong = [
            f"{layer}: named in target_modules, without A and B in the file"
            for target in config["target_modules"]
            for layer in shapes
            if f".{layer}".endswith(f".{target}") and layer not in met
        ]
    if not wrong:
        return []
    return [describe("adapter-keys", detail=f"{len(wrong)} of them, first {wrong[0]}")]


def _fits(key: str, part: str, tensor: torch.Tensor, layer: tuple[int, int]) -> bool:
    """layer: the shape of its weight, (out, in); an embedding's is (entries, width)."""
    rows, columns = layer
    if ".lora_embedding_" in key:
        return tensor.shape[1 if part == "A" else 0] == (rows if part == "A" else columns)
    return tensor.shape[1] == columns if part == "A" else tensor.shape[0] == rows


def _check_base(config: dict[str, Any], base: str | None, saved: Saved) -> list[Finding]:
    """Whether the adapter was trained on these weights: by the fingerprint, else by the name."""
    named = config.get("base_model_name_or_path")
    if base is None:
        here = {Path(saved.name).name, saved.folder.name if saved.folder else ""}
        if not named or Path(named).name in here:
            return []
        detail = f"it was trained on {named}, and this is {saved.name}"
        return [describe("adapter-other-name", detail=detail)]
    if not saved.files:
        return []  # which open_model says
    try:
        chosen = choose_tensors(json.loads(base), saved)
        tensors = ((name, saved.read(name)) for name in chosen if name in saved.files)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_fingerprint(json.dumps(chosen), tensors, f"the adapter was trained on {named}")
    except (ValueError, AttributeError) as error:
        return [describe("adapter-other-base", detail=_one_line(error))]
    return [describe("adapter-other-name", detail=str(caught[0].message))] if caught else []


def choose_tensors(there: dict[str, str], saved: Saved) -> dict[str, str]:
    """Of a fingerprint's records, those that are compared: all of a small model; of a large one
    the vectors, and the first and last layers, which every kind of tuning changes."""
    held = {name: record for name, record in there.items() if name in saved.files}
    if sum(path.stat().st_size for path in {*saved.files.values()}) <= READ_AT_MOST or not held:
        return there
    numbers = {name: re.search(r"\.(\d+)\.", name) for name in held}
    last = max((int(found[1]) for found in numbers.values() if found), default=0)
    return {
        name: record
        for name, record in held.items()
        if (found := numbers[name]) and ("norm" in name or int(found[1]) in (0, last))
    }


def _trains_embedding(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> bool:
    """Whether the stop token's row can change: with the embedding or the head among what is
    trained."""
    return bool(config.get("trainable_token_indices")) or any(map(EMBEDDINGS.search, tensors))


# memory


def check_memory(name_or_folder: str | Path, lengths: Iterable[int], card: str) -> list[Finding]:
    """Whether a training step on the longest rows fits a card, by `sft_lab.cards`, and what to
    change. lengths: tokens of each row. Raises ValueError for an unknown card."""
    room, longest = card_gib(card), max(lengths, default=0)
    saved = open_model(name_or_folder)
    if saved.config is None or not longest:
        return []
    config = saved.config.get_text_config()
    try:
        plans = {
            method: sum(needed_gib(config, method, ROWS, longest, False, "all").values())
            for method in ("full", "lora")
        }
        least = sum(needed_gib(config, "qlora", 1, longest, True, "graded").values())
    except ValueError as error:  # an architecture that is counted otherwise
        return [describe("not-examined", detail=f"memory: {_one_line(error)}")]
    what = (
        f"{ROWS} rows of {longest:,} tokens take {plans['full']:.1f} GiB with full tuning and "
        f"{plans['lora']:.1f} with LoRA; {card} has {room:.1f}"
    )
    if least > room:
        detail = f"{what}. Even one row with QLoRA and checkpointing takes {least:.1f} GiB"
        fitting = find_length(config, longest, room)
        changes = f"cut the rows to {fitting:,} tokens" if fitting else "two cards"
        return [describe("does-not-fit", detail=detail, changes=changes)]
    if plans["full"] <= room:
        return [describe("fits", detail=what)]
    changes = find_changes(config, card, "full", ROWS, longest, False, "all")
    return [describe("memory", detail=what, changes=", ".join(changes))]


def find_length(config: PreTrainedConfig, longest: int, room: float) -> int:
    """The most tokens of a row with which the smallest step fits; 0 where the weights alone are
    too many."""
    fits, fails = 0, longest
    while fails - fits > 1:
        middle = (fits + fails) // 2
        if sum(needed_gib(config, "qlora", 1, middle, True, "graded").values()) <= room:
            fits = middle
        else:
            fails = middle
    return fits


# small things


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' own messages and bars."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
