"""Folders of models for the tests of the doctor: healthy ones, and ones with a fault of template,
tokenizer, model or adapter, as people make them. All are changed copies of atlas-base."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import doctor_texts as texts
import torch
from doctor_cases import Draft, Shape, last_answer, make_draft, question, write
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sft_lab.lora import add_lora, save_adapter

ATLAS = Path(__file__).resolve().parent.parent / "data" / "models" / "atlas-base"
END, START, STOP = 2043, 2044, 2045  # <|endoftext|>, <|im_start|>, <|im_end|>
SYSTEM = (texts.personas, texts.turns_with_system)
ROUNDS = (texts.several_turns, texts.turns_with_system, texts.think_turns)
THOUGHTS = (texts.think_blocks, texts.think_turns, texts.reasoning_beside)
BEYOND = (texts.chinese, texts.world, texts.quatrains)  # the letters of a Latin vocabulary

CHATML = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\n' }}{%- if m.role == 'assistant' %}"
    "{%- generation %}{{- m.content + '<|im_end|>' }}{%- endgeneration %}{%- else %}"
    "{{- m.content + '<|im_end|>' }}{%- endif %}{{- '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
UNTAGGED = CHATML.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
THINKING = CHATML.replace(
    "{{- m.content + '<|im_end|>' }}{%- endgen",
    "{%- if m.reasoning_content %}{{- '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}"
    "{%- endif %}{{- m.content + '<|im_end|>' }}{%- endgen",
)
# Qwen3's, shortened: the thoughts of all answers but the last are taken out
FORGETTING = UNTAGGED.replace(
    "{{- m.content + '<|im_end|>' }}",
    "{%- if not loop.last and '</think>' in m.content %}"
    "{{- m.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>' }}{%- else %}"
    "{{- m.content + '<|im_end|>' }}{%- endif %}",
    1,
)
PLAIN = (
    "{%- for m in messages %}{{- m.role + ': ' + m.content + '\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- 'assistant: ' }}{%- endif %}"
)


def set_template(template: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")

    return change


def edit(folder: Path, file: str, **changes: Any) -> None:
    """Change keys of a JSON file; None takes one out."""
    found = json.loads((folder / file).read_text("utf-8")) | changes
    found = {key: value for key, value in found.items() if value is not None}
    (folder / file).write_text(json.dumps(found, indent=2), encoding="utf-8")


def copy_folder(folder: Path, *changes: Callable[[Path], None]) -> Path:
    shutil.copytree(ATLAS, folder)
    for change in changes:
        change(folder)
    return folder


def learn_stop(folder: Path) -> None:
    """Give the stop token an embedding of its own, as a tuned model has."""
    weights = load_file(folder / "model.safetensors")
    rows = weights["model.embed_tokens.weight"].clone()
    generator = torch.Generator().manual_seed(0)
    for row in (START, STOP):
        rows[row] = rows[:2000].std() * torch.randn(rows.shape[1], generator=generator)
    weights["model.embed_tokens.weight"] = rows
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def lengthen(folder: Path) -> None:
    edit(folder, "config.json", max_position_embeddings=16384)
    edit(folder, "tokenizer_config.json", model_max_length=16384)


def put_bos(folder: Path) -> None:
    """Let the tokenizer put a bos before every text, as Llama's does."""
    edit(folder, "tokenizer_config.json", bos_token="<|endoftext|>", add_bos_token=True)
    steps = {"special_tokens": {"<|endoftext|>": {}}}
    steps["special_tokens"]["<|endoftext|>"] = {
        "id": "<|endoftext|>",
        "ids": [END],
        "tokens": ["<|endoftext|>"],
    }
    parts = [
        {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    steps |= {"type": "TemplateProcessing", "single": parts, "pair": parts}
    second = {"Sequence": {"id": "B", "type_id": 1}}
    steps["pair"] = [*parts, second]
    edit(folder, "tokenizer.json", post_processor=steps)


def name_bos(folder: Path) -> None:
    edit(folder, "tokenizer_config.json", bos_token="<|endoftext|>")


BOS_TEMPLATE = "{{- bos_token }}" + CHATML
HEALTHY: dict[str, tuple[Callable[[Path], None], ...]] = {
    "atlas": (),
    "spoken": (learn_stop,),
    "thinking": (set_template(THINKING),),
    "long": (lengthen,),
    "one stop": (lambda folder: edit(folder, "generation_config.json", eos_token_id=STOP),),
    "no generation config": (lambda folder: (folder / "generation_config.json").unlink(),),
    "bos in the template": (name_bos, set_template(BOS_TEMPLATE)),
    "bos by the tokenizer": (put_bos,),
    "without tags": (set_template(UNTAGGED),),
    "trims": (set_template(CHATML.replace("m.content", "m.content | trim")),),
}


class Folders:
    """Makes each folder once, when it is first asked for."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def make(self, name: str, make: Callable[[Path], object]) -> Path:
        folder = self.place / name.replace(" ", "-").replace(":", "").replace("'", "")
        if not folder.exists():
            make(folder)
        return folder

    def healthy(self, name: str) -> Path:
        return self.make(f"healthy {name}", lambda folder: copy_folder(folder, *HEALTHY[name]))

    def faulty(self, fault: "FolderFault") -> Path:
        return self.make(fault.name, lambda folder: copy_folder(folder, *fault.changes))

    def adapter(self, name: str, base: Path, *, scale: float = 0.02) -> Path:
        """A LoRA adapter of the model in `base`; scale: of its B, 0 for one never trained."""

        def write(folder: Path) -> None:
            torch.manual_seed(0)
            model = add_lora(AutoModelForCausalLM.from_pretrained(base), rank=4)
            with torch.no_grad():
                for key, weight in model.named_parameters():
                    if "lora_B" in key:
                        weight.normal_(std=1.0).mul_(scale)
            save_adapter(model, folder)

        return self.make(f"adapter {name}", write)

    def copy_adapter(self, base: Path, folder: Path) -> None:
        shutil.copytree(self.adapter("healthy", base), folder)


# faults of a folder


class FolderFault(NamedTuple):
    """changes: of a copy of atlas-base. spoils: whether a row is one that the finding must name,
    None for a fault of no row. contents: whose rows show it, () for all."""

    name: str
    code: str
    changes: tuple[Callable[[Path], None], ...]
    severity: str = "error"
    spoils: Callable[[list[dict]], bool] | None = None
    contents: tuple = ()
    entails: tuple[str, ...] = ()
    without: tuple = ()

    def shows_in(self, shape: Shape) -> bool:
        fits = not self.contents or shape.content in self.contents
        # these rows need a folder of their own
        return fits and shape.content not in (texts.very_long_rows, *self.without)


def use_characters(folder: Path) -> None:
    """A tokenizer of single letters: those beyond its vocabulary are all one token."""
    steps = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    letters = ["<unk>", *map(chr, range(32, 127)), "\n", "\t", "\r"]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    steps["model"] = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
    # NFC may stay
    steps["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": r"[\s\S]"},
        "behavior": "Isolated",
        "invert": False,
    }
    steps["decoder"] = {"type": "Fuse"}
    for number, token in enumerate(steps["added_tokens"]):
        token["id"] = len(letters) + number
    (folder / "tokenizer.json").write_text(json.dumps(steps), encoding="utf-8")
    edit(folder, "tokenizer_config.json", unk_token="<unk>")
    ends = [len(letters) + 2, len(letters)]
    edit(folder, "generation_config.json", eos_token_id=ends, pad_token_id=ends[1])
    edit(folder, "config.json", eos_token_id=ends[0], pad_token_id=ends[1])


def lower_case(folder: Path) -> None:
    edit(folder, "tokenizer.json", normalizer={"type": "Lowercase"})


def add_tokens(*tokens: str) -> Callable[[Path], None]:
    """Into the tokenizer, and not into the model."""

    def change(folder: Path) -> None:
        steps = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        for number, text in enumerate(tokens):
            new = {"id": 2048 + number, "content": text}
            steps["added_tokens"].append(steps["added_tokens"][0] | new)
        (folder / "tokenizer.json").write_text(json.dumps(steps), encoding="utf-8")

    return change


def stop_nowhere(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    edit(folder, "config.json", eos_token_id=END)


def has_role(role: str) -> Callable[[list[dict]], bool]:
    return lambda turns: any(turn["role"] == role for turn in turns)


def swap(old: str, new: str) -> tuple[Callable[[Path], None], ...]:
    assert old in CHATML
    return (set_template(CHATML.replace(old, new)),)


REFUSING = "{{- raise_exception('System role not supported') if messages[0].role == 'system' }}"
ONE_ROUND = "{{- raise_exception('One round only') if messages | length > 2 }}"
FIRST_WORD = "{{- (m.content if loop.last else m.content.split()[0]) + '<|im_end|>' }}{%- endgen"
ALL_ROWS = bool
FOLDER_FAULTS = [
    FolderFault(
        "no template", "no-template", (lambda f: (f / "chat_template.jinja").unlink(),)
    ),
    FolderFault(
        "a template that takes no system turn",
        "template-refuses",
        (set_template(REFUSING + CHATML),),
        spoils=has_role("system"),
        contents=SYSTEM,
    ),
    FolderFault(
        "a template for one round",
        "template-refuses",
        (set_template(ONE_ROUND + CHATML),),
        spoils=lambda turns: len(turns) > 2,
        contents=ROUNDS,
    ),
    FolderFault(
        "a template that forgets the system turn",
        "template-drops",
        swap("{%- for m in messages %}", "{%- for m in messages if m.role != 'system' %}"),
        spoils=has_role("system"),
        contents=SYSTEM,
    ),
    FolderFault(
        "a template of the last round",
        "template-drops",
        swap("{%- for m in messages %}", "{%- for m in messages[-2:] %}"),
        spoils=lambda turns: len(turns) > 2,
        contents=ROUNDS,
        entails=("prompt-not-prefix",),
    ),
    FolderFault(
        "a template that cuts questions",
        "template-drops",
        swap("m.content + '<|im_end|>' }}{%- endif", "m.content[:40] + '<|im_end|>' }}{%- endif"),
        spoils=lambda turns: any(
            len(turn["content"]) > 40 for turn in turns if turn["role"] != "assistant"
        ),
        contents=(texts.long_rows, texts.with_input, texts.four_labels, texts.choices),
    ),
    FolderFault(
        "a template that cuts earlier answers",
        "answer-changed",
        swap("{{- m.content + '<|im_end|>' }}{%- endgen", FIRST_WORD),
        spoils=lambda turns: any(
            len(turn["content"].split()) > 1 for turn in turns[:-1] if turn["role"] == "assistant"
        ),
        contents=(texts.turns_with_system,),  # of several_turns only the last answer is learned
    ),
    FolderFault(
        "no generation prompt",
        "prompt-not-prefix",
        swap("{{- '<|im_start|>assistant\n' }}", ""),
    ),
    FolderFault(
        "a generation prompt that opens thoughts",
        "prompt-not-prefix",
        swap("{{- '<|im_start|>assistant\n' }}", "{{- '<|im_start|>assistant\n<think>\n' }}"),
        without=THOUGHTS,
    ),
    FolderFault(
        "a generation prompt of another role",
        "prompt-not-prefix",
        swap("{{- '<|im_start|>assistant\n' }}", "{{- '<|im_start|>model\n' }}"),
    ),
    FolderFault(
        "thoughts taken out of earlier answers",
        "thoughts-dropped",
        (set_template(FORGETTING),),
        severity="warning",
        spoils=ALL_ROWS,
        contents=(texts.think_turns,),
        entails=("prompt-not-prefix",),
    ),
    FolderFault(
        "a template without a place for thoughts",
        "thoughts-dropped",
        (),
        severity="warning",
        spoils=ALL_ROWS,
        contents=(texts.reasoning_beside,),
    ),
    FolderFault("no tags", "no-tags", (set_template(UNTAGGED),), severity="note"),
    FolderFault(
        "bos twice in the template",
        "double-bos",
        (name_bos, set_template("<|endoftext|>" + BOS_TEMPLATE)),
    ),
    # so are Llama 3's: twice only for who encodes the template's text by hand
    FolderFault(
        "bos by template and tokenizer",
        "double-bos",
        (put_bos, set_template(BOS_TEMPLATE)),
        severity="note",
    ),
    FolderFault(
        "pad set to the stop token",
        "pad-is-stop",
        (lambda f: edit(f, "tokenizer_config.json", pad_token="<|im_end|>"),),
        severity="warning",
    ),
    FolderFault(
        "no pad token",
        "no-pad",
        (lambda f: edit(f, "tokenizer_config.json", pad_token=None),),
        severity="note",
    ),
    FolderFault("a template of words", "stop-missing", (set_template(PLAIN),)),
    FolderFault(
        "a template that ends no answer",
        "stop-missing",
        swap("{{- m.content + '<|im_end|>' }}{%- endgen", "{{- m.content }}{%- endgen"),
    ),
    FolderFault(
        "a tokenizer without capitals",
        "not-reversible",
        (lower_case,),
        severity="warning",
        spoils=lambda turns: any(turn["content"] != turn["content"].lower() for turn in turns),
        contents=(texts.english, texts.atlas, texts.poetry, texts.long_rows, texts.personas),
    ),
    FolderFault(
        "a tokenizer of Latin letters",
        "unknown-token",
        (use_characters,),
        severity="warning",
        spoils=lambda turns: any(
            not letter.isascii() for turn in turns for letter in turn["content"]
        ),
        contents=BEYOND,
        entails=("not-reversible",),
    ),
    FolderFault(
        "generation ends where a document ends",
        "stop-not-named",
        (lambda f: edit(f, "generation_config.json", eos_token_id=END),),
    ),
    FolderFault("no configuration names the stop token", "stop-not-named", (stop_nowhere,)),
    FolderFault(
        "the tokenizer's end is a document's",
        "tokenizer-eos",
        (lambda f: edit(f, "tokenizer_config.json", eos_token="<|endoftext|>"),),
        severity="warning",
    ),
    FolderFault(
        "turns in tokens without an embedding",
        "ids-outside",
        (
            add_tokens("<|tool|>", "<|plan|>"),
            set_template(CHATML.replace("<|im_start|>", "<|tool|>")),
        ),
    ),
    FolderFault(
        "more tokens without an embedding", "ids-outside", (add_tokens("<|tool|>", "<|plan|>"),)
    ),
    # as Gemma 3's text models have it
    FolderFault(
        "a token for pictures without an embedding",
        "ids-outside",
        (add_tokens("<image_soft_token>"),),
        severity="note",
    ),
    FolderFault("a stop token that nobody trained", "stop-row-untrained", (), severity="note"),
]  # fmt: skip


def plant_folder(fault: FolderFault, shape: Shape) -> Draft:
    """The shape with the rows marked that the folder's fault spoils; in the shapes with system
    turns half of the rows lose theirs, so that the finding has to tell them apart."""
    draft = make_draft(shape, f"{fault.name} {shape.name}")
    if shape.content is texts.turns_with_system:
        draft.conversations[::2] = [turns[1:] for turns in draft.conversations[::2]]
    if fault.spoils:
        draft.spoil([i for i, t in enumerate(draft.conversations) if fault.spoils(t)])
    if fault.code == "template-drops":
        # what a template drops of a turn shows in long texts; of the same turns, short ones count
        draft.beside = set(range(1, len(draft.conversations) + 1))
    return write(draft)


# faults of a length


class LengthFault(NamedTuple):
    """plant: makes some rows too long for these options."""

    name: str
    code: str
    severity: str
    plant: Callable[[Draft], None]
    max_tokens: int
    entails: tuple[str, ...] = ()


def long_questions(draft: Draft) -> None:
    places = draft.pick(4)
    for place in places:
        turns = draft.conversations[place]
        first = next(i for i, turn in enumerate(turns) if turn["role"] == "user")
        text = texts.story(draft.rng, 60)
        turns[first] = turns[first] | {"content": turns[first]["content"] + "\n" + text}
    draft.spoil(places)


def long_answers(draft: Draft) -> None:
    places = draft.pick(4)
    for place in places:
        turn = draft.conversations[place][-1]
        turn["content"] = turn["content"] + " " + texts.story(draft.rng, 60)
    draft.spoil(places)


def one_word_of_many(draft: Draft) -> None:
    for turns in draft.conversations:
        turns[:] = [
            {"role": "user", "content": texts.story(draft.rng, 14) + "\n" + question(turns)},
            {"role": "assistant", "content": last_answer(turns)[:1]},
        ]
    draft.spoil(range(len(draft.conversations)))


LENGTH_FAULTS = [
    LengthFault("questions longer than the limit", "answer-lost", "error", long_questions, 1024),
    LengthFault("answers longer than the limit", "answer-cut", "warning", long_answers, 1024),
    LengthFault("rows beyond the positions", "too-long", "error", long_answers, 8192),
    LengthFault("a word behind a page", "little-graded", "note", one_word_of_many, 1024),
]  # fmt: skip


def plant_length(fault: LengthFault, shape: Shape) -> Draft:
    draft = make_draft(shape, f"{fault.name} {shape.name}", max_tokens=fault.max_tokens)
    fault.plant(draft)
    return write(draft)


# faults of an adapter


def rename_keys(folder: Path, rename: Callable[[str], str]) -> None:
    file = folder / "adapter_model.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    weights = {rename(key): tensor for key, tensor in load_file(file).items()}
    save_file(weights, file, metadata=metadata)


def double_prefix(folder: Path) -> None:
    rename_keys(
        folder, lambda key: key.replace("base_model.model.", "base_model.model.base_model.")
    )


def lose_prefix(folder: Path) -> None:
    rename_keys(
        folder, lambda key: key.replace("base_model.model.model.", "base_model.model.module.")
    )


def make_adapters(folders: Folders) -> dict[str, tuple[str, str, Path, Path, tuple[str, ...]]]:
    """Faults of adapters: name -> code, severity, model, adapter, what else may be said."""
    spoken, atlas = folders.healthy("spoken"), folders.healthy("atlas")
    inert = folders.adapter("inert", spoken, scale=0)
    renamed = folders.make(
        "adapter renamed",
        lambda folder: (folders.copy_adapter(spoken, folder), double_prefix(folder)),
    )
    module = folders.make(
        "adapter module",
        lambda folder: (folders.copy_adapter(spoken, folder), lose_prefix(folder)),
    )
    of_atlas = folders.adapter("of atlas", atlas)
    return {
        "an adapter that never trained": ("adapter-inert", "error", spoken, inert, ()),
        "an adapter saved inside a wrapper": ("adapter-keys", "error", spoken, renamed, ()),
        "an adapter of a wrapped module": ("adapter-keys", "error", spoken, module, ()),
        "an adapter of another base": ("adapter-other-base", "error", spoken, of_atlas, ()),
        "a stop token that the adapter does not train": (
            "stop-row-untrained",
            "warning",
            atlas,
            of_atlas,
            (),
        ),
    }
