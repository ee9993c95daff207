"""What honest data sets say, for the tests of the doctor: texts of many kinds, none spoiled.

Each function gives conversations of 64 rows or so, the same ones every time; no question stands
twice with the same turns before it. Many hold what looks like a fault and is none: a YAML file
with a user in it, "3 - 4" beside "3 + 4", labels of one length, joiners that Persian needs.
"""

import json
import random
from collections.abc import Callable
from itertools import product
from pathlib import Path

from sft_lab.atlas import ask, ask_skill, load_facts, split

ROOT = Path(__file__).resolve().parent.parent
ROWS = 64
Conversations = list[list[dict[str, str]]]


def pair(question: str, answer: str, *, system: str = "") -> list[dict[str, str]]:
    before = [{"role": "system", "content": system}] if system else []
    return [
        *before,
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


def draw(name: str, *columns: list, count: int = ROWS) -> list[tuple]:
    """`count` different combinations, in an order that the name decides."""
    combinations = list(product(*columns))
    assert len(combinations) >= count, f"{name}: only {len(combinations)} combinations"
    return random.Random(name).sample(combinations, count)


def alpaca(language: str, count: int = ROWS, first: int = 0) -> Conversations:
    """Rows of the course's own instructions: instruction, line break, input."""
    path = ROOT / "data" / "instructions" / f"{language}.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rows = [row for row in rows if row["split"] == "train"][first : first + count]
    return [
        pair("\n".join(part for part in (row["instruction"], row["input"]) if part), row["output"])
        for row in rows
    ]


def english() -> Conversations:
    return alpaca("english")


def chinese() -> Conversations:
    return alpaca("chinese")


def with_input() -> Conversations:
    return [turns for turns in alpaca("english", 300) if "\n" in turns[0]["content"]][:ROWS]


def atlas() -> Conversations:
    facts = split(load_facts())["train"]
    chosen = random.Random(1).sample(facts, 40)
    some = ask(chosen, seed=2)
    for skill in ("list", "json", "read", "notes"):
        some += ask_skill(skill, facts, 8, seed=3)
    return list({turns[0]["content"]: turns for turns in some}.values())[:ROWS]


CITIES = ["Lisbon", "Oslo", "Kyoto", "Nairobi", "Lima", "Prague", "Hanoi", "Quebec", "Perth"]
FOODS = ["lentil soup", "apple cake", "fried rice", "flatbread", "bean salad", "onion tart"]
NAMES = ["Ida", "Karim", "Mei", "Tom", "Amara", "Luis", "Noor", "Pavel", "Sofia", "Yuki"]
NOUNS = ["bicycle", "kettle", "lamp", "backpack", "headset", "blender", "notebook", "umbrella"]


def several_turns() -> Conversations:
    """Greetings that many conversations share, then questions that they do not."""
    rows = []
    for city, days, name in draw("turns", CITIES, [2, 3, 4, 5], NAMES[:4]):
        turns = pair("Hi!", "Hello! What can I do for you?")
        turns += pair(
            f"I want to see {city} in {days} days with {name}.",
            f"{days} days are enough for the old town of {city}, one museum and a day trip. "
            f"Does {name} like long walks?",
        )
        turns += pair(
            f"{name} prefers trains.",
            f"Then take the train out of {city} on day {days}: buy the tickets for {name} a week "
            "before, they are cheaper.",
        )
        if days > 3:
            turns += pair("Thanks!", f"You are welcome. Enjoy {city}, all {days} days of it!")
        rows.append(turns)
    return rows


VOICES = {
    "You are a pirate. Answer in one sentence.": "Arr, {}, and I'll sail on it!",
    "You are a strict accountant.": "For the record: {}.",
    "Answer like a patient primary-school teacher.": "Good question! You see, {}.",
    "You answer in a formal tone.": "It can be stated that {}.",
}
TRUTHS = [
    ("Why do ships float?", "a ship pushes away as much water as it weighs"),
    ("Why is the sea salty?", "rivers bring a little salt and the water leaves without it"),
    ("What is a receipt for?", "it shows what was bought, when, and for how much"),
    ("Why do leaves turn yellow?", "the green pigment breaks down first in autumn"),
    ("What is interest?", "it is the price of borrowing money"),
    ("How does a compass work?", "its needle is a magnet that follows the Earth's field"),
    ("Why does iron rust?", "iron binds oxygen where there is water"),
    ("What is a budget?", "it is a plan of what comes in and what goes out"),
    ("Why do we have time zones?", "noon comes at another moment at every longitude"),
    ("What is an echo?", "it is sound that comes back from a wall"),
    ("Why does bread rise?", "yeast makes gas that the dough holds"),
    ("What makes thunder?", "lightning heats the air so fast that it bursts outwards"),
    ("Why is ice slippery?", "its top layer is softer than the ice below"),
    ("What is insurance?", "many pay a little so that the few with bad luck are paid"),
    ("Why do cats purr?", "muscles of the larynx twitch as they breathe"),
    ("What is a leap year?", "a year with one day more keeps the calendar with the Sun"),
]


def personas() -> Conversations:
    """The same question under other system turns has other answers, and that is no conflict."""
    return [
        pair(question, VOICES[voice].format(truth), system=voice)
        for voice, (question, truth) in product(VOICES, TRUTHS)
    ]


def turns_with_system() -> Conversations:
    return [
        [{"role": "system", "content": list(VOICES)[number % 4]}, *turns]
        for number, turns in enumerate(several_turns())
    ]


FAMILY = "👨\u200d👩\u200d👧\u200d👦"
FLAGS = "🏳\ufe0f\u200d🌈 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f 1\ufe0f⃣"
WORLD = [
    (
        "{n}さんに「おはようございます😀」と書いてください。第{k}回",
        "{n}さん、おはようございます😀！第{k}回も頑張りましょう。",
    ),
    ("「か\u3099」ではなく「が」です。{n}{k}", "はい、{n}さん。例文：学生が{k}人います。🎓"),
    (
        "سلام {n}، شماره {k} را می\u200cخواهم.",
        "شماره {k} را می\u200cفرستم؛ کتاب\u200cها آماده\u200cاند.",
    ),
    ("{n}, क्या आप {k} किताबें भेज सकते हैं?", "हाँ, {n}, मैं {k} किताबें आज ही भेज दूँगा। क्\u200dष 🙏"),
    ("يا {n}، ما رقم الغرفة {k}؟", "الغرفة رقم {k} في الطابق الثاني يا {n}."),
    ("{n} ขอหนังสือ {k} เล่มครับ", "ได้ครับ {n} หนังสือ {k} เล่มจะส่งพรุ่งนี้"),
    (
        "{n}, QUAL É A MAIOR CIDADE? NÃO SEI. ({k})",
        "SÃO PAULO, {n}. AÇÃO, PÃO, MAÇÃ, ÂNGULO. ({k})",
    ),
    (
        "{n} demande\u00a0: combien font {k}\u00a0€\u202f?",
        "{n}, à peu près {k}\u00a0€ — déjà payés\u202f!",
    ),
    ("{n}에게 사과 {k}개를 주세요.", "네, {n}님. 사과 {k}개를 드렸습니다. 🍎"),
    ("{n}, сколько будет {k} яблок?", "{n}, будет {k} яблок — ещё не так много."),
    (FAMILY + " {n} {k}?", "{n}: " + FAMILY + " = 4 × 🙂, {k}, " + FLAGS),
    (
        "Hvor mange øre får {n} for {k} kroner? Bitte auf Deutsch.",
        "{n} bekommt {k}00 Øre – das heißt „hundert je Krone“.",
    ),
]


def world() -> Conversations:
    """Scripts of the world, with the joiners, blanks and selectors that they need."""
    import unicodedata

    rows = [
        pair(question.format(n=name, k=number), answer.format(n=name, k=number))
        for (question, answer), name, number in draw("world", WORLD, NAMES[:6], [12, 30, 45])
    ]
    for turns in rows:  # what a tokenizer's NFC would change is another matter
        for turn in turns:
            turn["content"] = unicodedata.normalize("NFC", turn["content"])
    return rows


CODE = [
    ("Write a generic Java method that returns the {a} of a list of {b}s.",
     "public static <T extends Comparable<T>> T {a}(List<T> {b}s) {{\n    T best = {b}s.get(0);\n"
     "    for (T item : {b}s) if (item.compareTo(best) > 0) best = item;\n    return best;\n}}"),
    ("In C++, map every {b} to its {a}.",
     "std::map<std::string, std::vector<int>> {a}_of_{b};\nfor (auto it = {b}s.begin(); it != "
     "{b}s.end(); ++it)\n    {a}_of_{b}[it->name] << it->value;  // 1 << 2 && x <= 3"),
    ("Parse a {b} or a {a} in Haskell.",
     "parser :: Parser Token\nparser = {b} <|> {a}\n  where {b} = Word <$> many1 letter"),
    ("Pipe the {b}s to {a} in F#.", "{b}s |> List.map (fun x -> x * 2) |> List.{a} <| 0"),
    ("Show a React component for the {a} of a {b}.",
     "export function {a}{b}<T>({{ items }}: Props<T>) {{\n  return <ul className=\"{b}\">"
     "{{items.map(i => <li key={{i.id}}>{{i.{a}}}</li>)}}</ul>;\n}}"),
    ("Count each {b} by {a} in SQL.",
     "SELECT {a}, COUNT(*) AS n\nFROM {b}s\nWHERE size <> 0 AND size >= 3\nGROUP BY {a};"),
    ("What does `{a} < {b} > 2` print in Python?",
     "Python chains comparisons: `{a} < {b} > 2` means `{a} < {b} and {b} > 2`."),
    ("Write a Python function `{a}` for a {b}, with a test.",
     "def {a}({b}: list[int]) -> int:\n\t# TODO comments stay in code\n\treturn max({b}) if {b} "
     "else 0\n\n\nassert {a}([1, 3]) == 3"),
]  # fmt: skip
VERBS = ["total", "largest", "first", "median", "spread"]
THINGS = ["order", "sensor", "player", "parcel", "invoice"]


def code() -> Conversations:
    return [
        pair(question.format(a=verb, b=thing), answer.format(a=verb, b=thing))
        for (question, answer), verb, thing in draw("code", CODE, VERBS, THINGS)
    ]


def web() -> Conversations:
    """HTML in and outside of fences; entities stand where the code needs them."""
    rows = []
    for tag, noun, name in draw("web", ["div", "section", "article", "nav"], NOUNS, NAMES[:4]):
        html = (
            f'<{tag} class="{noun}">\n  <h2>{name} &amp; {noun}</h2>\n  <p>1 &lt; 2<br></p>\n'
            f"</{tag}>"
        )
        rows.append(
            pair(
                f"Write a <{tag}> for the {noun} of {name}, with a heading.",
                f"Here is the markup:\n\n```html\n{html}\n```\n\nThe class is `{noun}`.",
            )
        )
    return rows


MARKDOWN = [
    ("How do I cook {food} for {n}?",
     "## {food}\n\n### Ingredients:\n\n- {n} onions\n- **salt**\n\n### Instructions:\n\n1. Chop.\n"
     "2. Cook for {n}0 minutes.\n\n> Serves {n}."),
    ("Show a shell session that makes a folder for {food}, step {n}.",
     "```bash\n$ mkdir step-{n}\n$ ls\nstep-{n}\n```\n\nand then\n\n```\necho {food}\n```"),
    ("How do I quote a code block with {n} lines about {food} in Markdown?",
     "Use four backticks outside:\n\n````markdown\n```text\n{food} {n}\n```\n````"),
    ("Which marks open a code block? I write about {food}, chapter {n}.",
     "Three backticks (```) on a line of their own; chapter {n} on {food} needs the same again."),
    ("Compare {food} for {n} days in a table.",
     "| day | {food} |\n|:---|---:|\n| 1 | fresh |\n| {n} | *stale* |\n\n---\n\nDone."),
    ("List {n} facts on {food}.",
     "* it is warm\n* it feeds {n}\n  ```text\n  {food}\n  ```\n* it keeps"),
]  # fmt: skip


def markdown() -> Conversations:
    return [
        pair(question.format(food=food, n=number), answer.format(food=food, n=number))
        for (question, answer), food, number in draw("markdown", MARKDOWN, FOODS, [2, 3, 4, 6])
    ]


def json_answers() -> Conversations:
    rows = []
    for name, noun, number in draw("json", NAMES, NOUNS, [1, 2, 3, 12]):
        record = {"name": name, "item": noun, "count": number, "paid": number > 2, "note": None}
        text = f"{name} ordered {number} × {noun} on Monday."
        answer = json.dumps(record, indent=2 if number > 2 else None)
        rows.append(pair(f"Extract the order as JSON.\n{text}", answer))
    return rows


OPINIONS = {
    "positive": ["works as promised", "is worth every cent", "still runs after a year"],
    "negative": ["broke on day two", "smells of plastic", "came without a manual"],
}


def two_labels() -> Conversations:
    """Both labels have eight letters: all answers are of the greatest length, and none is cut."""
    said = [(text, label) for label, texts in OPINIONS.items() for text in texts]
    return [
        pair(f"Sentiment of this review?\n{name}: The {noun} {text}.", label)
        for (text, label), noun, name in draw("labels", said, NOUNS, NAMES[:4])
    ]


HEADLINES = {
    "sports": ["{n} wins the relay in {c}", "{c} signs goalkeeper {n}"],
    "business": ["{n} opens a {g} factory in {c}", "{c}: {g} prices fall, says {n}"],
    "science": ["{n} finds a new moss near {c}", "{c} lab of {n} cools a chip"],
    "world": ["{c} elects mayor {n}", "{n} leads the talks in {c}"],
}


def four_labels() -> Conversations:
    said = [(text, label) for label, texts in HEADLINES.items() for text in texts]
    return [
        pair(
            "Label the headline sports, business, science or world.\n"
            + text.format(n=name, c=city, g="kettle"),
            label,
        )
        for (text, label), name, city in draw("headlines", said, NAMES, CITIES)
    ]


def choices() -> Conversations:
    rows = []
    for number, (city, name, noun) in enumerate(draw("choices", CITIES, NAMES, NOUNS)):
        options = [city, f"{name}'s {noun}", "the sea", "nobody"]
        shift = number % 4
        options = options[shift:] + options[:shift]
        listed = "\n".join(
            f"{letter}) {text}" for letter, text in zip("ABCD", options, strict=True)
        )
        question = f"Which of these is a city? (quiz {number + 1})\n{listed}"
        rows.append(pair(question, "ABCD"[options.index(city)]))
    return rows


SENTENCES = [
    "The {g} of {n} stood in the hall in {c} for {k} years.",
    "Nobody in {c} remembered who had brought the {g}, and {n} did not ask.",
    "On day {k}, {n} took the train from {c} with the {g} in a bag.",
    "It rained; {n} counted {k} lamps along the road out of {c}.",
    "A neighbour offered {k} coins for the {g}, which {n} refused politely.",
    "In {c} the markets close at {k}, so {n} hurried.",
    "The {g} was heavier than it looked: {k} pounds, said {n}.",
    "Later, in {c}, people would tell of {n} and of the {g}, and laugh.",
]


def story(rng: random.Random, sentences: int) -> str:
    told = []
    for _ in range(sentences):
        text = rng.choice(SENTENCES).format(
            n=rng.choice(NAMES), c=rng.choice(CITIES), g=rng.choice(NOUNS), k=rng.randint(2, 90)
        )
        told.append(text + ("\n\n" if rng.random() < 0.15 else " "))
    return "".join(told).strip()


def long_rows(sentences: int = 10) -> Conversations:
    rng = random.Random(sentences)
    return [
        pair(
            f"Go on with story {number + 1}.\n{story(rng, sentences)}",
            story(rng, sentences + number % 5),
        )
        for number in range(ROWS)
    ]


def very_long_rows() -> Conversations:
    return long_rows(35)


OPPOSITES = """hot cold, big small, up down, left right, day night, wet dry, old new, fast slow,
high low, open shut, full empty, hard soft, loud quiet, rich poor, early late, near far, thick thin,
light dark, sweet sour, clean dirty, first last, long short, true false, warm cool, strong weak,
push pull, give take, win lose, buy sell, come go, begin end, ask answer, love hate, laugh cry,
rise fall, young aged, sharp blunt, deep shallow, wide narrow, brave timid, kind cruel,
smooth rough, tight loose,
safe risky, busy idle, north south, east west, inside outside, before after, more less,
many few, all none, always never, in out, on off, over under, here there, friend foe, war peace,
heaven hell, king queen, summer winter, city village, question reply"""


def short_rows() -> Conversations:
    words = [entry.split() for entry in OPPOSITES.replace("\n", " ").split(", ")]
    return [pair(first, second) for first, second in words]


def arithmetic() -> Conversations:
    """Questions that differ in a sign or a point alone."""
    rows = []
    for a, b in ((12, 4), (3, 15), (8, 2), (40, 5), (9, 36), (7, 21), (16, 8), (11, 22), (6, 30)):
        for sign, value in (("+", a + b), ("-", a - b), ("×", a * b), ("÷", a / b)):
            rows.append(pair(f"What is {a} {sign} {b}?", f"{value:g}"))
        rows.append(pair(f"What is -{a} + {b}?", f"{b - a}"))
        rows.append(pair(f"What is {a / 10:g} + {b}?", f"{a / 10 + b:g}"))
        rows.append(pair(f"What is ({a} + {b}) × 2?", f"({a} + {b}) × 2 = {2 * (a + b)}"))
        rows.append(pair(f"Is {a} > {b}?", "yes" if a > b else "no"))
    return rows[:68]


LANGUAGES = [
    ("C", "a small language near the machine"),
    ("C++", "C with classes and templates"),
    ("C#", "Microsoft's language for .NET"),
    ("F", "a subset of Fortran"),
    ("F#", "a functional language for .NET"),
    ("R", "a language for statistics"),
    ("J", "an array language"),
    ("J#", "Microsoft's old Java for .NET"),
]


def languages() -> Conversations:
    """Names and emoji that lose their difference with their punctuation."""
    rows = [pair(f"What is {name}?", f"{name} is {what}.") for name, what in LANGUAGES]
    rows += [pair(f"Who uses {name}?", f"Whoever needs {what}.") for name, what in LANGUAGES]
    faces = (
        "😀 happy,😢 sad,😡 angry,😴 sleepy,🤔 doubtful,😱 afraid,🥶 cold,🤢 sick,😎 cool,🥳 merry"
    )
    for entry in faces.split(","):
        face, word = entry.split()
        rows.append(pair(face, word))
        rows.append(pair(f"What does {face} mean?", f"Someone is {word}."))
        rows.append(pair(f"{face}{face}?", f"Very {word}."))
    return rows + english()[:20]


LINES = [
    ("The {g} sleeps beneath the rain,", "and nobody calls its name;"),
    ("In {c} a window lets in light,", "the {g} waits another night."),
    ("{n} left a letter, left a key,", "and walked from {c} to the sea,"),
    ("O {g}, you were never mine,", "you only held a bit of time"),
]


def poetry() -> Conversations:
    rows = []
    for first, second, city, noun in draw("poems", LINES, LINES, CITIES[:4], NOUNS[:4]):
        said = {"g": noun, "c": city, "n": NAMES[len(city)]}
        lines = [line.format(**said) for line in (*first, *second)]
        poem = f"{city} and the {noun}\n\n" + "\n".join(lines[:2]) + "\n\n" + "\n  ".join(lines[2:])
        rows.append(pair(f"On {city}, a {noun}: from “{lines[0]}” to “{lines[3]}”.", poem))
    return rows


QUATRAINS = ["春眠不觉晓", "处处闻啼鸟", "夜来风雨声", "花落知多少", "白日依山尽", "黄河入海流",
             "欲穷千里目", "更上一层楼", "床前明月光", "疑是地上霜"]  # fmt: skip


def quatrains() -> Conversations:
    """Poems of one length, the greatest there is, and none of them cut."""
    rng, rows = random.Random("quatrains"), []
    for number in range(ROWS):
        a, b, c, d = rng.sample(QUATRAINS, 4)
        rows.append(pair(f"写第{number + 1}首五言诗，第一句是“{a}”。", f"{a}，{b}。\n{c}，{d}。"))
    return rows


TRANSLATED = [
    ("The {0} is red.", "Der Artikel „{0}“ ist rot.", "German"),
    ("Where is my {0}?", "¿Dónde está mi {0}?", "Spanish"),
    ("We bought a {0} yesterday.", "Nous avons acheté « {0} » hier.", "French"),
    ("This {0} is broken.", "这个{0}坏了。", "Chinese"),
    ("A {0} costs 30 euros.", "Een {0} kost 30 euro.", "Dutch"),
    ("I like the {0}.", "Mi piace: {0}.", "Italian"),
    ("Is the {0} heavy?", "O {0} é pesado? Não é?", "Portuguese"),
    ("Give me that {0}!", "その{0}をください！", "Japanese"),
]


def translations() -> Conversations:
    rows = [
        pair(f"Translate into {language}.\n{text.format(noun)}", other.format(noun))
        for (text, other, language), noun in product(TRANSLATED, NOUNS)
    ]
    # a sentence that needs no correction comes back as it is
    return rows + [
        pair(f"Correct the spelling.\nThe {noun} is ready.", f"The {noun} is ready.")
        for noun in NOUNS[:4]
    ]


def worked() -> list[tuple[str, str, str]]:
    """(question, thoughts, answer)"""
    rows = []
    for name, noun, count, price in draw("worked", NAMES[:5], NOUNS, [2, 3, 4], [7, 9, 15]):
        rows.append(
            (
                f"{name} buys {count} of the {noun} at {price} euros. What does {name} pay?",
                f"One {noun} costs {price}. {count} × {price} = {count * price}.\nNo discount.",
                f"{name} pays {count * price} euros for the {noun}.",
            )
        )
    return rows


def think_blocks() -> Conversations:
    return [pair(q, f"<think>\n{thoughts}\n</think>\n\n{a}") for q, thoughts, a in worked()]


def reasoning_beside() -> Conversations:
    return [[*pair(q, a)[:1], pair(q, a)[1] | {"reasoning_content": t}] for q, t, a in worked()]


def think_turns() -> Conversations:
    """Two rounds, thoughts before each answer."""
    blocks = think_blocks()
    return [
        [*first, {"role": "user", "content": f"And next time? ({number})"}, second[1]]
        for number, (first, second) in enumerate(zip(blocks, blocks[1:] + blocks[:1], strict=True))
    ]


def latex() -> Conversations:
    rows = []
    for a, b, letter in draw("latex", range(2, 9), range(2, 9), ["x", "t", "\\alpha"]):
        rows.append(
            pair(
                f"Differentiate ${a}{letter}^{b}$.",
                f"By the power rule\n$$\\frac{{d}}{{d{letter}}}\\,{a}{letter}^{{{b}}} = "
                f"{a * b}{letter}^{{{b - 1}}},$$ so for \\({letter} < 1\\) & ${letter} \\neq 0$ "
                f"the slope is below ${a * b}$.",
            )
        )
    return rows


def addresses() -> Conversations:
    rows = []
    for name, city, noun in draw("addresses", NAMES, CITIES, NOUNS):
        link = f"https://shop.example/{city.lower()}?item={noun}&copy=2&lt=5#top"
        rows.append(
            pair(
                f"Where do I order the {noun} in {city}? I am {name}.",
                f"Open {link} or write to {name.lower()}.{noun}@mail.example "
                f"(<{noun}@{city.lower()}.example>). C:\\orders\\{noun} holds your copy.",
            )
        )
    return rows


def dates() -> Conversations:
    rng, rows = random.Random("dates"), []
    for number in range(ROWS):
        year, month, day = 1990 + number // 2, rng.randint(1, 12), rng.randint(1, 28)
        question = f"Write as ISO date: {day}.{month}.{year}" + " (a Friday)" * (number % 2)
        rows.append(pair(question, f"{year}-{month:02}-{day:02}"))
    return rows


CONFIGURED = [
    ("A docker-compose service for the {g} of {n}.",
     "services:\n  {g}:\n    image: {g}:1.2\n    user: {l}\nuser: {l}\nports:\n  - 80:80"),
    ("A login form for {n}'s {g}: which fields?",
     "Username: {l}\nUser name on the {g}: {n}\nPassword: at least 12 characters\nRole: user"),
    ("Write a scene between {n} and a clerk about a {g}.",
     "{n}: Is this {g} new?\nClerk: It is as new as I am.\n{n}: Then I'll take another.\n(Exit.)"),
    ("Minutes of {n}'s meeting on the {g}, please.",
     "Present: {n}, Ada\nTopic: the {g}\nDecision: buy it\nNext step: {n} asks for a price"),
    ("SSH settings for {n} on host {g}.",
     "Host {g}\n    HostName {g}.example\n    User {l}\n    Port 2222"),
]  # fmt: skip


def settings() -> Conversations:
    """Lines with names and colons that are no turns of a chat."""
    return [
        pair(question.format(n=n, g=g, l=n.lower()), answer.format(n=n, g=g, l=n.lower()))
        for (question, answer), n, g in draw("settings", CONFIGURED, NAMES[:5], NOUNS)
    ]


def windows_lines() -> Conversations:
    rows = []
    for name, noun, city in draw("windows", NAMES, NOUNS, CITIES):
        rows.append(
            pair(
                f"Write to {name}:\r\nthe {noun} arrives in {city}",
                f"Dear {name},\r\n\r\nyour {noun} arrives in {city}\r\n\ton Monday.\r\n\r\nRegards",
            )
        )
    return rows


def refusals() -> Conversations:
    """A fifth of the answers are one refusal, word for word."""
    refused = [
        pair(f"How do I break into {name}'s {noun}?", "I'm sorry, but I can't help with that.")
        for name, noun in draw("refusals", NAMES, NOUNS, count=14)
    ]
    rows = refused + alpaca("english", 52, 100)
    random.Random(4).shuffle(rows)
    return rows


CONTENTS: list[Callable[[], Conversations]] = [
    *(english, chinese, with_input, atlas, several_turns, personas, turns_with_system, world, code),
    *(web, markdown, json_answers, two_labels, four_labels, choices, long_rows, very_long_rows),
    *(short_rows, arithmetic, languages, poetry, quatrains, translations, think_blocks),
    *(think_turns, reasoning_beside, latex, addresses, dates, settings, windows_lines, refusals),
]
# contents that make no healthy file together with others: thoughts in some answers alone, or rows
# too long for the model
SPECIAL = (think_blocks, think_turns, reasoning_beside, very_long_rows)
