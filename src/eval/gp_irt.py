"""Swap test of two gp-IRT estimates with the user's tinyBenchmarks package; answers with one line of JSON.

Argument: a JSON file with `benchmark`, the answers `a` and `b` of two models (100 each, in the order of the documents), and
`swaps`, one text of 0 and 1 per draw: where it has 1, the two models' answers are exchanged.
"""

import json
import os
import sys


def main():
    if not os.path.isfile("tinyBenchmarks.pkl"):
        # The package would download it.
        sys.exit("tinyBenchmarks.pkl is not in " + os.getcwd())
    import numpy
    import tinyBenchmarks

    with open(sys.argv[1], encoding="utf-8") as file:
        asked = json.load(file)
    a, b = numpy.array(asked["a"], dtype=float), numpy.array(asked["b"], dtype=float)

    def score(answers):
        return float(tinyBenchmarks.evaluate(answers, asked["benchmark"])[asked["benchmark"]]["gpirt"])

    drawn = []
    for swaps in asked["swaps"]:
        swapped = numpy.array([mark == "1" for mark in swaps])
        drawn.append(score(numpy.where(swapped, b, a)) - score(numpy.where(swapped, a, b)))
    answer = {"first": score(a), "second": score(b), "drawn": drawn}
    print("mergesweep-answer " + json.dumps(answer), flush=True)


main()
