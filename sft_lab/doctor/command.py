"""Station "doctor": the command `sft-lab doctor`.

sft-lab doctor --data my.jsonl
python -m sft_lab.doctor --data my.jsonl
"""

import argparse
import sys
import warnings
from pathlib import Path

from sft_lab.arguments import option, whole_number
from sft_lab.files import OutputError, check_writable, write_json

EXAMPLES = """\
Examine a data set before you pay for a GPU.

  sft-lab doctor --data my.jsonl                       the rows alone: a second, no model
  sft-lab doctor --data my.jsonl --model qwen3-0.6b    and what its template makes of them
  sft-lab doctor --data my.jsonl --test exam.jsonl     and: is the exam in the training data?
  sft-lab doctor --data my.jsonl --model atlas-base --html report.html
  sft-lab doctor --data my.csv --columns prompt=question_text,response=reply
  sft-lab doctor --data my.jsonl --model atlas-base --adapter reports/tuned

Reads JSON, JSONL and CSV: Alpaca rows, pairs, messages, ShareGPT. Nothing is changed: it says what
it found, in which rows, why that matters and what to do.
"""
EXIT_CODES = """\
exit codes: 0 no error; 1 an error (with --strict: or a warning); 2 it could not be examined: no
such file, no such model. So a line in CI is enough:  sft-lab doctor --data my.jsonl --strict
"""
INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C ended


def main(arguments: list[str] | None = None) -> None:
    """Run the command; exits with its code. arguments: without the name of the program."""
    asked = make_parser().parse_args(arguments)
    try:
        sys.exit(run(asked))
    except KeyboardInterrupt:
        print("\nInterrupted: nothing was written.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sft-lab doctor",
        usage=argparse.SUPPRESS,
        description=EXAMPLES,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what to examine")
    what.add_argument("--data", type=Path, required=True, metavar="FILE", help="the rows to learn")
    what.add_argument(
        "--model", metavar="NAME", help="a name of sft_lab.models, a hub id or a folder"
    )
    what.add_argument("--adapter", type=Path, metavar="FOLDER", help="a LoRA adapter for --model")
    what.add_argument("--test", type=Path, metavar="FILE", help="an exam, to be looked for in DATA")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--columns",
        type=read_columns,
        metavar="OURS=THEIRS,…",
        help="which column is what: prompt=q,response=a",
    )
    how.add_argument(
        "--max-tokens",
        type=option(whole_number, least=2),
        default=1024,
        metavar="N",
        help="of a conversation in training (1024)",
    )
    how.add_argument("--card", help='does a step fit it? "T4", "L4", "A100 40 GB", …')
    out = parser.add_argument_group("what comes out")
    out.add_argument("--html", type=Path, metavar="FILE", help="the findings as a page")
    out.add_argument("--json", type=Path, metavar="FILE", help="the findings for a program")
    out.add_argument("--strict", action="store_true", help="a warning makes exit code 1 too")
    out.add_argument("-h", "--help", action="help", help="this text")
    return parser


def read_columns(text: str) -> dict[str, str]:
    """ "prompt=q,response=a" as {"prompt": "q", "response": "a"}."""
    columns = {}
    for part in text.split(","):
        ours, equals, theirs = (piece.strip() for piece in part.partition("="))
        if not (ours and equals and theirs) or ours in columns:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not OURS=THEIRS, or stands twice; an example: prompt=q,response=a"
            )
        columns[ours] = theirs
    return columns


def run(asked: argparse.Namespace) -> int:
    """Examine, print, write; the exit code."""
    from sft_lab.doctor import ExaminationError, diagnose

    outputs = [path for path in (asked.html, asked.json) if path]
    try:
        _check_outputs(outputs, [asked.data, *([asked.test] if asked.test else [])])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they say is a finding
            diagnosis = diagnose(
                asked.data,
                model=asked.model,
                adapter=asked.adapter,
                test=asked.test,
                max_tokens=asked.max_tokens,
                card=asked.card,
                columns=asked.columns,
                progress=sys.stderr.isatty(),
            )
        if asked.html:
            diagnosis.to_html(asked.html)
        if asked.json:
            write_json(asked.json, diagnosis.to_dict())
    except (ExaminationError, OutputError, OSError) as error:
        print(f"sft-lab doctor: {error}", file=sys.stderr)
        return 2
    print(diagnosis.table())
    if outputs:
        print(f"Written: {', '.join(map(str, outputs))}")
    return diagnosis.exit_code(strict=asked.strict)


def _check_outputs(outputs: list[Path], inputs: list[Path]) -> None:
    """OutputError where a report could not be written, or would replace what is examined."""
    for path in outputs:
        if any(path.resolve() == given.resolve() for given in inputs):
            raise OutputError(f"{path} is what is to be examined", "give the report another name")
        check_writable(path)
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise OutputError("--html and --json are one file", "give them two names")
