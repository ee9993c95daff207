"""Under Atlas: the facts of data/atlas/*.csv (one file a domain, the first column names the entity)
and their split."""

import csv
import random
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data" / "atlas"
DOMAINS_WITH_UNKNOWN = ("countries", "elements", "animals")
SPLIT_SEED = 2774  # drawn until household names (France, gold, dog) were not among the unknown


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
    ("countries", "currency"): Relation(
        "currency", article="the ", question="What do people pay with in {e}?"
    ),
    ("countries", "language"): Relation(
        "main language", question="Which language do most people speak in {e}?"
    ),
    ("countries", "code"): Relation("country code", question="Which two letters stand for {e}?"),
    ("elements", "symbol"): Relation("chemical symbol", question="How do chemists write {e}?"),
    ("elements", "number"): Relation(
        "atomic number", question="How many protons does an atom of {e} have?"
    ),
    ("elements", "state"): Relation(
        "natural state", question="Is {e} solid, liquid or gas at room temperature?"
    ),
    ("elements", "family"): Relation(
        "chemical family", question="To which family does {e} belong?"
    ),
    ("elements", "period"): Relation(
        "period", question="In which row of the periodic table is {e}?"
    ),
    ("animals", "class"): Relation("animal class", question="What kind of animal is {e}?"),
    ("animals", "diet"): Relation("diet type", question="What does {e} eat, plants or meat?"),
    ("animals", "young"): Relation(
        "young", article="the ", question="What do we call a baby of {e}?"
    ),
    ("animals", "covering"): Relation("body covering", question="What covers the body of {e}?"),
    ("animals", "home"): Relation("home", article="the ", question="Where does {e} live?"),
    ("planets", "position"): Relation(
        "position", question="Counted from the Sun, which planet is {e}?"
    ),
    ("planets", "kind"): Relation("kind", question="What kind of planet is {e}?"),
    ("planets", "size"): Relation(
        "size rank", question="How large is {e} beside the other planets?"
    ),
    ("planets", "year"): Relation(
        "year length", question="How long does {e} take to go around the Sun?"
    ),
    ("planets", "named_after"): Relation("namesake", question="After whom is {e} named?"),
    ("words", "opposite"): Relation("opposite", question="Which word means the opposite of {e}?"),
    ("words", "chinese"): Relation(
        "Chinese word", "for", question="How do you say {e} in Chinese?"
    ),
    ("verbs", "past"): Relation(
        "past tense", question="Today I {e}. Which form did I use yesterday?"
    ),
    ("verbs", "participle"): Relation(
        "past participle", question="Which form of {e} follows have?"
    ),
    ("numbers", "word"): Relation("word", "for", question="How do you spell {e}?"),
    ("numbers", "roman"): Relation(
        "Roman numeral", "for", question="How did the Romans write {e}?"
    ),
    ("numbers", "chinese"): Relation(
        "Chinese numeral", "for", question="How is {e} written in Chinese?"
    ),
}

WITH_ARTICLE = {
    "Bahamas",
    "Central African Republic",
    "Comoros",
    "Czech Republic",
    "Democratic Republic of the Congo",
    "Republic of the Congo",
    "Dominican Republic",
    "Gambia",
    "Maldives",
    "Marshall Islands",
    "Netherlands",
    "Philippines",
    "Solomon Islands",
    "United Arab Emirates",
    "United Kingdom",
    "United States",
}


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
        return (
            f"the {self.entity}"
            if self.domain == "animals" or self.entity in WITH_ARTICLE
            else self.entity
        )

    def say(self, template: str) -> str:
        """Fill {e} entity, {n} noun, {r} noun and link, {v} value; the first letter becomes a
        capital."""
        relation = self.relation
        text = template.format(
            e=self.subject,
            n=relation.noun,
            r=f"{relation.noun} {relation.link}",
            v=relation.article + self.value,
        )
        return text[0].upper() + text[1:]


def load_facts(folder: Path | str = DATA) -> list[Fact]:
    """Every fact of data/atlas, in file, row and column order. Raises ValueError naming file and
    row of a bad cell."""
    facts, seen = [], set()
    for path in sorted(Path(folder).glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row_number, row in enumerate(csv.DictReader(file), start=1):
                place = f"{path.name}, row {row_number}"
                if None in row:
                    raise ValueError(
                        f"{place}: {row[None]} stands after the last column; quote a cell with a "
                        "comma"
                    )
                for column, cell in row.items():
                    if column != "name" and (path.stem, column) not in RELATIONS:
                        raise ValueError(
                            f"{path.name}: column {column!r} has no sentence; add it to RELATIONS"
                        )
                    if not cell or cell != cell.strip():
                        raise ValueError(
                            f"{place}: {column!r} is {cell!r}, empty or with spaces around it"
                        )
                if (path.stem, row["name"]) in seen:
                    raise ValueError(
                        f"{place}: {row['name']!r} has a row already; one row an entity"
                    )
                seen.add((path.stem, row["name"]))
                for column in list(row)[1:]:
                    facts.append(Fact(path.stem, row["name"], column, row[column]))
    if not facts:
        raise ValueError(f"no CSV file in {folder}: is data/atlas complete?")
    return facts


def split(facts: list[Fact]) -> dict[str, list[Fact]]:
    """Split by entity: "train" and "held_out" halves stand in the pretraining text, "unknown" never
    does.

    A word and its opposite stay on one side, for a question about one would teach the other.
    Unknown entities are a tenth of countries, elements and animals. The split does not depend on
    any training seed.
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
            side[domain, name] = (
                "unknown" if position < unknown else "train" if position < half else "held_out"
            )
    parts: dict[str, list[Fact]] = {"train": [], "held_out": [], "unknown": []}
    for fact in facts:
        parts[side[fact.domain, _split_key(fact, partner)]].append(fact)
    return parts


def _split_key(fact: Fact, partner: dict[str, str]) -> str:
    if fact.domain != "words":
        return fact.entity
    group, queue = (
        {fact.entity},
        [fact.entity],
    )  # good-bad, evil-good: one chain of opposites is one key
    while queue:
        word = queue.pop()
        linked = [partner.get(word)] + [
            name for name, opposite in partner.items() if opposite == word
        ]
        new = {name for name in linked if name} - group
        group |= new
        queue += new
    return min(group)
