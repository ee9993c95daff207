"""Station "doctor": the second process of an examination; `sft_lab.doctor.shares` starts it.

A line of JSON in, a line out: the setup; then rows, as [[place, turns], ...]; at last null, which
is answered with what the checks gathered.
"""

import json
import signal
import sys

from sft_lab.doctor.checks import load_tokenizer, make_checks


def main() -> None:
    # Ctrl-C goes to all processes of a terminal; the first one ends this one
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines, out = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints is no answer

    def answer(value: object) -> None:
        out.write(json.dumps(value).encode() + b"\n")
        out.flush()

    setup = json.loads(lines.readline())
    checks = make_checks(setup, load_tokenizer(setup) if setup["source"] else None)
    answer("ready")
    for line in lines:
        rows = json.loads(line)
        if rows is None:
            answer([check.state() for check in checks])
            return
        for place, conversation in rows:
            for check in checks:
                check.look(place, conversation)
        answer("done")


if __name__ == "__main__":
    main()
