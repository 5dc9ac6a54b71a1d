#!/usr/bin/env python3
"""Run one sweep with the harness as a process that stays and as a command for every model, in turns, and compare.

    scripts/bench_harness.py --mergesweep target/release/mergesweep [--limit 4] [--rounds 2] [SPEC]

SPEC is sweeps/quickstart.toml unless named; the real harness and its models must be there (scripts/setup). Every run starts
from nothing, in a folder of its own. Prints, for each mode: wall time of an evaluation as the journal records it, CPU time
of the harness processes per trial (user and system, children included, sampled from /proc four times a second), and wall
time of the whole run. The ratio is that of the medians of rounds. Scores of both modes are compared, to the last digit.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time

MODES = ("command", "warm")
FIGURES = {"wall": "wall of an evaluation (median)", "cpu": "harness CPU per trial", "run_wall": "wall of the whole run"}
TICKS = os.sysconf("SC_CLK_TCK")


class HarnessClock(threading.Thread):
    """CPU seconds of every harness process that a run starts."""

    def __init__(self, results):
        super().__init__(daemon=True)
        self.results, self.seconds, self.ended = results, {}, threading.Event()

    def run(self):
        while not self.ended.wait(0.25):
            for file in self.results.glob("*/trials/*/evaluations/*/process.json"):
                try:
                    pid = json.loads(file.read_text())["pid"]
                    stat = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                except (OSError, ValueError):
                    continue
                self.seconds[pid] = sum(map(int, stat[11:15])) / TICKS


def spec_of(mode, spec, folder):
    """A copy of the spec that asks for a mode, in a folder from which its relative paths mean the same."""
    text = spec.read_text()
    text, n = re.subn(r"(?m)^\[evaluate\]$", f'[evaluate]\nharness.mode = "{mode}"', text)
    if n != 1:
        sys.exit(f"error: {spec}: expected one line `[evaluate]`, found {n}")
    here = folder / mode / spec.parent.name
    here.mkdir(parents=True)
    for source, place in ((spec.parent.parent, here.parent), (spec.parent, here)):
        for entry in source.iterdir():
            if not (place / entry.name).exists() and entry.name not in ("results", "target"):
                (place / entry.name).symlink_to(entry)
    (here / "bench.toml").write_text(text)
    return here / "bench.toml"


def measure(program, spec, limit, results):
    clock = HarnessClock(results)
    clock.start()
    begun = time.monotonic()
    command = [program, "run", spec, "--results", results, "--quiet"]
    ran = subprocess.run([*command, *(["--limit", str(limit)] if limit else [])], stdout=subprocess.DEVNULL)
    wall = time.monotonic() - begun
    clock.ended.set()
    clock.join()
    if ran.returncode != 0:
        sys.exit(f"error: the run in {results} ended with {ran.returncode}")
    (journal,) = results.glob("*/journal.jsonl")
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    evaluations = [record for record in records if record.get("event") == "evaluated"]
    retried = sum(record.get("event") == "evaluation-retried" for record in records)
    scores = sorted(
        (record["trial"], score["task"], score["metric"], score["value"], score["task_hash"])
        for record in evaluations
        for task in record["tasks"]
        for score in task["scores"]
    )
    return {
        "run_wall": wall,
        "wall": statistics.median(record["seconds"] for record in evaluations),
        "cpu": sum(clock.seconds.values()) / len(evaluations),
        "trials": len(evaluations),
        "processes": len(clock.seconds),
        "retried": retried,
        "scores": scores,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", nargs="?", default="sweeps/quickstart.toml", type=pathlib.Path)
    parser.add_argument("--mergesweep", default="target/release/mergesweep", help="the program (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="documents per task (default: the spec's)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each mode (default: %(default)s)")
    args = parser.parse_args()
    program, spec = str(pathlib.Path(args.mergesweep).absolute()), args.spec.resolve()

    found = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory(prefix="bench-harness-") as folder:
        folder = pathlib.Path(folder)
        specs = {mode: spec_of(mode, spec, folder) for mode in MODES}
        for number in range(args.rounds):
            # The first of a round finds colder caches: it is not always the same one.
            for mode in MODES if number % 2 == 0 else reversed(MODES):
                measured = measure(program, specs[mode], args.limit, folder / f"results-{mode}-{number}")
                found[mode].append(measured)
                figures = ", ".join(f"{measured[key]:.1f} s {name}" for key, name in FIGURES.items())
                print(f"round {number + 1}, {mode}: {figures}", file=sys.stderr, flush=True)

    same = all(measured["scores"] == found["command"][0]["scores"] for runs in found.values() for measured in runs)
    medians = {
        mode: {key: statistics.median(run[key] for run in runs) for key in FIGURES}
        for mode, runs in found.items()
    }
    for mode in MODES:
        runs = found[mode]
        print(f"{mode}: {runs[0]['trials']} trials in {runs[0]['processes']} harness processes, {sum(run['retried'] for run in runs)} retried")
    print("| | command | warm | command ÷ warm |\n|---|---|---|---|")
    for key, name in FIGURES.items():
        command, warm = medians["command"][key], medians["warm"][key]
        print(f"| {name}, s | {command:.1f} | {warm:.1f} | {command / warm:.2f} |")
    print(f"scores and task hashes of all runs: {'equal to the last digit' if same else 'DIFFERENT'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
