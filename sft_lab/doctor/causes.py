"""Station "doctor": the words for what a tokenizer, a template or a model does to a run.

A cause has a code; several causes share one where they are one fault seen from two sides.
"""

import re
from typing import NamedTuple

from sft_lab.findings import SEVERITIES, Finding, Severity


class Cause(NamedTuple):
    """title, why, remedy: with {rows}, {detail}, {max_tokens}, {positions} to fill in.

    {detail} continues a sentence; {sentence} is the same as a sentence of its own.
    """

    code: str
    severity: Severity
    title: str
    why: str
    remedy: str


OF_THE_TOKENIZER = {
    "slow-tokenizer": Cause(
        "slow-tokenizer",
        "error",
        "The tokenizer is one in Python ({detail})",
        "It does not say which characters a token stands for, so nobody can tell which tokens "
        "belong to an answer.",
        "Use a model with a tokenizer.json (a fast tokenizer).",
    ),
    "no-template": Cause(
        "no-template",
        "error",
        "The tokenizer has no chat template",
        "Without a template there is no way to write a conversation, and none to ask later as was "
        "taught.",
        "Copy the template of the chat model of its family: tokenizer.chat_template = "
        "other.chat_template. Its control tokens must be in the vocabulary.",
    ),
    "no-tags": Cause(
        "no-tags",
        "note",
        "The chat template has no {{% generation %}} tags",
        "sft_lab finds the answers without them. TRL's assistant_only_loss=True refuses such a "
        "template, and trains prompts too where it is left at False.",
        "For TRL, put the tags around what the model writes, the stop token included.",
    ),
    "double-bos": Cause(
        "double-bos",
        "error",
        "The chat template writes {detail} twice at the beginning",
        "The model has only ever read one there: answers start worse for no visible reason "
        "(trl#1400, OpenRLHF#393).",
        "Remove one of the two from the chat template.",
    ),
    "bos-twice-by-hand": Cause(
        "double-bos",
        "note",
        "The chat template writes {detail}, and the tokenizer adds another to every text",
        "apply_chat_template(tokenize=True) and sft_lab write one. A text that is rendered first "
        "and tokenised afterwards gets two (trl#1400, OpenRLHF#393).",
        "Where you tokenise a rendered text yourself, pass add_special_tokens=False.",
    ),
    "no-bos": Cause(
        "no-bos",
        "note",
        "The tokenizer begins every text with {detail}, and the chat template does not write it",
        "The model has read {detail} before every text. Some models (Gemma) answer badly without.",
        "Begin the chat template with {{{{ bos_token }}}}, unless the model's makers left it out.",
    ),
    "pad-is-stop": Cause(
        "pad-is-stop",
        "warning",
        "The pad token is the stop token, {detail}",
        "A loss that leaves out padding by its id leaves out the stop token of every answer: the "
        "model never learns to stop (happy-llm PR #216, open-r1#492).",
        "Set another pad token before training, for example tokenizer.pad_token = "
        "'<|endoftext|>'; sft_lab.models.load does so, and sft_lab.train masks by position.",
    ),
    "no-pad": Cause(
        "no-pad",
        "note",
        "The tokenizer has no pad token",
        "Rows of a batch are filled up to one length with it. Many scripts then take the eos "
        "token, which is often the stop token.",
        "Set a token that no text needs: tokenizer.pad_token = ...; sft_lab.models.load does so.",
    ),
    "tokenizer-eos": Cause(
        "tokenizer-eos",
        "warning",
        "The tokenizer's eos token is {detail}",
        "GGUF files and vLLM stop at the tokenizer's eos token; the template ends an answer with "
        "another, so such an engine may write on after it (LLaMA-Factory#7943).",
        "Set tokenizer.eos_token to the stop token before you save; sft_lab.train does so.",
    ),
}

OF_THE_TEMPLATE = {
    "template-refuses": Cause(
        "template-refuses",
        "error",
        "The chat template refuses {rows}",
        "What cannot be rendered cannot be taught. {sentence}",
        "Use a template that takes these turns, or change them: for example put the system text "
        "before the first question.",
    ),
    "template-drops": Cause(
        "template-drops",
        "error",
        "The chat template leaves out a turn, or a part of one, in {rows}",
        "The model would never read it, and the loss would not show it. {sentence}",
        "Use a template that writes every turn, or put that text into a turn that it writes.",
    ),
    "template-cuts": Cause(
        "template-cuts",
        "note",
        "sft_lab.train refuses {rows} whose turns the chat template would cut if they were longer",
        "{sentence}",
        "Use a template that writes every turn whole.",
    ),
    "answer-changed": Cause(
        "answer-changed",
        "error",
        "The chat template changes or shortens answers of {rows}",
        "What is taught is not what the data say, and no loss shows it. Often only those answers "
        "are changed that another question follows. {sentence}",
        "Use a template that writes every answer as it is, or make a row of each answer.",
    ),
    "prompt-not-prefix": Cause(
        "prompt-not-prefix",
        "error",
        "Answers are asked for otherwise than they are taught in {rows}",
        "What stands before an answer in training must be what the model reads when it is asked "
        "(open-instruct changelog 2026-08, QwenLM/Qwen#446). {sentence}",
        "Let add_generation_prompt write exactly what stands before an answer, or give the data "
        "what the prompt asks for, such as a think block.",
    ),
    "no-generation-prompt": Cause(
        "prompt-not-prefix",
        "error",
        "add_generation_prompt does not open the answer in {rows}",
        "In training an opening stands before every answer, and the prompt ends without it: the "
        "model is asked otherwise than it is taught (QwenLM/Qwen#446). {sentence}",
        "Let the template write the opening of an answer where add_generation_prompt is true.",
    ),
    "tags-misplaced": Cause(
        "tags-misplaced",
        "error",
        "The template's {{% generation %}} tags stand in the wrong place in {rows}",
        "What stands between them is graded: questions would be learned, or answers would not "
        "(QwenLM/Qwen#446, axolotl#2089). {sentence}",
        "Put the tags around what the model writes: the text of an answer and its stop token.",
    ),
    "stop-missing": Cause(
        "stop-missing",
        "error",
        "No stop token stands after the answer in {rows}",
        "A model that is never shown where an answer ends writes on and on (axolotl#3754, "
        "LLaMA-Factory#7943). {sentence}",
        "Let the template write a control token of this tokenizer after every answer; one that the "
        "tokenizer does not have is added with tokenizer.add_special_tokens.",
    ),
    "labels-wrong": Cause(
        "labels-wrong",
        "error",
        "The labels of {rows} would teach something else than the answers",
        "{sentence}",
        "Look at such a row with sft_lab.chat.render, and at the template.",
    ),
    "thoughts-refused": Cause(
        "thoughts-dropped",
        "warning",
        "The template has no place for the thoughts of {rows}",
        "sft_lab.train refuses such rows: the thoughts would be lost without a word, and the "
        "answer taught without them (trl PR #6363). {sentence}",
        "Take a model whose template writes them, drop reasoning_content, or put the thoughts "
        "into the answer as plain text.",
    ),
    "thoughts-rewritten": Cause(
        "thoughts-dropped",
        "warning",
        "The template drops the thoughts of earlier answers in {rows}",
        "sft_lab.train refuses such rows: once a question follows, the answer stands there without "
        "its thoughts, so it cannot be taught as it is asked (trl PR #6363, ms-swift#9829).",
        "Make a row of each answer, or use a template with {{% generation %}} tags that keeps the "
        "history as it was.",
    ),
    "thoughts-dropped": Cause(
        "thoughts-dropped",
        "warning",
        "Later answers of {rows} are taught after think blocks that are not there when asking",
        "The training variant keeps the think blocks of earlier answers, even empty ones, and the "
        "tokenizer's own template drops them: such answers are taught one way and asked another "
        "(trl PR #6363).",
        "Ask as taught: tokenizer.chat_template = sft_lab.templates.training_template(tokenizer), "
        "or make a row of each answer.",
    ),
    "thoughts-left-out": Cause(
        "thoughts-dropped",
        "warning",
        "The template leaves out the thoughts of {rows}",
        "The model learns the answer without the thoughts before it (trl PR #6363).",
        "Use a template that writes the think block, or remove the thoughts from the data.",
    ),
    "control-token": Cause(
        "control-token",
        "error",
        "A message would become a control token in {rows}",
        "Text that ends a turn or opens one lets a user speak as the model "
        "(transformers#29279). {sentence}",
        "Remove those letters, or give the tokenizer a control token that no text is written with.",
    ),
}

OF_ROWS = {
    "nothing-graded": Cause(
        "bad-row",
        "error",
        "There is no answer to learn from in {rows}",
        "{sentence}",
        "Add the answer, give one of them the weight 1, or drop the row.",
    ),
    "malformed-turn": Cause(
        "bad-row",
        "error",
        "A turn is malformed in {rows}",
        "{sentence}",
        "Read the data with sft_lab.records.load_conversations.",
    ),
    "half-letter": Cause(
        "encoding",
        "error",
        "There is half of a letter (a lone surrogate) in {rows}",
        "No tokenizer takes it: the run would end there. It comes from text that was cut inside an "
        "emoji, or from a wrong conversion.",
        "Remove it: text.encode('utf-8', 'ignore').decode().",
    ),
    "no-question": Cause(
        "bad-row",
        "error",
        "An answer comes before any question in {rows}",
        "It is an answer to nothing: a model learns to speak unasked.",
        "Restore the question, or drop that turn.",
    ),
    "unknown-answer": Cause(
        "unknown-token",
        "warning",
        "sft_lab.train refuses {rows}: the answers hold characters that the tokenizer has no token "
        "for",
        "The model would learn to write its unknown token. {sentence}",
        "Remove them, or take a model with byte-level tokens.",
    ),
    "unknown-token": Cause(
        "unknown-token",
        "warning",
        "The tokenizer has no token for some characters of {rows}",
        "They stand in questions: all of them become one unknown token, so the model cannot tell "
        "them apart. The row is trained all the same.",
        "Remove them, or take a model with byte-level tokens.",
    ),
    "not-reversible": Cause(
        "not-reversible",
        "warning",
        "The tokenizer changes the text of {rows}",
        "Decoding does not give back what was encoded, so the model can never write it: {detail}.",
        "Write the text as the tokenizer does, or take a model with byte-level tokens.",
    ),
    "answer-lost": Cause(
        "answer-lost",
        "error",
        "Truncation at max_tokens={max_tokens} leaves no answer in {rows}",
        "The question alone is longer: truncation leaves no graded token, and the loss of such a "
        "batch is 0 or NaN (trl#6668). sft_lab.train refuses the row.",
        "Raise max_tokens, or shorten or drop these rows.",
    ),
    "answer-cut": Cause(
        "answer-cut",
        "warning",
        "Truncation at max_tokens={max_tokens} cuts off the end of an answer in {rows}",
        "The stop token goes with it, so long answers never learn to end (LLaMA-Factory#5231). "
        "sft_lab.train drops such an answer, and refuses the row where it is the first.",
        "Raise max_tokens, or shorten or drop these rows; do not let a library cut them.",
    ),
    "turns-lost": Cause(
        "turns-lost",
        "note",
        "Truncation at max_tokens={max_tokens} cuts off the last turns of {rows}",
        "Their later answers are not learned.",
        "Raise max_tokens, or split long conversations into several rows.",
    ),
    "too-long": Cause(
        "too-long",
        "error",
        "The model's {positions} positions are too few for {rows}",
        "The run ends in the middle with an IndexError, or the model learns at places where it "
        "never learned to read. The first one has {detail}.",
        "Set max_tokens={positions}, or shorten or drop these rows.",
    ),
    "ids-outside-rows": Cause(
        "ids-outside",
        "error",
        "The model's embedding has no row for a token of {rows}",
        "The run ends with an IndexError, on a GPU with an error that names nothing. {sentence}",
        "Call model.resize_token_embeddings(len(tokenizer)) before training and save the model, "
        "or use the model's own tokenizer.",
    ),
    "little-graded": Cause(
        "little-graded",
        "note",
        "Fewer than 5 % of the tokens of {rows} are graded",
        "Most of the time goes into reading prompts. Short answers to long questions are fine, but "
        "check that the answer is the one you mean.",
        "Nothing, if the answers are meant to be that short.",
    ),
}

OF_THE_FILES = {
    "not-examined": Cause(
        "not-examined",
        "note",
        "A part of the model could not be examined",
        "The reason: {detail}. What was found concerns the rest alone.",
        "Give a folder with config.json and safetensors, or load the model once with a network.",
    ),
    "model-refused": Cause(
        "model-refused",
        "error",
        "The model cannot be loaded",
        "The reason: {detail}.",
        "Save or download the model again; weights must be safetensors or GGUF.",
    ),
    "stop-not-named": Cause(
        "stop-not-named",
        "error",
        "The model's generation configuration does not name the stop token",
        "It {detail}. A model that has learned to stop still runs on after the answer "
        "(minimind#555, QwenLM/Qwen#441).",
        "Add it to eos_token_id of generation_config.json. sft_lab.train writes it by itself, and "
        "sft_lab.stopping.name_stop_token does so for a model that is loaded.",
    ),
    "ids-outside": Cause(
        "ids-outside",
        "error",
        "The tokenizer has ids for which the model's embedding has no row",
        "A row with such a token ends the run with an IndexError. {sentence}",
        "Use the model's own tokenizer, or call model.resize_token_embeddings(len(tokenizer)) and "
        "save both.",
    ),
    "ids-outside-unused": Cause(
        "ids-outside",
        "note",
        "The tokenizer has a few ids for which the model's embedding has no row",
        "{sentence}",
        "Nothing, as long as no text holds them.",
    ),
    "stop-row-untrained": Cause(
        "stop-row-untrained",
        "note",
        "The stop token's row looks untrained",
        "The stop token is {detail}. Full tuning teaches it. LoRA on the linear layers alone "
        "cannot change that row, and such models often never stop (LLaMA-Factory#7943, qlora#214).",
        "With LoRA, also train the embedding, modules_to_save=['embed_tokens', 'lm_head'], or "
        "trainable_token_indices; and measure how many answers end.",
    ),
    "stop-row-frozen": Cause(
        "stop-row-untrained",
        "warning",
        "The adapter cannot change the stop token's row, which looks untrained",
        "The stop token is {detail}. The adapter has no part of the embedding or of the head: such "
        "models often never stop (LLaMA-Factory#7943, qlora#214).",
        "Measure how many answers end. If few do, train with modules_to_save=['embed_tokens', "
        "'lm_head'] or trainable_token_indices.",
    ),
    "adapter-refused": Cause(
        "adapter-refused",
        "error",
        "The adapter cannot be read",
        "The reason: {detail}.",
        "Give the folder that save_adapter or PEFT wrote, with both of its files.",
    ),
    "adapter-not-finite": Cause(
        "adapter-not-finite",
        "error",
        "The adapter holds numbers that are infinite or none (NaN)",
        "Every answer with it is noise. Tensors: {detail}.",
        "Take an earlier checkpoint, and train again with a lower rate or in bfloat16.",
    ),
    "adapter-inert": Cause(
        "adapter-inert",
        "error",
        "The adapter changes nothing: every B is zero",
        "It was never trained, or a fresh one was saved in its place, so the tuned model is the "
        "base (peft#793, peft#1142). B is zero in {detail}.",
        "Look at the training log; load with PeftModel.from_pretrained and not get_peft_model.",
    ),
    "adapter-keys": Cause(
        "adapter-keys",
        "error",
        "The adapter's tensors do not meet the layers of this model",
        "What has no layer is left out with a mere warning, and the answers are the base's "
        "(signet-trainer#105, peft#1579). {detail}.",
        "Load the base that it was trained on, and save it with save_adapter or PEFT's "
        "save_pretrained, which write the names that are read.",
    ),
    "adapter-other-base": Cause(
        "adapter-other-base",
        "error",
        "The adapter was trained on other weights",
        "An adapter is a difference: beside other weights it computes something else without a "
        "word. {sentence}",
        "Load the base of that run.",
    ),
    "adapter-other-name": Cause(
        "adapter-other-base",
        "warning",
        "The adapter's base may be another one",
        "{sentence} Beside other weights an adapter computes something else without a word.",
        "Make sure that both are the same weights.",
    ),
    "does-not-fit": Cause(
        "does-not-fit",
        "error",
        "A training step on the longest rows does not fit the card",
        "{detail}. The run would end with an out-of-memory error when the longest rows come.",
        "Take a smaller model or a larger card; or {changes}.",
    ),
    "memory": Cause(
        "memory",
        "note",
        "A training step on the longest rows fits the card after a change",
        "{detail}.",
        "To fit: {changes}.",
    ),
    "fits": Cause(
        "memory",
        "note",
        "A training step on the longest rows fits the card",
        "{detail}.",
        "Nothing.",
    ),
}

# where an error of sft_lab goes on with what to do, or with why: both stand in the cause
ADVICE = re.compile(
    r"(?:: (?:the model would never read it|it would be taught one way and asked another"
    r"|the model would learn to write|it would not be graded|remove them from the message"
    r"|load the weights of that run|model\.resize_token_embeddings)"
    r"|, so they would be graded"
    r"|\. (?:Let add_generation_prompt|Use a template|Put them around|Grade the last answer only"
    r"|Drop it, or put|Remove it from)).*",
    re.DOTALL,
)

# what the title, or the sentence before it, has said
SAID = re.compile(r"^a message would become a control token: |: the model never learns to stop")

CAUSES = OF_THE_TOKENIZER | OF_THE_TEMPLATE | OF_ROWS | OF_THE_FILES


def describe(
    cause: str, *, count: int = 0, places: list[str] | None = None, detail: str = "", **values: str
) -> Finding:
    """The finding for a cause. count: how many rows; 0 for what concerns all of them. detail: what
    is particular about the first one, such as the error of sft_lab that refuses it."""
    code, severity, *texts = CAUSES[cause]
    rows = "one row" if count == 1 else f"{count:,} rows" if count else "any conversation"
    values |= {"rows": rows, "detail": detail.removesuffix("."), "sentence": as_sentence(detail)}
    title, why, remedy = (text.format(**values).strip() for text in texts)
    if title.startswith(rows):
        title = title[:1].upper() + title[1:]
    return Finding(code, severity, title, places or [], count, why, remedy)


def as_sentence(text: str) -> str:
    """An error of sft_lab as a sentence: with a capital and a full stop, without its advice and
    without what a cause says already."""
    text = SAID.sub("", ADVICE.sub("", text)).strip()
    if text.partition(" ")[0].rstrip(",:").isalpha():  # no path, and no name of code
        text = text[0].upper() + text[1:]
    return text + "." * bool(text and text[-1] not in ".!?…")


def drop_repeats(findings: list[Finding]) -> list[Finding]:
    """The findings without those about no row that another one of the same code says better: with
    the rows, or more severely."""
    rank = SEVERITIES.index

    def is_said(found: Finding) -> bool:
        # a finding with rows may be just as severe
        return any(
            rank(other.severity) < rank(found.severity) + bool(other.count)
            for other in findings
            if other.code == found.code
        )

    return [found for found in findings if found.count or not is_said(found)]
