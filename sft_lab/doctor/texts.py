"""Station "doctor": what the text of one row shows by itself, without a model.

A rule looks for letters that nobody means to teach: a leftover of another template, half an emoji,
an answer that was never written. Data are of every kind, so each rule says here what it leaves
alone: code, lists of "Name: value", dialogues that were asked for, lessons about HTML.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from sft_lab.findings import Finding, Severity, Tally
from sft_lab.formats import format_number_of, format_percent
from sft_lab.records import Conversation

# Control tokens of known families: ChatML, Llama 2, 3 and 4, Mistral, Gemma, Phi, Zephyr, GLM,
# gpt-oss, DeepSeek. Left out: <s>, <unk> and <pad>, which are HTML's or stand in lessons.
PIPED = (  # between <| and |>
    "im_start im_end im_sep endoftext begin_of_text end_of_text start_header_id end_header_id "
    "header_start header_end eot_id eom_id eot user assistant system end endofprompt "
    "observation start message channel return START_OF_TURN_TOKEN END_OF_TURN_TOKEN"
)
OTHERS = (
    "[INST] [/INST] <<SYS>> <</SYS>> [TOOL_CALLS] [AVAILABLE_TOOLS] <start_of_turn> "
    "<end_of_turn> <bos> <eos> <｜User｜> <｜Assistant｜> <｜begin▁of▁sentence｜> "
    "<｜end▁of▁sentence｜>"
)
FAMILIES = {*(f"<|{name}|>" for name in re.findall(r"\S+", PIPED)), *re.findall(r"\S+", OTHERS)}
# limits on blanks and digits: without them a line of a million blanks would take hours
LINE = r"^[ \t>]{0,40}(?:[-*+]|\d{1,9}[.)])?[ \t]{0,40}"
FENCE = re.compile(LINE + r"(`{3,}|~{3,})([^`\n]*)$", re.MULTILINE)
LATE_FENCE = re.compile(r"(?<=[^`])(`{3,})\w*[ \t]{0,40}$", re.MULTILINE)
CODE = re.compile(LINE + r"(`{3,}|~{3,}).*?(?:\1|\Z)|`[^`\n]+`", re.DOTALL | re.MULTILINE)

# what no answer begins a line with on its own
HARD_MARKER = re.compile(
    r"^(?:#{2,}\s*(?:Instruction|Human|User|Question|Input|Prompt|Assistant|Response)\s*:"
    r"|<\|im_start\|>(?:user|system)|<\|(?:user|system)\|>|<start_of_turn>user"
    r"|\[INST\]|<\|start_header_id\|>user|<｜User｜>)",
    re.MULTILINE | re.IGNORECASE,
)
# what one does that writes a dialogue, or a list of names and values
SOFT_MARKER = re.compile(
    r"^(?:\*\*)?(?:User|Human|USER|HUMAN|Assistant|ASSISTANT|AI|用户|人类|助手)(?:\*\*)?\s?[:：]"
    r"(?=\s?\S|\s*$)",
    re.MULTILINE,
)
LABEL = re.compile(r"^[\s*#>\-\"']*[\w][\w \-()./']{0,30}(?:\*\*)?[:：]")
# a round of a chat, in a paragraph of its own
ROUND = re.compile(
    r"\n\n(?:User|Human|USER|HUMAN|用户|人类)\s?[:：].*\n+(?:Assistant|ASSISTANT|AI|助手)\s?[:：]"
)
DIALOGUE = re.compile(
    r"dialog|conversation|chat|transcript|script|screenplay|role.?play|interview|scene|"
    r"prompt|few.?shot|对话|聊天|剧本|采访|台词|提示词",
    re.IGNORECASE,
)

STUB = re.compile(
    r"\W*(?:to\s?do|tbd|tba|fixme|n\s*/\s*a|xxx+|placeholder|"
    r"(?:insert|add|your|the|enter|write|fill in|put)?\s*(?:your |the |an? )?"
    r"(?:answer|response|text|output)\s+(?:goes\s+)?here|answer pending|to be "
    r"(?:written|done|added|filled in|determined)|待补充|待填写|暂无|略)\W*",
    re.IGNORECASE | re.DOTALL,
)
TODO = re.compile(r"\W*(?:TODO|TBD|FIXME)\b\s*[:：\-]")
DOTS = re.compile(r"[\s.…。_?？*\-]+")
BOILERPLATE = re.compile(
    r"\W*(?:(?:i['’]?m sorry|i am sorry|sorry|i apologi[sz]e)\W+(?:but\W+)?)?as an? "
    r"(?:ai|artificial intelligence|large language|language)(?: (?:text-based|powered))? "
    r"?(?:language )?(?:model|assistant)\b|\W*作为一个?\s*(?:大型|大)?(?:AI|人工智能)?(?:语言)?模型"
    r"|\W*作为一个?\s*(?:AI|人工智能)(?:语言模型|助手|助理)",
    re.IGNORECASE,
)
LOREM = re.compile(r"\W*lorem ipsum", re.IGNORECASE)
ABOUT_STUBS = re.compile(r"lorem|placeholder|dummy text|filler|to-?\s?do|占位", re.IGNORECASE)

# UTF-8 that was read as Windows-1252 or Latin-1: a lead byte's letter, then letters of bytes 80-BF;
# or as GBK, in which "。", "的", "在", "“" and "，" become letters that no text has
CONT = (
    "[\x80-\xbf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d"
    "\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178]"
)
MOJIBAKE = re.compile(
    # of é, ü, ñ; a closing quotation mark after a capital is no accent: «IRMÃ»
    rf"Ã(?!»){CONT}|Â[\xa0-\xb6\xb8-\xba\xbc-\xbf]|â€{CONT}|â€|â[„†ˆ‰]{CONT}|ðŸ{CONT}|ï[¼½»]{CONT}"
    rf"|(?:[ÎÏÐÑ×ØÙÚÛ]{CONT}){{2}}|(?:[à-í]{CONT}{CONT}){{2}}|锟斤拷|烫烫烫|[銆鐨鍦鈥锛]|\ufffd"
)
# zero-width space, joiner and non-joiner, direction marks, soft hyphen, word joiner, BOM, tags
HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069"
    "\ufeff\U000e0001-\U000e007f]"
)
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
NAMES = {
    "\x00": "NUL",
    "\u00ad": "a soft hyphen",
    "\u200b": "a zero-width space",
    "\u200c": "a zero-width non-joiner",
    "\u200d": "a zero-width joiner",
    "\u2060": "a word joiner",
    "\ufeff": "a byte-order mark",
}
DIRECTIONS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]")
# scripts that join letters, or that are written without spaces between words
JOINED = re.compile("[\u0600-\u109f\u1780-\u18af\u1950-\u1aaf\ua8e0-\ua8ff\ufb50-\ufefc]")
EMOJI = re.compile("[\u2190-\u2bff\u3030\u303d\ufe0f\U0001f000-\U0001faff]")

ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|#0?39|#x27|#34|#160|#8217);")
ABOUT_HTML = re.compile(
    r"html|xml|entit|escap|encod|web ?page|markup|svg|jsx|rss|实体|转义|网页", re.IGNORECASE
)
TAG = re.compile(r"</?(?!think>)[a-zA-Z][\w:-]*(?:\s[^<>\n]*)?/?>")
SENTENCE_END = re.compile(r"[.?!。？！][\"'”’)\]]*$")
COMPLETED = tuple(":：{([=,，\\-&|+*/<")


class Rule(NamedTuple):
    """How a finding of one code is told. one, many: the title for one row and for {n} of them."""

    severity: Severity
    one: str
    many: str
    why: str
    remedy: str


RULES = {
    "control-token": Rule(
        "warning",
        "1 row holds the letters of a control token",
        "{n} rows hold the letters of a control token",
        "Tokenizers find a control token wherever its letters stand, so a message could end its "
        "own turn or open another. This course's encoding keeps letters letters; most trainers do "
        "not.",
        "If it is left over from a chat log that was rendered before, strip it. If the row teaches "
        "about templates, check how your trainer encodes it.",
    ),
    "turn-marker": Rule(
        "warning",
        "1 answer goes on with another turn",
        "{n} answers go on with another turn",
        "The model learns to write the user's next question itself and to answer it, instead of "
        "stopping.",
        "Cut the answer before the marker, or split it into turns of their own.",
    ),
    "echo": Rule(
        "warning",
        "1 answer repeats its question",
        "{n} answers repeat their question",
        "The model learns to say the question again before, or instead of, answering it. Often "
        "prompt and output were joined when the data were generated.",
        "Cut the question from the beginning of the answer. Where nothing is left, write the "
        "answer or drop the row.",
    ),
    "placeholder": Rule(
        "warning",
        "1 answer is a placeholder or boilerplate",
        "{n} answers are placeholders or boilerplate",
        "A placeholder is learned like any other answer, and boilerplate of another model is "
        "learned fast: a few rows are enough to hear it again.",
        "Write the answer, or drop the row.",
    ),
    "encoding": Rule(
        "warning",
        "1 row holds text in a broken encoding",
        "{n} rows hold text in a broken encoding",
        "UTF-8 was read as another encoding, or characters were lost (U+FFFD). The model learns to "
        "write the broken letters.",
        "Read the source again as UTF-8. The package ftfy repairs most of what was read wrongly; "
        "what became U+FFFD is lost.",
    ),
    "invisible": Rule(
        "warning",
        "1 row holds invisible characters",
        "{n} rows hold invisible characters",
        "Nobody sees them, but they are tokens: words with one inside are other words to the "
        "model, and it learns to write them.",
        "Remove them; a word processor, a PDF or a web page put them in.",
    ),
    "think-unclosed": Rule(
        "error",
        "1 answer opens <think> and does not close it",
        "{n} answers open <think> and do not close it",
        "The model learns to think without an end, and a server that hides thoughts hides the "
        "answer too. Usually the text was cut at a length limit.",
        "Generate the answer again with a larger limit, or drop the row.",
    ),
    "think-unopened": Rule(
        "warning",
        "1 answer closes </think> without having opened it",
        "{n} answers close </think> without having opened it",
        "That is right only under a template whose generation prompt ends with <think>. Under any "
        "other the thoughts are learned as the answer.",
        "Put <think> before the thoughts, unless your template writes it.",
    ),
    "think-alone": Rule(
        "warning",
        "1 answer ends after its thoughts",
        "{n} answers end after their thoughts",
        "Nothing stands behind </think>: the model learns to think and to say nothing, and whoever "
        "reads the answers without the thoughts sees them empty. Usually the text was cut at a "
        "length limit, or the answer stands in another column.",
        "Write the answer behind </think>, or drop the row.",
    ),
    "fence-unclosed": Rule(
        "warning",
        "1 answer opens a code fence and does not close it",
        "{n} answers open a code fence and do not close it",
        "Usually the code was cut at a length limit. The model learns to stop in the middle of it, "
        "and a page shows all that follows as code.",
        "Close the fence where the code is whole; else generate the answer again or drop the row.",
    ),
    "edge-space": Rule(
        "warning",
        "1 answer begins or ends with white space",
        "{n} answers begin or end with white space",
        "White space is a token of its own, or changes the first one: templates that strip it and "
        "templates that do not then teach two different answers.",
        "Strip the answers, unless the space is meant (code that goes on inside a line).",
    ),
    "html": Rule(
        "warning",
        "1 row holds HTML entities in plain text",
        "{n} rows hold HTML entities in plain text",
        'The text was taken from a web page and not unescaped; the model learns to write "&amp;" '
        "for an ampersand.",
        "Unescape the texts: html.unescape(text).",
    ),
}


class TextCheck:
    """The rules above, on one conversation after the other.

    letters: the control tokens of a tokenizer, () for none; allowed: those that an answer may hold.
    """

    def __init__(self, letters: Iterable[str] = (), allowed: Iterable[str] = ()) -> None:
        # one letter, or a word, is no trace of a template
        marks = {text for text in letters if len(text) > 2 and not text.isalnum()} - {*allowed}
        known = sorted({*FAMILIES, *marks} - {"<think>", "</think>"}, key=len, reverse=True)
        self.letters = re.compile("|".join(re.escape(text) for text in known))
        self.tally = Tally()
        self.shown: Counter[str] = Counter()  # what varies within a code: tokens, characters
        self.answers: Counter[str] = Counter()

    def look(self, place: str, conversation: Conversation) -> None:
        found: dict[str, str] = {}
        asked, about = "", ""
        for turn in conversation:
            text = turn["content"]
            for code, sample in self._look_at_text(text, about):
                found.setdefault(code, sample)
            if turn["role"] != "assistant":
                about += text + "\n"
                asked = text
            elif turn.get("weight") != 0:
                for code, sample in look_at_answer(text, asked, about):
                    found.setdefault(code, sample)
                    if code == "placeholder":
                        self.answers[f"stub {sample.casefold()}"] += 1
                self.answers["short"] += len(text) <= 24
                self.answers["all"] += 1
        thinks = "<think>" in conversation[-1]["content"]
        thinks |= bool(conversation[-1].get("reasoning_content"))
        self.tally.add("thinks" if thinks else "does not think", place)
        for code, sample in found.items():
            self.tally.add(code, place, sample)

    def _look_at_text(self, text: str, about: str) -> Iterable[tuple[str, str]]:
        """What is wrong with a message of any role."""
        if "<" in text or "[" in text:
            if letters := self.letters.search(text):
                self.shown[letters[0]] += 1
                yield "control-token", show_around(text, letters.start(), letters.end())
            elif tag := find_sentence_tag(text):
                self.shown[tag] += 1
                yield "control-token", show_around(text, text.index(tag), text.index(tag))
        if "&" in text and (entity := find_entity(text, about)):
            yield "html", show_around(text, entity.start(), entity.end())
        if text.isascii():
            hidden = CONTROL.search(text)
        else:
            if broken := MOJIBAKE.search(text):
                yield "encoding", show_around(text, broken.start(), broken.end())
            hidden = find_hidden(text)
        if hidden:
            name = NAMES.get(hidden[0], f"U+{ord(hidden[0]):04X}")
            yield "invisible", f"{name} in {show_around(text, hidden.start(), hidden.end())}"

    def findings(self) -> list[Finding]:
        codes = [code for code in RULES if self.tally.counts[code]]
        return [self._tell(code) for code in codes if not self._is_label(code)] + self._tell_mixed()

    def _is_label(self, code: str) -> bool:
        """Whether what looks like a placeholder is a class: of data with short answers, many rows
        have it, word for word."""
        if code != "placeholder":
            return False
        stubs = {text: n for text, n in self.answers.items() if text.startswith("stub ")}
        text, count = max(stubs.items(), key=lambda item: item[1])
        short = self.answers["short"] > 0.8 * self.answers["all"] and len(text) <= 24
        return short and count > 4 and count > 0.05 * self.answers["all"]

    def _tell(self, code: str) -> Finding:
        severity, one, many, why, remedy = RULES[code]
        count = self.tally.counts[code]
        title = one if count == 1 else many.format(n=f"{count:,}")
        if code == "control-token":
            title += ": " + ", ".join(text for text, _ in self.shown.most_common(3))
        return Finding(
            code,
            severity,
            title,
            self.tally.places[code],
            count,
            f"{why} First seen: {self.tally.samples[code]}",
            remedy,
        )

    def _tell_mixed(self) -> list[Finding]:
        thinks, plain = (self.tally.counts[key] for key in ("thinks", "does not think"))
        share = thinks / max(1, thinks + plain)
        if not 0.05 <= share <= 0.95:
            return []
        fewer = "thinks" if thinks < plain else "does not think"
        return [
            Finding(
                "think-mixed",
                "warning",
                f"{format_percent(share)} of the rows have a think block in their answer, "
                f"{format_number_of(plain, 'row')} none",
                self.tally.places[fewer],
                min(thinks, plain),
                "Nothing in the question says which is wanted, so the model learns to think by "
                "chance. The places name the rarer kind.",
                "Give every answer a think block or none, or say in the system turn or the "
                "question which is wanted (/think, /no_think).",
            )
        ]

    def measured(self) -> dict[str, Any]:
        thinks = self.tally.counts["thinks"]
        return {"answers": self.answers["all"], "rows with thoughts": thinks}

    def state(self) -> dict[str, Any]:
        return {
            "tally": self.tally.to_dict(),
            "shown": dict(self.shown),
            "answers": dict(self.answers),
        }

    def absorb(self, state: dict[str, Any], order: dict[str, int]) -> None:
        self.tally.absorb(Tally.of(state["tally"]), order)
        self.shown.update(state["shown"])
        self.answers.update(state["answers"])


def look_at_answer(text: str, asked: str, about: str) -> Iterable[tuple[str, str]]:
    """What is wrong with an answer to learn. asked: the question before it; about: all that was
    asked so far and the system turn."""
    alone = ends_with_thoughts(text)
    # the blanks behind </think> are no answer's edge
    edges = text[:1] if alone else text[:1] + text[-1:]
    if any(map(str.isspace, edges)) and not is_indented(text):
        yield "edge-space", repr(text[:30] if text[0].isspace() else text[-30:])
    if (marker := find_turn_marker(text, about)) is not None:
        yield "turn-marker", show_around(text, marker.start(), marker.end() + 20)
    if is_echo(text, asked):
        yield "echo", repr(text[: len(asked) + 20])[:80]
    if is_placeholder(text.rpartition("</think>")[2], about):
        yield "placeholder", repr(text[:60])
    if ("```" in text or "~~~" in text) and has_open_fence(text):
        yield "fence-unclosed", repr(text[max(0, text.rfind("```") - 10) :][:60])
    if "think>" in text:
        plain = CODE.sub("", text)
        opened, closed = plain.count("<think>"), plain.count("</think>")
        if opened > closed:
            yield "think-unclosed", repr(text[:60])
        elif closed > opened:
            yield "think-unopened", repr(text[max(0, text.find("</think>") - 30) :][:60])
    if alone:
        yield "think-alone", repr(text[-60:])


def ends_with_thoughts(text: str) -> bool:
    """Whether a think block is all there is of an answer."""
    thoughts, closed, answer = text.rpartition("</think>")
    return bool(closed and thoughts.strip()) and not answer.strip()


def find_sentence_tag(text: str) -> str:
    """<s> at the very beginning, </s> at the very end; "" for neither, and for both, as HTML has
    them."""
    if "<s>" in text and "</s>" in text:
        return ""
    opened, closed = text.lstrip().startswith("<s>"), text.rstrip().endswith("</s>")
    return "<s>" if opened else "</s>" if closed else ""


def show_around(text: str, first: int, last: int) -> str:
    """The place of something in a text, with a little on either side, as Python writes it."""
    return ascii_controls(repr(text[max(0, first - 15) : last + 15]))


def ascii_controls(text: str) -> str:
    """The text with what nobody sees written as \\uXXXX."""
    return HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def is_indented(text: str) -> bool:
    """Whether white space at the edge is code's: every line of several is indented."""
    lines = [line for line in text.splitlines() if line.strip()]
    if text[0] == " " != text[1:2]:  # one blank is no indentation
        return False
    return len(lines) > 1 and all(line[0].isspace() for line in lines) and text == text.rstrip()


def find_turn_marker(text: str, about: str) -> re.Match | None:
    """Where an answer goes on with another turn.

    "### Instruction:" is one anywhere. "User:" is none in code, in an answer that begins with a
    name and a colon itself (a dialogue, a list of fields) unless a whole round stands apart in it,
    or where a dialogue was asked for.
    """
    if "\n" not in text and text[:1] not in "#<[":
        return None
    found = HARD_MARKER.search(text)
    if found is None and "User" not in text and not SOFT_MARKER.search(text):
        return None
    code = [part.span() for part in CODE.finditer(text)]
    for found in HARD_MARKER.finditer(text):
        if not any(first <= found.start() < last for first, last in code):
            return found
    first_line = text.lstrip().split("\n", 1)[0]
    if DIALOGUE.search(about) or SOFT_MARKER.match(first_line):
        return None
    if is_labelled(first_line) and not ROUND.search(text):
        return None
    for found in SOFT_MARKER.finditer(text):
        inside = any(first <= found.start() < last for first, last in code)
        if found.start() and not inside and not is_field(text, found.start()):
            return found
    return None


def is_labelled(line: str) -> bool:
    """Whether a line is "Name: value", the name one word or two."""
    label = LABEL.match(line)
    if not label or "(" in label[0] or len(label[0].split()) > 2:
        return False
    value = line[label.end() :]
    return bool(value.strip()) and (value[0].isspace() or label[0][-1] == "：")


def is_field(text: str, place: int) -> bool:
    """Whether the line at `place` is one of a list of fields: the line before it is "Name: value",
    with another name than a speaker's."""
    before = text[:place].rstrip("\n").rpartition("\n")[2]
    return is_labelled(before) and not SOFT_MARKER.match(before) and "\n\n" not in text


def is_echo(text: str, asked: str) -> bool:
    """Whether an answer begins with its whole question.

    Not where the question is a beginning to be continued: it has no sentence end, and the answer
    goes on in its line (a line of code, "2 + 2 =").
    """
    asked, text = asked.strip(), text.lstrip()
    if text[:8].casefold() != asked[:8].casefold() or len(asked) > len(text) + 1:
        return False
    question, answer = " ".join(asked.split()).casefold(), " ".join(text.split()).casefold()
    least = 3 if question == answer else 4
    long_enough = len(question.split()) >= least or len(question) > 7 and not question.isascii()
    if not long_enough or not answer.startswith(question.rstrip(".?!。？！")):
        return False
    if SENTENCE_END.search(question):
        return answer.startswith(question) or answer == question.rstrip(".?!。？！")
    rest = text[len(asked) :]
    return (
        not question.endswith(COMPLETED) and re.match(r"\s*$|[ \t]*\n(?![ \t])", rest) is not None
    )


def is_placeholder(text: str, about: str) -> bool:
    """Whether an answer was never written, or begins as another model's refusals do."""
    text = text[:400].strip()
    if len(text) < 40 and (STUB.fullmatch(text) or DOTS.fullmatch(text)):
        return True
    if BOILERPLATE.match(text):
        return True
    if LOREM.match(text) or TODO.match(text) and len(text) < 80:
        return not ABOUT_STUBS.search(about)
    return False


def has_open_fence(text: str) -> bool:
    """Whether a code fence is open at the end of a text, as CommonMark reads it: a fence is closed
    by one at least as long, without a word after it."""
    fences = [(found.start(1), found[1], found[2].strip()) for found in FENCE.finditer(text)]
    for found in LATE_FENCE.finditer(text):
        before = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
        if before.strip() and "`" not in before and not FENCE.match(before + found[0]):
            fences.append((found.start(), found[1], "late"))
    fence = ""
    for _, marks, info in sorted(fences):
        if not fence:
            fence = marks
        # "late": code whose last line ends with the fence
        elif info in ("", "late") and marks[0] == fence[0] and len(marks) >= len(fence):
            fence = ""
    return bool(fence)


def find_hidden(text: str) -> re.Match | None:
    """The first character that nobody sees and nobody needs."""
    for found in HIDDEN.finditer(text):
        mark = found[0]
        around = text[max(0, found.start() - 1) : found.end() + 1].replace(mark, "")
        if mark in DIRECTIONS and RIGHT_TO_LEFT.search(text):
            continue
        if mark in "\u200b\u200c\u200d" and JOINED.search(around):
            continue
        if mark == "\u200d" and EMOJI.search(around):
            continue
        if mark >= "\U000e0001" and "\U0001f3f4" in text:  # flags of Scotland and Wales
            continue
        return found
    return None


def find_entity(text: str, about: str) -> re.Match | None:
    """The first HTML entity in a text that is neither code, nor HTML, nor about it."""
    found = ENTITY.search(text)
    if not found or ABOUT_HTML.search(about or text) or ABOUT_HTML.search(text):
        return None
    plain = CODE.sub(lambda code: " " * len(code[0]), text)
    if any("think" not in tag[0] for tag in TAG.finditer(plain)):
        return None
    return ENTITY.search(plain)
