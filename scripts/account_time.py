#!/usr/bin/env python3
"""Where the time of a run of a sweep went, by its journal and by the harness's own logs.

    scripts/account_time.py results/desk-study [RUN]

RUN counts from 1; without it, the last one.

Seconds of wall time: the run's, that of merges, that of evaluations summed over the slots, and of these what passed until the
harness had its model and began with the documents. Logs must still be there (`trials/` is not in the repository).
"""

import collections
import datetime
import json
import pathlib
import re
import sys

# The last line that the harness logs before it builds its requests.
READY = re.compile(r"^(\S+ ?\S*?) +INFO +\[evaluator:\d+\] Using cache at", re.M)


def ready_at(log):
    """The moment a harness had its model, in seconds since 1970; whole seconds is what its log tells."""
    found = READY.search(log.read_text(errors="replace")) if log.exists() else None
    if not found:
        return None
    return datetime.datetime.strptime(found[1], "%Y-%m-%d:%H:%M:%S").timestamp()


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1])
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    folders = {trial["id"]: trial["folder"] for trial in json.loads((folder / "plan.json").read_text())["trials"]}
    begun = [index for index, record in enumerate(records) if record.get("event") == "run-started"]
    number = int(sys.argv[2]) if len(sys.argv) == 3 else len(begun)
    if not 1 <= number <= len(begun):
        sys.exit(f"error: {folder} has {len(begun)} runs")
    records = records[begun[number - 1] : (begun + [None])[number]]
    wall = records[-1]["time"] - records[0]["time"]
    open_of, calls, n_merges, shared, lost = {}, collections.defaultdict(list), 0, 0, 0
    # Merges of one pass share their time.
    merging, merging_until = 0.0, 0.0
    for record in records:
        trial = record.get("trial")
        match record.get("event"):
            case "merge-started":
                open_of[trial] = record["time"]
            case "merged":
                merging += max(0.0, record["time"] - max(open_of[trial], merging_until))
                merging_until, n_merges = max(merging_until, record["time"]), n_merges + 1
            case "shared":
                shared += 1
            case "evaluation-started":
                open_of[trial, record["folder"]] = record["time"]
            case "evaluated":
                start = open_of[trial, record["folder"]]
                ready = ready_at(folder / "trials" / folders[trial] / record["folder"] / "stderr.log")
                lost += ready is None
                tasks = ", ".join(task["task"] for task in record["tasks"])
                # A start within the second that the log tells is none.
                calls[tasks].append((record["seconds"], max(0.0, (ready or start) - start)))
    total = sum(seconds for group in calls.values() for seconds, _ in group)
    starts = sum(start for group in calls.values() for _, start in group)
    print(f"{wall:.0f} s of wall time, {records[0].get('n_slots')} slots; {n_merges} merges, {sum(map(len, calls.values()))} calls of the harness, {shared} scores shared")
    print("\n| | s | share of the slots' time |\n|---|---:|---:|")
    slots = wall * (records[0].get("n_slots") or 1)
    for name, seconds in [
        ("merges, beside evaluations", merging),
        ("harness start: imports, tasks, model", starts),
        ("evaluating", total - starts),
        ("slots idle: preflight, last evaluation, orchestrator", slots - total),
    ]:
        print(f"| {name} | {seconds:.0f} | {100 * seconds / slots:.1f} % |")
    print("\n| call | n | mean, s | of it start, s |\n|---|---:|---:|---:|")
    for tasks, group in calls.items():
        n = len(group)
        print(f"| {tasks} | {n} | {sum(s for s, _ in group) / n:.0f} | {sum(s for _, s in group) / n:.1f} |")
    if lost:
        print(f"\n{lost} calls left no log: their starts count as evaluating", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
