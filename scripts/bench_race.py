#!/usr/bin/env python3
"""Race a sweep and evaluate the same grid in full, and tell what the race saved and what it missed.

    scripts/bench_race.py sweeps/slerp-race.toml [--mergesweep target/release/mergesweep]

Runs the sweep as it is, and without its [search] (as a sweep named `NAME-grid`); what is finished in the results folder is not
done again, and the journals hold the times of what was. Prints a table in Markdown: answers asked, wall time, the winner of
each side, and by how much the race's winner is behind by all answers (the full evaluation's scores, a weighted objective).
"""

import argparse
import csv
import json
import pathlib
import re
import subprocess
import sys
import tomllib


def run(program, spec, results):
    """The journal's records of a sweep that is run to its end."""
    subprocess.run([program, "run", spec, "--results", results, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    name = tomllib.loads(spec.read_text())["name"]
    journal = (results / name / "journal.jsonl").read_text()
    plan = json.loads((results / name / "plan.json").read_text())
    return [json.loads(line) for line in journal.splitlines()], {trial["id"]: trial["name"] for trial in plan["trials"]}


def wall(records):
    """Seconds from the start to the end of every run that evaluated something."""
    total, begun, is_work = 0.0, None, False
    for record in records:
        match record.get("event"):
            case "run-started":
                begun, is_work = record["time"], False
            case "evaluated":
                is_work = True
            case "run-ended" if begun is not None and is_work:
                total += record["time"] - begun
    return total


def objectives(scores, metric):
    """The weighted objective of every trial, larger is better."""
    of_trial, n = {}, {}
    with open(scores, encoding="utf-8") as file:
        for row in csv.DictReader(file):
            column = next((name for name, (task, key) in metric.items() if (row["task"], f"{row['metric']},{row['filter']}") == (task, key)), None)
            if column is None or not row["value"]:
                continue
            sign = 1 if row["higher_is_better"] == "true" else -1
            of_trial.setdefault(row["trial"], {})[column] = sign * float(row["value"])
            n[row["task"]] = int(row["n"])
    return of_trial, n


def columns_of(spec):
    """Weights of the columns that decide, and task and metric of each."""
    search, tasks = spec["search"], spec["evaluate"]["tasks"]
    weights = search["metric"] if isinstance(search["metric"], dict) else {search["metric"]: 1.0}
    found = {}
    for task in tasks:
        task = task if isinstance(task, dict) else {"task": task}
        for column, key in task.get("columns", {task["task"]: "bits_per_byte,none"}).items():
            if column in weights:
                found[column] = (task["task"], key)
    return weights, found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=pathlib.Path, help="a sweep with a race")
    parser.add_argument("--mergesweep", default="target/release/mergesweep")
    parser.add_argument("--results", type=pathlib.Path, default="results")
    args = parser.parse_args()
    text = args.spec.read_text()
    spec = tomllib.loads(text)
    # Beside the other one: paths in a spec are relative to it.
    grid = args.spec.with_name(f"{args.spec.stem}-grid.toml")
    without = re.sub(r"^\[search\]\n(?:(?!\[).*\n)*", "", text, flags=re.M)
    grid.write_text(without.replace(f'name = "{spec["name"]}"', f'name = "{spec["name"]}-grid"', 1))
    try:
        full, _ = run(args.mergesweep, grid, args.results)
        raced, names = run(args.mergesweep, args.spec, args.results)
    finally:
        grid.unlink()
    weights, metric = columns_of(spec)
    of_trial, n = objectives(args.results / f"{spec['name']}-grid" / "scores.csv", metric)
    value = {trial: sum(weights[column] * score for column, score in of.items()) for trial, of in of_trial.items()}
    decided = [record for record in raced if record.get("event") == "search-decided"]
    asked, last = {}, max(decided, key=lambda record: record["rung"])
    for record in decided:
        for standing in record["standings"]:
            trial = names[standing["trial"]]
            asked[trial] = max(asked.get(trial, 0), sum(record["documents"].values()))
    of_all = len(value) * sum(n.values())
    chosen, best = names[last["leader"]], max(value, key=value.get)
    of_race, of_grid = wall(raced), wall(full)
    left = sum(standing["survives"] for standing in last["standings"])
    print(f"{len(value)} trials, {sum(n.values())} documents, decided by {', '.join(weights)}")
    print("| | race | full | ratio |\n|---|---|---|---|")
    print(f"| answers | {sum(asked.values())} | {of_all} | {sum(asked.values()) / of_all:.2f} |")
    print(f"| wall, s | {of_race:.0f} | {of_grid:.0f} | {of_race / of_grid:.2f} |" if of_grid else "| wall | | reused | |")
    print(f"| winner | {chosen} | {best} | {'the same' if chosen == best else 'another'} |")
    print(f"| left at the end | {left} | | |")
    print(f"| objective of the winner, by all answers | {value[chosen]:.5f} | {value[best]:.5f} | regret {value[best] - value[chosen]:.5f} |")


if __name__ == "__main__":
    sys.exit(main())
