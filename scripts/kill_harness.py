#!/usr/bin/env python3
"""Kill a sweep with the real harness over and over, and compare what comes out with an undisturbed run.

    scripts/kill_harness.py --mergesweep target/release/mergesweep [--kills 10] [--limit 8] [--seed 1] [SPEC]

SPEC is sweeps/quickstart.toml unless named; the harness and the models must be there (scripts/setup). One run goes through
undisturbed; another is killed (SIGKILL, to the program alone: what it started must end or be ended by itself) at random moments
until so many kills have landed, each time started again. At the end every trial and task must be there once, every accuracy
and every answer the same, and losses the same within 1e-5 of themselves. Prints what was found; exits 1 where anything differs.
"""

import argparse
import collections
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

TOLERANCE = 1e-5


def start(program, spec, limit, results, log):
    command = [program, "run", spec, "--results", results, "--quiet", *(["--limit", str(limit)] if limit else [])]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)


def records(results):
    journals = list(results.glob("*/journal.jsonl"))
    return [json.loads(line) for line in journals[0].read_text().splitlines()[1:]] if journals else []


def found(results):
    """By trial and task: scores, and by document and filter what was answered and scored. And how often each was recorded."""
    scores, answers, times = {}, {}, collections.Counter()
    for record in records(results):
        if record["event"] != "evaluated":
            continue
        (trial,) = results.glob(f"*/trials/*-{record['trial'][:8]}")
        for task in record["tasks"]:
            times[record["trial"], task["task"]] += 1
            for score in task["scores"]:
                scores[record["trial"], score["task"], score["metric"], score["filter"]] = score["value"]
        for file in (trial / record["folder"]).glob("output/**/samples_*.jsonl"):
            task = file.name.removeprefix("samples_").rsplit("_", 1)[0]
            for line in file.read_text().splitlines():
                sample = json.loads(line)
                answers[record["trial"], task, sample["doc_hash"], sample["filter"]] = sample
    return scores, answers, times


def near(a, b):
    return a == b or (isinstance(a, float) and isinstance(b, float) and abs(a - b) <= TOLERANCE * max(abs(a), abs(b)))


def is_loss(metric):
    return any(part in metric for part in ("bits_per_byte", "perplexity"))


def answer(sample):
    """What a model said: the choice it held for the likeliest, or the text it wrote."""
    said = sample.get("filtered_resps", [])
    if said and all(isinstance(one, list) and len(one) == 2 for one in said):
        likelihoods = [float(one[0]) for one in said]
        return likelihoods.index(max(likelihoods)) if len(likelihoods) > 1 else None
    if len(said) == 1 and isinstance(said[0], (float, int)):
        return None
    return said


def compare(first, second):
    """Differences in words, and the largest relative one of a loss."""
    differences, largest = [], 0.0
    for one, other, what in zip(first[:2], second[:2], ("scores", "documents")):
        if one.keys() != other.keys():
            differences.append(f"{len(one.keys() ^ other.keys())} {what} are in one run only")
    for key in first[0].keys() & second[0].keys():
        a, b = first[0][key], second[0][key]
        if is_loss(key[2]):
            largest = max(largest, abs(a - b) / max(abs(a), abs(b), 1e-300))
        if not (near(a, b) if is_loss(key[2]) else a == b):
            differences.append(f"{key}: {a} and {b}")
    for key in first[1].keys() & second[1].keys():
        a, b = first[1][key], second[1][key]
        if answer(a) != answer(b):
            differences.append(f"{key}: answers {answer(a)} and {answer(b)}")
        for metric in a["metrics"]:
            if not is_loss(metric) and a[metric] != b[metric]:
                differences.append(f"{key}: {metric} {a[metric]} and {b[metric]}")
    return differences, largest


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", nargs="?", default="sweeps/quickstart.toml", type=pathlib.Path)
    parser.add_argument("--mergesweep", default="target/release/mergesweep", help="the program (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=10, help="kills that must land (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="documents per task (default: the spec's)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default: %(default)s)")
    args = parser.parse_args()
    program, spec = str(pathlib.Path(args.mergesweep).absolute()), args.spec.resolve()
    moments = random.Random(args.seed)

    with tempfile.TemporaryDirectory(prefix="kill-harness-") as folder:
        folder = pathlib.Path(folder)
        undisturbed, killed = folder / "undisturbed", folder / "killed"
        with open(folder / "stderr.log", "w+", encoding="utf-8") as log:
            begun = time.monotonic()
            if start(program, spec, args.limit, undisturbed, log).wait() != 0:
                log.seek(0)
                sys.exit(f"error: the undisturbed run failed: {log.read()}")
            whole = time.monotonic() - begun
            print(f"undisturbed: {whole:.0f} s", file=sys.stderr, flush=True)
            kills, sweeps, begun = [], 1, time.monotonic()
            while len(kills) < args.kills:
                results = killed / str(sweeps)
                run = start(program, spec, args.limit, results, log)
                # Never so early that nothing can have begun, and late enough to get on at all.
                patience = moments.uniform(0.05 * whole, 0.25 * whole)
                try:
                    code = run.wait(timeout=patience)
                    if code != 0:
                        log.seek(0)
                        sys.exit(f"error: a run ended with {code} by itself: {log.read()}")
                    sweeps += 1
                except subprocess.TimeoutExpired:
                    run.kill()
                    run.wait()
                    kills.append(patience)
                    done = sum(record["event"] == "evaluated" for record in records(results))
                    print(f"kill {len(kills)} after {patience:.0f} s, {done} evaluations recorded", file=sys.stderr, flush=True)
            if start(program, spec, args.limit, killed / str(sweeps), log).wait() != 0:
                log.seek(0)
                sys.exit(f"error: the last run failed: {log.read()}")
            took = time.monotonic() - begun
            log.seek(0)
            said = log.read()
        wanted, problems, largest = found(undisturbed), [], 0.0
        # A sweep that was through before enough kills had landed is one more to compare.
        for number in range(1, sweeps + 1):
            results = killed / str(number)
            if not results.exists():
                continue
            got = found(results)
            problems += [f"{key} was evaluated {n} times" for key, n in got[2].items() if n != 1]
            differences, loss = compare(wanted, got)
            problems += differences
            largest = max(largest, loss)
        print(
            f"{len(kills)} kills in {sweeps} sweep(s), {took:.0f} s beside {whole:.0f} s undisturbed: "
            f"{len(wanted[0])} scores, {len(wanted[1])} answers compared, {len(problems)} differ; "
            f"losses at most {largest:.1e} apart; {said.count('taken over')} results were taken over, "
            f"{said.count('outlived')} starts found processes that outlived a kill"
        )
        for problem in problems[:20]:
            print(f"  {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
