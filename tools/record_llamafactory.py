"""Record what the commands of chapter 10 leave, for readers without LLaMA-Factory.

    python tools/record_llamafactory.py     (needs `make llamafactory`; a minute)

Runs the cells of the chapter in order, without its exercises, and writes
docs/recorded/llamafactory.
Do this again after a change of the chapter's settings or data.
"""

import os
from datetime import date
from pathlib import Path

from chapter_source import read_chapter

from sft_lab.course import factory
from sft_lab.files import write_json

CHAPTER = Path(__file__).resolve().parents[1] / "chapters" / "10_llamafactory.py"


def main() -> None:
    if not factory.is_installed():
        raise SystemExit(f"LLaMA-Factory is not installed: {factory.INSTALL}")
    os.environ["SFT_LAB_RECORD_FACTORY"] = "1"
    names: dict[str, object] = {"__name__": "chapter_10"}
    for cell in read_chapter(CHAPTER):
        if cell.kind == "code" and not cell.role:
            exec(compile("\n" * cell.line + cell.source, str(CHAPTER), "exec"), names)
    write_json(
        factory.RECORDS / "made.json",
        {"version": factory.VERSION, "date": date.today().isoformat()},
    )


if __name__ == "__main__":
    main()
