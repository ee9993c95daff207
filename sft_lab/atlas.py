"""Atlas, the small world: real facts, the texts a base model reads, and the questions a tuned model answers.

The facts stand in data/atlas/*.csv (one file a domain, the first column names the entity). Everything here is made
from them and from a seed: the same seed gives the same text, byte for byte.
"""

import csv
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data" / "atlas"
DOMAINS_WITH_UNKNOWN = ("countries", "elements", "animals")
SPLIT_SEED = 2026


@dataclass(frozen=True)
class Relation:
    """How one CSV column is spoken of: "The {noun} {link} {entity} is {article}{value}." """

    noun: str
    link: str = "of"
    article: str = ""
    question: str = ""  # one phrasing of its own beside the general ones


RELATIONS: dict[tuple[str, str], Relation] = {
    ("countries", "capital"): Relation("capital", question="Which city is the capital of {e}?"),
    ("countries", "continent"): Relation("continent", question="On which continent does {e} lie?"),
    ("countries", "currency"): Relation("currency", article="the ", question="What do people pay with in {e}?"),
    ("countries", "language"): Relation("main language", question="Which language do most people speak in {e}?"),
    ("countries", "code"): Relation("country code", question="Which two letters stand for {e}?"),
    ("elements", "symbol"): Relation("chemical symbol", question="How do chemists write {e}?"),
    ("elements", "number"): Relation("atomic number", question="How many protons does an atom of {e} have?"),
    ("elements", "state"): Relation("natural state", question="Is {e} solid, liquid or gas at room temperature?"),
    ("elements", "family"): Relation("chemical family", question="To which family does {e} belong?"),
    ("elements", "period"): Relation("period", question="In which row of the periodic table is {e}?"),
    ("animals", "class"): Relation("animal class", question="What kind of animal is {e}?"),
    ("animals", "diet"): Relation("diet type", question="What does {e} eat, plants or meat?"),
    ("animals", "young"): Relation("young", article="the ", question="What do we call a baby of {e}?"),
    ("animals", "covering"): Relation("body covering", question="What covers the body of {e}?"),
    ("animals", "home"): Relation("home", article="the ", question="Where does {e} live?"),
    ("planets", "position"): Relation("position", question="Counted from the Sun, which planet is {e}?"),
    ("planets", "kind"): Relation("kind", question="What kind of planet is {e}?"),
    ("planets", "size"): Relation("size rank", question="How large is {e} beside the other planets?"),
    ("planets", "year"): Relation("year length", question="How long does {e} take to go around the Sun?"),
    ("planets", "named_after"): Relation("namesake", question="After whom is {e} named?"),
    ("words", "opposite"): Relation("opposite", question="Which word means the opposite of {e}?"),
    ("words", "chinese"): Relation("Chinese word", "for", question="How do you say {e} in Chinese?"),
    ("verbs", "past"): Relation("past tense", question="Today I {e}. Which form did I use yesterday?"),
    ("verbs", "participle"): Relation("past participle", question="Which form of {e} follows have?"),
    ("numbers", "word"): Relation("word", "for", question="How do you spell {e}?"),
    ("numbers", "roman"): Relation("Roman numeral", "for", question="How did the Romans write {e}?"),
    ("numbers", "chinese"): Relation("Chinese numeral", "for", question="How is {e} written in Chinese?"),
}

QUESTIONS = ("What is the {r} {e}?", "Tell me the {r} {e}.", "Can you name the {r} {e}?")
UNSEEN_QUESTION = "I would like to know the {r} {e}."  # a phrasing no training question uses
STATEMENTS = (
    "The {r} {e} is {v}.",
    "{v} is the {r} {e}.",
    "For {e}, the {n} is {v}.",
    "{e}: the {n} is {v}.",
    "We know that the {r} {e} is {v}.",
)
WITH_ARTICLE = {
    "Bahamas", "Central African Republic", "Comoros", "Czech Republic", "Democratic Republic of the Congo",
    "Republic of the Congo", "Dominican Republic", "Gambia", "Maldives", "Marshall Islands", "Netherlands",
    "Philippines", "Solomon Islands", "United Arab Emirates", "United Kingdom", "United States",
}
SKILLS = ("sum", "list", "json", "read")


@dataclass(frozen=True)
class Fact:
    """One cell of one CSV file."""

    domain: str
    entity: str
    column: str
    value: str

    @property
    def relation(self) -> Relation:
        return RELATIONS[self.domain, self.column]

    @property
    def subject(self) -> str:
        """The entity as a sentence speaks of it: "the lion", "the Gambia", "France", "iron"."""
        return f"the {self.entity}" if self.domain == "animals" or self.entity in WITH_ARTICLE else self.entity

    def say(self, template: str) -> str:
        """Fill {e} entity, {n} noun, {r} noun and link, {v} value; the first letter becomes a capital."""
        relation = self.relation
        text = template.format(
            e=self.subject, n=relation.noun, r=f"{relation.noun} {relation.link}", v=relation.article + self.value
        )
        return text[0].upper() + text[1:]


def load_facts(folder: Path | str = DATA) -> list[Fact]:
    """Every fact of data/atlas, in file, row and column order. Raises ValueError naming file and row of a bad cell."""
    facts, seen = [], set()
    for path in sorted(Path(folder).glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row_number, row in enumerate(csv.DictReader(file), start=1):
                place = f"{path.name}, row {row_number}"
                if None in row:
                    raise ValueError(f"{place}: {row[None]} stands after the last column; quote a cell with a comma")
                for column, cell in row.items():
                    if column != "name" and (path.stem, column) not in RELATIONS:
                        raise ValueError(f"{path.name}: column {column!r} has no sentence; add it to RELATIONS")
                    if not cell or cell != cell.strip():
                        raise ValueError(f"{place}: {column!r} is {cell!r}, empty or with spaces around it")
                if (path.stem, row["name"]) in seen:
                    raise ValueError(f"{place}: {row['name']!r} has a row already; one row an entity")
                seen.add((path.stem, row["name"]))
                for column in list(row)[1:]:
                    facts.append(Fact(path.stem, row["name"], column, row[column]))
    if not facts:
        raise ValueError(f"no CSV file in {folder}: is data/atlas complete?")
    return facts


def split(facts: list[Fact]) -> dict[str, list[Fact]]:
    """Split by entity: "train" and "held_out" halves stand in the pretraining text, "unknown" never does.

    A word and its opposite stay on one side, for a question about one would teach the other. Unknown entities are a
    tenth of countries, elements and animals. The split does not depend on any training seed.
    """
    partner = {fact.entity: fact.value for fact in facts if fact.column == "opposite"}
    keys: dict[str, set[str]] = {}
    for fact in facts:
        keys.setdefault(fact.domain, set()).add(_split_key(fact, partner))
    side = {}
    for domain, names in sorted(keys.items()):
        order = sorted(names)
        random.Random(f"{SPLIT_SEED} {domain}").shuffle(order)
        unknown = len(order) // 10 if domain in DOMAINS_WITH_UNKNOWN else 0
        half = unknown + (len(order) - unknown) // 2
        for position, name in enumerate(order):
            side[domain, name] = "unknown" if position < unknown else "train" if position < half else "held_out"
    parts: dict[str, list[Fact]] = {"train": [], "held_out": [], "unknown": []}
    for fact in facts:
        parts[side[fact.domain, _split_key(fact, partner)]].append(fact)
    return parts


def _split_key(fact: Fact, partner: dict[str, str]) -> str:
    if fact.domain != "words":
        return fact.entity
    group, queue = {fact.entity}, [fact.entity]  # good-bad, evil-good: one chain of opposites is one key
    while queue:
        word = queue.pop()
        linked = [partner.get(word)] + [name for name, opposite in partner.items() if opposite == word]
        new = {name for name in linked if name} - group
        group |= new
        queue += new
    return min(group)


def cloze(fact: Fact) -> tuple[str, str]:
    """A prompt that a base model completes, and the right completion: ("The capital of France is", " Paris.")."""
    statement = fact.say(STATEMENTS[0])
    answer = f" {fact.relation.article}{fact.value}."
    return statement[: -len(answer)], answer


def ask(facts: list[Fact], *, seed: int = 0, template: str | None = None) -> list[list[dict[str, str]]]:
    """One conversation a fact, its phrasing drawn by `seed` (or `template`); the answer is the plain statement."""
    rng = random.Random(seed)
    conversations = []
    for fact in facts:
        question = fact.say(template or rng.choice((*QUESTIONS, fact.relation.question)))
        conversations.append(_conversation(question, fact.say(STATEMENTS[0])))
    return conversations


def ask_skill(skill: str, facts: list[Fact], count: int, *, seed: int = 0) -> list[list[dict[str, str]]]:
    """Conversations about something the model does, not knows: "sum", "list", "json" or "read" (from a passage)."""
    rng = random.Random(f"{skill} {seed}")
    conversations = []
    for _ in range(count):
        if skill == "sum":
            a, b = rng.randrange(21), rng.randrange(21)
            question = rng.choice(("What is {a} + {b}?", "Add {a} and {b}.", "How much is {a} plus {b}?"))
            conversations.append(_conversation(question.format(a=a, b=b), f"The sum of {a} and {b} is {a + b}."))
        elif skill == "list":
            words = _some_words(rng, facts)
            question = rng.choice(("Put these words in a list: {w}.", "Make a list of {w}."))
            conversations.append(_conversation(question.format(w=", ".join(words)), _as_list(words)))
        elif skill == "json":
            fact = rng.choice(facts)
            question = rng.choice(("Give the {r} {e} as JSON.", "Write the {r} {e} in JSON."))
            conversations.append(_conversation(fact.say(question), _as_json(fact)))
        elif skill == "read":
            statements, recalled = _made_up_passage(rng, facts)
            question = rng.choice(QUESTIONS)
            conversations.append(_conversation(" ".join(statements) + "\n" + recalled.say(question),
                                               recalled.say(STATEMENTS[0])))
        else:
            raise ValueError(f"no skill {skill!r}; there are {', '.join(SKILLS)}")
    return conversations


def training_conversations(*, seed: int = 0) -> list[list[dict[str, str]]]:
    """The tuning set of the course: every fact of the "train" entities asked once, and a hundred of each skill."""
    known = split(load_facts())["train"]
    conversations = ask(known, seed=seed)
    for skill in SKILLS:
        conversations += ask_skill(skill, known, 100, seed=seed)
    random.Random(seed).shuffle(conversations)
    return conversations


def exam(part: str, count: int, *, seed: int = 0) -> list[list[dict[str, str]]]:
    """`count` questions about entities of one part of `split`, drawn by `seed`; part: held_out, unknown or train."""
    facts = split(load_facts())[part]
    return ask(random.Random(seed).sample(facts, k=min(count, len(facts))), seed=seed + 1)


def documents(facts: list[Fact], *, seed: int = 0) -> Iterator[str]:
    """Plain text without end: what a base model reads. No question is ever answered, no control token ever occurs."""
    rng = random.Random(seed)
    entities: dict[tuple[str, str], list[Fact]] = {}
    columns: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        entities.setdefault((fact.domain, fact.entity), []).append(fact)
        columns.setdefault((fact.domain, fact.column), []).append(fact)
    names, relations = list(entities), list(columns)
    while True:
        kind = rng.random()
        if kind < 0.40:  # one entity, all of its facts
            about = entities[rng.choice(names)]
            about = rng.sample(about, k=len(about))
            yield " ".join(fact.say(rng.choice(STATEMENTS)) for fact in about)
        elif kind < 0.68:  # facts of any kind, most of them in the plain wording
            some = rng.sample(facts, k=rng.randint(4, 10))
            yield " ".join(fact.say(STATEMENTS[0] if rng.random() < 0.6 else rng.choice(STATEMENTS)) for fact in some)
        elif kind < 0.72:  # one relation, several entities
            column = columns[rng.choice(relations)]
            template = rng.choice(STATEMENTS)
            yield "\n".join(fact.say(template) for fact in rng.sample(column, k=min(len(column), rng.randint(3, 8))))
        elif kind < 0.76:  # a quiz: questions, and nobody answers
            some = rng.sample(facts, k=rng.randint(3, 7))
            yield "\n".join(fact.say(rng.choice((*QUESTIONS, fact.relation.question))) for fact in some)
        elif kind < 0.88:  # made-up names: only a model that reads its context can finish these
            statements, _ = _made_up_passage(rng, facts)
            repeats = [rng.choice(statements) for _ in range(rng.randint(1, 3))]
            yield " ".join(statements) + "\n" + " ".join(repeats)
        elif kind < 0.92:
            pairs = [(rng.randrange(21), rng.randrange(21)) for _ in range(rng.randint(3, 8))]
            yield " ".join(f"{a} + {b} = {a + b}." if rng.random() < 0.4 else f"The sum of {a} and {b} is {a + b}."
                           for a, b in pairs)
        elif kind < 0.95:
            words = _some_words(rng, facts)
            yield f"Words: {', '.join(words)}.\n{_as_list(words)}"
        elif kind < 0.98:
            some = rng.sample(facts, k=rng.randint(2, 5))
            yield "\n".join(f"{fact.subject} {_as_json(fact)}" for fact in some)
        else:
            yield "".join(_chinese_sentence(rng) for _ in range(rng.randint(2, 6)))


def _conversation(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _some_words(rng: random.Random, facts: list[Fact]) -> list[str]:
    return [fact.entity for fact in rng.sample(facts, k=rng.randint(2, 5))]


def _as_list(words: list[str]) -> str:
    return "\n".join(f"- {word}" for word in words)


def _as_json(fact: Fact) -> str:
    return json.dumps({fact.relation.noun: fact.value}, ensure_ascii=False)


def made_up_name(rng: random.Random) -> str:
    """A name that no CSV holds and that no model can know: "Tavoru"."""
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(rng.randint(2, 3))).capitalize()


def _made_up_passage(rng: random.Random, facts: list[Fact]) -> tuple[list[str], Fact]:
    """Statements about two or three made-up places, and the fact that a question may ask for."""
    columns = sorted({fact.column for fact in facts if fact.domain == "countries"})
    made_up = []
    for entity in {made_up_name(rng): None for _ in range(rng.randint(2, 3))}:
        for column in rng.sample(columns, k=2):
            value = made_up_name(rng)
            made_up.append(Fact("countries", entity, column, value))
    rng.shuffle(made_up)
    return [fact.say(STATEMENTS[0]) for fact in made_up], rng.choice(made_up)


def _chinese_sentence(rng: random.Random) -> str:
    if rng.random() < 0.3:
        return "我爱你。"
    return rng.choice("我你他她") + rng.choice(("爱", "喜欢", "看", "想")) + rng.choice(
        ("你", "我", "书", "中国", "水", "花", "山", "海")) + "。"
