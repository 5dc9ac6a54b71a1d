#!/usr/bin/env python3
"""Time some rows of the desk study both ways, in one go: mergekit and lm-eval by hand, and this program.

    scripts/bench_study.py --mergesweep target/release/mergesweep --mergekit VENV/bin/mergekit-yaml [--limit 4] [TRIAL...]

By hand: for each row one call of mergekit-yaml and the calls of lm-eval that the columns need (cross_check.py has them), one
after the other, with all cores. With the program: one run of those rows, from nothing. Both ask LIMIT documents of every
task, so that what is compared are mergers, starts and overheads more than the models' own work, which is the same. Prints
wall times and ratios, and from the program's journal where its time went.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

from cross_check import COMMANDS, SPEC, configs, harness, run

TRIALS = ["Linear", "Dare Linear", "SLERP (t=0.3)", "SLERP (t=0.5)", "SLERP (t=0.7)", "TIES"]


def by_hand(args, folder):
    """Seconds of merging and of evaluating, row by row."""
    of_trial = configs(args.mergesweep, folder / "configs")
    merging = evaluating = 0.0
    for trial in args.trials:
        model = folder / of_trial[trial].stem
        begun = time.monotonic()
        run([args.mergekit, of_trial[trial], model, "--lora-merge-cache", folder / "loras"])
        merging += time.monotonic() - begun
        begun = time.monotonic()
        for command in COMMANDS:
            command = re.sub(r" --limit \d+", "", command)
            harness(args.python, model, f"{command} --limit {args.limit} --output_path {folder / 'output'}")
        evaluating += time.monotonic() - begun
        subprocess.run(["rm", "-r", model], check=True)
    return merging, evaluating


def by_program(args, folder):
    """Seconds of the whole run, and the sums of its merges and evaluations by the journal."""
    begun = time.monotonic()
    only = [word for trial in args.trials for word in ("--only", trial)]
    run([args.mergesweep, "run", SPEC, "--results", folder / "results", "--limit", args.limit, "--quiet", *only])
    wall = time.monotonic() - begun
    (journal,) = (folder / "results").glob("*/journal.jsonl")
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    of = lambda event: [record for record in events if record.get("event") == event]
    account = run([sys.executable, pathlib.Path(__file__).with_name("account_time.py"), journal.parent])
    return wall, of("evaluated"), of("shared"), of("merged"), account


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", nargs="*", default=TRIALS)
    parser.add_argument("--mergesweep", default="target/release/mergesweep")
    parser.add_argument("--mergekit", default=".bench/venv/bin/mergekit-yaml")
    parser.add_argument("--python", default=".venv/bin/python", help="the interpreter with the harness")
    parser.add_argument("--limit", type=int, default=4, help="documents of every task (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-study-") as folder:
        folder = pathlib.Path(folder)
        wall, evaluated, shared, merged, account = by_program(args, folder)
        merging, evaluating = by_hand(args, folder)
    print(f"{len(args.trials)} rows, {args.limit} documents of every task")
    print("| | by hand | mergesweep | ratio |\n|---|---|---|---|")
    print(f"| wall, s | {merging + evaluating:.0f} | {wall:.0f} | {(merging + evaluating) / wall:.1f} |")
    print(f"| merging, s | {merging:.0f} | {len(merged)} merges, beside evaluations | |")
    print(f"| evaluating, s | {evaluating:.0f} | {sum(record['seconds'] for record in evaluated):.0f} in two slots | |")
    print(f"| calls of the harness | {len(args.trials) * len(COMMANDS)} | {len(evaluated)}, {len(shared)} scores shared by twins | |")
    print(f"| a call of the harness, s | {evaluating / (len(args.trials) * len(COMMANDS)):.0f} | {sum(record['seconds'] for record in evaluated) / len(evaluated):.0f} | |")
    print(f"\nThe program's run:\n\n{account}")


if __name__ == "__main__":
    sys.exit(main())
