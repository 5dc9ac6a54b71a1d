"""Optuna as a process that stays: one line of JSON in, one line of JSON out.

In:  {"storage": FILE, "study": NAME, "sampler": NAME, "seed": N, "objectives": N, "axes": [AXIS], "points": [POINT], "ask": N}
     AXIS:  {"name", "kind": "float" | "int" | "choice", "low", "high"}; of a choice these are the first and last number
     POINT: {"number": of a trial of Optuna's, none of a point of the grid, "values": [axis by axis],
             "scores": [larger is better; none of a point that failed], "violations": [above 0 where a floor is missed],
             "rung": after which it dropped out, none where it did not; then the scores are estimates}
Out: {"points": [{"number", "values"}]}, or {"error": why}

All points are told every time, and what is known already is left alone: a caller that was killed says the same again. What
was asked for and never heard of again is given back first. A sampler is made anew for every question, from the seed and the
number of trials, so that it depends on the storage alone.

Points that dropped out are told as pruned with their estimate, which TPE ranks behind those that went through, the later they
dropped out the better, and CMA-ES takes for the score. NSGA-II breeds from complete trials only and would fill no generation:
there they are told as complete, with the estimate for the score.
"""

import json
import random
import sys
import warnings


def main():
    for line in sys.stdin:
        try:
            answer = {"points": points(json.loads(line))}
        except ImportError as error:
            answer = {"error": f"{error}: `pip install optuna cmaes` into the interpreter of `evaluate.python`"}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def points(question):
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(question["storage"])),
        study_name=question["study"],
        directions=["maximize"] * question["objectives"],
        load_if_exists=True,
    )
    axes = question["axes"]
    space = {axis["name"]: distribution(optuna, axis) for axis in axes}
    known = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    told = {trial.user_attrs["point"]: trial.number for trial in known.values() if "point" in trial.user_attrs}
    heard = set()
    for place, point in enumerate(question["points"]):
        number = point["number"]
        if number is None or number not in known:
            # Points of the grid, and those of a storage that is gone, go through the queue, so that samplers treat them as
            # their own.
            name = json.dumps(point["values"])
            if name not in told:
                values = {axis["name"]: of_optuna(axis, value) for axis, value in zip(axes, point["values"])}
                study.enqueue_trial(values, user_attrs={"point": name})
                study.sampler = sampler(optuna, question, len(known) + place)
                told[name] = study.ask(space).number
            number = told[name]
        heard.add(number)
        tell(optuna, study, question, number, point)
    trials = study.get_trials(deepcopy=False)
    open_ones = [t for t in trials if t.state == optuna.trial.TrialState.RUNNING and t.number not in heard]
    given = [answer(axes, trial.number, trial.params) for trial in open_ones[: question["ask"]]]
    for number in range(len(trials), len(trials) + question["ask"] - len(given)):
        study.sampler = sampler(optuna, question, number)
        trial = study.ask(space)
        given.append(answer(axes, trial.number, trial.params))
    return given


def distribution(optuna, axis):
    if axis["kind"] == "float":
        return optuna.distributions.FloatDistribution(axis["low"], axis["high"])
    if axis["kind"] == "int":
        return optuna.distributions.IntDistribution(int(axis["low"]), int(axis["high"]))
    return optuna.distributions.CategoricalDistribution(range(int(axis["low"]), int(axis["high"]) + 1))


def of_optuna(axis, value):
    return value if axis["kind"] == "float" else int(value)


def answer(axes, number, params):
    return {"number": number, "values": [float(params[axis["name"]]) for axis in axes]}


def sampler(optuna, question, number):
    # Generators of neighbouring seeds begin alike.
    seed = random.Random(f"{question['seed']} {number}").getrandbits(32)
    floors = any(point["violations"] for point in question["points"])
    constraints = {"constraints_func": lambda trial: trial.user_attrs.get("violations", [])} if floors else {}
    name = question["sampler"]
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, **constraints)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=10, **constraints)
    if name == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=question["seed"], consider_pruned_trials=True)
    if name == "qmc":
        return optuna.samplers.QMCSampler(seed=question["seed"], scramble=True)
    return optuna.samplers.RandomSampler(seed=seed)


def tell(optuna, study, question, number, point):
    trial = study.get_trials(deepcopy=False)[number]
    if trial.state.is_finished():
        return
    study.sampler = sampler(optuna, question, number)
    if point["scores"] is None:
        study.tell(number, state=optuna.trial.TrialState.FAIL)
        return
    study._storage.set_trial_user_attr(trial._trial_id, "violations", point["violations"])
    if point["rung"] is None or question["sampler"] == "nsga2":
        study.tell(number, point["scores"])
        return
    study._storage.set_trial_intermediate_value(trial._trial_id, point["rung"], point["scores"][0])
    study.tell(number, state=optuna.trial.TrialState.PRUNED)


main()
