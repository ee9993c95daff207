"""How long the doctor takes on many rows, and how much memory: made rows, measured from outside.

    python tools/doctor_pace.py                     # 100,000 rows, with atlas-base
    python tools/doctor_pace.py --rows 20000 --model smollm2-135m

Rows are short questions and answers of about 60 tokens of atlas-base, and each is different. Memory
is the sum over all processes of what is theirs alone (Private_Clean + Private_Dirty of
/proc/PID/smaps_rollup, Linux only), looked at twenty times a second; pages that processes share,
such as the code of libraries, are not counted.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THINGS = (
    "river town tower bridge market garden harbour castle forest valley island village mountain "
    "library museum station school temple palace square street field meadow lake coast desert "
    "north south east west old new small large long short deep high wide narrow near far "
    "built found named painted opened closed moved grown sold bought kept lost seen heard "
    "stone wood iron glass paper water salt gold silver copper wool corn wheat rice fish"
)
WORDS = THINGS.split()


def make_row(random_words: random.Random, number: int) -> dict[str, str]:
    """A question and an answer about thing `number`, of words drawn at random."""
    drawn = [random_words.choice(WORDS) for _ in range(11)]
    question = f"What is known of the {' '.join(drawn[:4])} number {number}?"
    answer = f"It was {' '.join(drawn[4:7])}, and later {' '.join(drawn[7:])}."
    return {"instruction": question, "output": answer}


def write_rows(path: Path, count: int, seed: int = 0) -> None:
    random_words = random.Random(seed)
    rows = (json.dumps(make_row(random_words, number)) for number in range(count))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def private_bytes(root: int) -> int:
    """Private memory of a process and of all below it."""
    total, parents = 0, {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    family = {root}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    for process in family:
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(kib) * 1024 for kib in re.findall(r"Private_\w+: +(\d+) kB", text))
    return total


def measure(command: list[str]) -> tuple[float, float, int]:
    """Seconds, peak of private memory in bytes, and the exit code of a command."""
    began, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, private_bytes(process.pid))
        time.sleep(0.05)
    return time.perf_counter() - began, peak, process.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--model", default="atlas-base", help='"" for the rows alone')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "rows.jsonl", Path(folder) / "out.json"
        write_rows(data, arguments.rows)
        command = [sys.executable, "-m", "sft_lab.doctor", "--data", str(data), "--json", str(out)]
        command += ["--model", arguments.model] if arguments.model else []
        seconds, peak, code = measure(command)
        told = json.loads(out.read_text(encoding="utf-8"))
    print(f"{arguments.rows:,} rows, model {arguments.model or 'none'}: exit code {code}")
    print(f"{seconds:.1f} s, {peak / 2**20:.0f} MiB private memory of all processes at the peak")
    print(json.dumps(told["measured"], indent=1))
    print([f"{found['severity']} {found['code']} {found['count']}" for found in told["findings"]])


if __name__ == "__main__":
    main()
