"""The command `sft-lab`: the course's tools from a shell.

    sft-lab demo                                   tune the embedded model and see what changed
    sft-lab doctor --data my.jsonl                 examine a data set before paying for a GPU
    sft-lab compare BASE TUNED --data exam.jsonl   the same questions to two models
    sft-lab new --data my.jsonl                    a project notebook for your own file

`sft-lab COMMAND --help` says more. Each is also a module: `python -m sft_lab.doctor --data …`.
"""

import difflib
import importlib
import sys

# command -> the module whose `main(arguments)` answers it. Imported when asked for: torch alone
# takes seconds, and --help must not.
COMMANDS = {
    "demo": "sft_lab.demo",
    "doctor": "sft_lab.doctor.command",
    "compare": "sft_lab.compare_command",
    "new": "sft_lab.project",
}


def main(arguments: list[str] | None = None) -> None:
    """Run one command; exits as it does. arguments: without the name of the program."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help", "help"):
        print(__doc__.rstrip())
        return
    name, *rest = given
    if name not in COMMANDS:
        [nearest] = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0.6) or [""]
        meant = f" Did you mean `sft-lab {nearest}`?" if nearest else ""
        print(
            f"sft-lab {name}: there is no such command.{meant} There are: {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        sys.exit(2)
    importlib.import_module(COMMANDS[name]).main(rest)


if __name__ == "__main__":
    main()
