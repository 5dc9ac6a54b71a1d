#!/usr/bin/env python3
"""Check the HumanEval scorer of sweeps/tasks/utils.py against the reference solutions.

All 164 reference solutions must pass; programs that are wrong, that never end,
that leave early or that reach for the network must not. Needs only the
standard library. Runs no model-written code.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TASKS = Path(__file__).resolve().parent.parent / "sweeps" / "tasks"
sys.path.insert(0, str(TASKS))
sys.dont_write_bytecode = True
import utils  # noqa: E402


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with open(TASKS / "data" / "humaneval" / "test.jsonl", encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    assert len(rows) == 164, f"expected 164 problems, found {len(rows)}"

    def score(row):
        programs = utils.build_predictions([[row["canonical_solution"]]], [row])
        return utils.pass_at_k([f"{row['test']}\ncheck({row['entry_point']})"], programs, k=[1])["pass@1"]

    started = time.time()
    with ThreadPoolExecutor(2) as pool:
        scores = list(pool.map(score, rows))
    failed = [row["task_id"] for row, s in zip(rows, scores) if s != 1.0]
    assert not failed, f"reference solutions that do not pass: {', '.join(failed)}"
    print(f"164 reference solutions pass ({time.time() - started:.0f} s)")

    must_fail = {
        "wrong answer": "assert 1 + 1 == 3",
        "syntax error": "def f(:",
        "never ends": "while True: pass",
        "leaves early with status 0": "import sys\nsys.exit(0)",
        "leaves early at once": "import os\nos._exit(0)",
        "opens a socket": "import socket\nsocket.socket()",
        "starts a program": "import subprocess\nsubprocess.run(['true'])",
        "takes all memory": "x = bytearray(64 << 30)",
    }
    for what, program in must_fail.items():
        assert not utils.run_program(program, seconds=3), f"a program passed that should not: {what}"
    assert utils.run_program("print('é' * 10)"), "a correct program with non-ASCII text did not pass"
    half = utils.pass_at_k(["assert f() == 1"], [["def f(): return 1", "def f(): return 2"]], k=[1, 2])
    assert half == {"pass@1": 0.5, "pass@2": 1.0}, half
    print(f"{len(must_fail)} programs that must not pass do not")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"check_scorer: {error}")
