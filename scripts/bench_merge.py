#!/usr/bin/env python3
"""Measure merging: mergesweep beside mergekit 0.1.5, and beside the limit of the disk.

Started by `scripts/bench-merge`, which makes the environment and the binary:

    scripts/bench-merge                          # everything, at most an hour
    scripts/bench-merge --rows linear,slerp      # some rows; the table shows what is measured so far
    scripts/bench-merge --quick --skip-mergekit  # tiny checkpoints and no mergekit: a test of the script
    scripts/bench-merge --report                 # the table again, nothing measured

Checkpoints of TinyLlama-1.1B shape in float16 are made in `.bench`: a base, and two that differ from it by small heavy-tailed
changes, many of which float16 rounds away or makes equal. Each row runs whole commands, one after the other. What they wrote is
synced to disk before the clock stops, and then deleted. In rows with mergekit the inputs are in the page cache for both
programs; in rows beside the limit they are evicted before every run, also before those of the limit, which is reading the
inputs once and writing as many bytes as the output has with `dd`, directly or buffered, whichever is faster on this disk.
Memory is anonymous and shared memory of all processes of a command at its peak (mapped input pages do not count), looked at
every 50 ms. CPU is user and system time of the same processes.

A row that is measured is kept in `.bench/<size>/rows.jsonl`; a second start goes on with those that are missing, that another
binary made, or that have fewer runs than are asked for.
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time

BENCH = pathlib.Path(__file__).resolve().parent.parent / ".bench"
MIB = 1 << 20

# --- Checkpoints -----------------------------------------------------------------------------------------------------

# Names are those of the rows' shapes, for both sizes of the benchmark.
SHAPES = {
    "full": {
        "1.1B": dict(layers=22, hidden=2048, ffn=5632, heads=32, kv_heads=4, vocab=32000),
        "grid": dict(layers=6, hidden=2048, ffn=5632, heads=32, kv_heads=4, vocab=32000),
        "0.1B": dict(layers=8, hidden=768, ffn=2048, heads=12, kv_heads=4, vocab=32000),
        "0.5B": dict(layers=16, hidden=1536, ffn=4096, heads=24, kv_heads=4, vocab=32000),
    },
    "quick": {
        "1.1B": dict(layers=4, hidden=512, ffn=1408, heads=8, kv_heads=4, vocab=8000),
        "grid": dict(layers=2, hidden=512, ffn=1408, heads=8, kv_heads=4, vocab=4000),
        "0.1B": dict(layers=2, hidden=256, ffn=704, heads=4, kv_heads=4, vocab=2000),
        "0.5B": dict(layers=4, hidden=256, ffn=704, heads=4, kv_heads=4, vocab=4000),
    },
}
MODELS = ("base", "math", "code")
SEED = 20251


def tensors(shape):
    """Yield name and dimensions of every tensor of a Llama model of that shape."""
    hidden, ffn, vocab = shape["hidden"], shape["ffn"], shape["vocab"]
    kv = hidden // shape["heads"] * shape["kv_heads"]
    yield "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(shape["layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "self_attn.q_proj.weight", (hidden, hidden)
        yield prefix + "self_attn.k_proj.weight", (kv, hidden)
        yield prefix + "self_attn.v_proj.weight", (kv, hidden)
        yield prefix + "self_attn.o_proj.weight", (hidden, hidden)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        yield prefix + "mlp.gate_proj.weight", (ffn, hidden)
        yield prefix + "mlp.up_proj.weight", (ffn, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, ffn)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocab, hidden)


def n_bytes(shape):
    """Bytes of a checkpoint's tensors."""
    return sum(2 * dims[0] * (dims[1] if len(dims) > 1 else 1) for _, dims in tensors(shape))


def model_config(shape):
    """config.json of a model of that shape."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": shape["hidden"],
        "intermediate_size": shape["ffn"],
        "max_position_embeddings": 2048,
        "num_attention_heads": shape["heads"],
        "num_hidden_layers": shape["layers"],
        "num_key_value_heads": shape["kv_heads"],
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "vocab_size": shape["vocab"],
    }


def numbers(np, model, index, dims):
    """The float16 numbers of one tensor: the same for the same model and place, always."""
    count = int(np.prod(dims))
    base = np.random.Generator(np.random.SFC64([SEED, index])).standard_normal(count, dtype=np.float32)
    if len(dims) == 1:
        base = 1.0 + 0.1 * base
    else:
        base *= 0.02
    if model != "base":
        # Cubes of normal numbers: a third vanishes in the rounding, a few are large.
        stream = np.random.Generator(np.random.SFC64([SEED, index, MODELS.index(model)]))
        change = stream.standard_normal(count, dtype=np.float32)
        base += 3e-4 * change * change * change
    return base.astype(np.float16)


def make_checkpoint(folder, shape, model):
    """Write a checkpoint, unless it is there."""
    if (folder / "config.json").is_file() and json.loads((folder / "config.json").read_text()) == model_config(shape):
        return
    import numpy as np

    say(f"making {folder.relative_to(BENCH)} ({n_bytes(shape) / 1e9:.2f} GB)")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    header, offset = {}, 0
    for name, dims in tensors(shape):
        size = 2 * int(np.prod(dims))
        header[name] = {"dtype": "F16", "shape": list(dims), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for index, (_, dims) in enumerate(tensors(shape)):
            file.write(numbers(np, model, index, dims).data)
        os.fsync(file.fileno())
    # Last: its being there says that the checkpoint is whole.
    (folder / "config.json").write_text(json.dumps(model_config(shape), indent=1))


# --- Configs ---------------------------------------------------------------------------------------------------------

GRID = [f"{step / 10:.1f}" for step in range(11)]


def config(method, models, base=None, parameters="", each=""):
    """A mergekit config: `each` are the parameters of every model, `parameters` those of the merge."""
    lines = [f"merge_method: {method}", "dtype: float16"]
    lines += [f"base_model: {base}"] if base else []
    lines += [f"parameters: {{{parameters}}}"] if parameters else []
    own = f", parameters: {{{each}}}" if each else ""
    return "\n".join([*lines, "models:", *(f"- {{model: {model}{own}}}" for model in models)]) + "\n"


def task_vectors(method, each="weight: 0.6, density: 0.5", parameters="normalize: false"):
    """Base and both others."""
    return config(method, ["math", "code"], "base", parameters, each)


# Row to config; the words base, math and code become folders.
METHODS = {
    "linear": config("linear", MODELS, each="weight: 0.4"),
    "slerp": config("slerp", ["math", "code"], "math", "t: 0.4"),
    "nuslerp": config("nuslerp", ["math", "code"], each="weight: 0.5"),
    "task_arithmetic": task_vectors("task_arithmetic", "weight: 0.6"),
    "ties": task_vectors("ties", parameters="normalize: true"),
    "breadcrumbs": task_vectors("breadcrumbs", "weight: 0.6, density: 0.9, gamma: 0.01"),
    "breadcrumbs_ties": task_vectors("breadcrumbs_ties", "weight: 0.6, density: 0.9, gamma: 0.01"),
    "dare_linear": task_vectors("dare_linear"),
    "dare_ties": task_vectors("dare_ties"),
    "arcee_fusion": config("arcee_fusion", ["math", "code"], "math"),
    "della": task_vectors("della", "weight: 0.6, density: 0.5, epsilon: 0.1"),
}
NO_RESCALE = "dare_linear without rescale"
GROWTH = ("0.1B", "0.5B", "1.1B")
GROWTH_METHODS = ("linear", "ties")
ROWS = ["disk", *METHODS, NO_RESCALE, "grid", "grid beside mergekit", *(f"growth {shape}" for shape in GROWTH)]

# Goals: mergekit / mergesweep in wall and CPU time, at least; wall / limit, at most.
ONE_PASS, NORMS, TRIMMED = (10, 10, 1.5), (10, 10, 2.0), (15, 12, 2.5)
GOALS = {
    "linear": ONE_PASS,
    "task_arithmetic": ONE_PASS,
    "slerp": NORMS,
    "nuslerp": NORMS,
    **dict.fromkeys(("ties", "breadcrumbs", "breadcrumbs_ties", "dare_linear", "dare_ties"), TRIMMED),
    **dict.fromkeys(("arcee_fusion", "della"), (8, 8, None)),
    NO_RESCALE: (None, None, 1.5),
}
PEAK_MIB, GRID_SHARE, GRID_RATIO = 512, 0.4, 15


# --- Running ---------------------------------------------------------------------------------------------------------


# Both programs take these; there is no tokenizer to copy.
FLAGS = ["--no-copy-tokenizer", "--no-write-model-card", "--random-seed", "1"]


def say(text):
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def fail(text, hint=None):
    """End with a message."""
    say(f"error: {text}" + (f"\nhint: {hint}" if hint else ""))
    sys.exit(2)


class Failed(Exception):
    """A command that did not work; its last words."""


def processes(pid):
    """A process and all below it."""
    found = [pid]
    for parent in found:  # The list grows meanwhile.
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                found += map(int, pathlib.Path(f"/proc/{parent}/task/{task}/children").read_text().split())
        except OSError:
            pass  # It ended meanwhile.
    return found


def private_bytes(pid):
    """Anonymous and shared memory of a process."""
    try:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


class Peak(threading.Thread):
    """Follows the memory of a command until it is stopped."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.bytes, self.stopped = pid, 0, threading.Event()

    def run(self):
        while not self.stopped.wait(0.05):
            self.bytes = max(self.bytes, sum(map(private_bytes, processes(self.pid))))


def files_below(folders):
    """Every file in some folders."""
    return [path for folder in folders if folder.exists() for path in sorted(folder.rglob("*")) if path.is_file()]


def run(command, outputs):
    """Run a command, sync what it wrote, and delete it. Gives what it took."""
    for folder in outputs:
        shutil.rmtree(folder, ignore_errors=True)
    words = BENCH / "last.log"
    try:
        with open(words, "wb") as log:
            begun = time.monotonic()
            process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            peak = Peak(process.pid)
            peak.start()
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
            ran = time.monotonic() - begun
        peak.stopped.set()
        peak.join()
        if process.returncode != 0 or not all(folder.exists() for folder in outputs):
            lines = words.read_text(errors="replace").strip().splitlines() or ["no words"]
            telling = next((line for line in lines if line.startswith("error")), lines[-1])
            raise Failed(f"status {process.returncode}: {telling[:200]}")
        own = time.thread_time()
        begun = time.monotonic()
        for path in files_below(outputs):
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        synced = time.monotonic() - begun
        system = usage.ru_stime + time.thread_time() - own
    finally:
        for folder in outputs:
            shutil.rmtree(folder, ignore_errors=True)
    return {
        "wall": ran + synced,
        "sync": synced,
        "user": usage.ru_utime,
        "system": system,
        "cpu": usage.ru_utime + system,
        "peak": peak.bytes,
        "faults": usage.ru_majflt,
        "read": usage.ru_inblock * 512,
    }


def warm(folders):
    """Read files into the page cache."""
    buffer = bytearray(8 * MIB)
    for path in files_below(folders):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def evict(folders):
    """Take files out of the page cache."""
    for path in files_below(folders):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if shutil.which("fincore"):
        paths = list(map(str, files_below(folders)))
        shown = subprocess.run(["fincore", "--bytes", "--noheadings", "--output", "RES", *paths], capture_output=True, text=True)
        cached = sum(map(int, shown.stdout.split()))
        if cached > sum(path.stat().st_size for path in files_below(folders)) / 100:
            say(f"warning: {cached / 1e9:.2f} GB of the inputs stay in the page cache")


def dd(source, target, way):
    """Copy a file with dd, `direct` past the page cache or `buffered` with a sync at the end. Gives the seconds."""
    flags = []
    if way == "direct":
        flags = ["iflag=direct"] if target == os.devnull else ["oflag=direct"]
    if target != os.devnull:
        flags.append("conv=fsync")
    begun = time.monotonic()
    done = subprocess.run(["dd", f"if={source}", f"of={target}", "bs=16M", *flags], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"dd: {done.stderr.strip().splitlines()[-1]}")
    return time.monotonic() - begun


def read_once(folders, way):
    """Seconds to read weights that are not in the page cache."""
    evict(folders)
    return sum(dd(folder / "model.safetensors", os.devnull, way) for folder in folders)


def write_once(folder, out, way):
    """Seconds to write as many bytes as a checkpoint has, taken from one in the page cache."""
    warm([folder])
    out.unlink(missing_ok=True)
    try:
        return dd(folder / "model.safetensors", out, way)
    finally:
        out.unlink(missing_ok=True)


def limit(folders, out, ways, n_outputs=1):
    """Seconds to read the inputs once and to write the outputs, as plain as it gets."""
    read, write = ways
    reading = read_once(folders, read)
    return {"wall": reading + sum(write_once(folders[0], out, write) for _ in range(n_outputs)), "read": reading}


# --- Rows ------------------------------------------------------------------------------------------------------------


class Bench:
    """The place, the programs and the measured rows of one size."""

    def __init__(self, args):
        self.args = args
        self.size = "quick" if args.quick else "full"
        self.shapes = SHAPES[self.size]
        self.folder = BENCH / self.size
        self.out = self.folder / "out"
        self.store = self.folder / "rows.jsonl"
        self.mergesweep, self.mergekit = map(os.environ.get, ("MERGESWEEP", "MERGEKIT_YAML"))
        self.digest = self.mergesweep and hashlib.sha256(pathlib.Path(self.mergesweep).read_bytes()).hexdigest()[:12]
        self.begun = time.monotonic()
        self.rows = {}
        if self.store.is_file():
            for line in self.store.read_text().splitlines():
                row = json.loads(line)
                self.rows[row["row"]] = row

    def keep(self, name, **measured):
        """Record a row."""
        row = {"row": name, "binary": self.digest, "repeat": self.args.repeat, **measured}
        self.rows[name] = row
        with open(self.store, "a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def is_done(self, name):
        """Whether a row is measured, by this binary and beside what is asked for now."""
        row = self.rows.get(name)
        if row is None or row.get("failed") or row["repeat"] < self.args.repeat:
            return False
        if name == "disk":
            return True
        if row["binary"] != self.digest:
            return False
        beside = name in METHODS or name == "grid beside mergekit"
        return not beside or self.args.skip_mergekit or bool(row.get("mergekit"))

    def models(self, shape, names):
        """Folders of models, made where they are missing."""
        folders = [self.folder / shape / name for name in names]
        for folder, name in zip(folders, names):
            make_checkpoint(folder, self.shapes[shape], name)
        return folders

    def config(self, shape, name, text):
        """The file of a config, and the folders of the models in it."""
        names = [model for model in MODELS if f"model: {model}" in text]
        folders = self.models(shape, names)
        for model, folder in zip(names, folders):
            text = text.replace(f"model: {model}", f"model: {folder}")
        path = self.folder / "configs" / shape / f"{name.replace(' ', '-')}.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path, folders

    def single(self, path):
        """One merge of ours."""
        return run([self.mergesweep, "merge", path, self.out / "one", *FLAGS], [self.out / "one"])

    def fan_out(self, paths):
        """Several merges of ours in one call. How that is called stands here only."""
        outs = [self.out / "grid" / path.stem for path in paths]
        pairs = [argument for pair in zip(paths, outs) for argument in pair]
        return run([self.mergesweep, "merge", *pairs, *FLAGS], outs)

    def theirs(self, path):
        """One merge of mergekit's."""
        return run([self.mergekit, path, self.out / "kit", *FLAGS], [self.out / "kit"])

    def often(self, slow):
        """How often a run of mergekit's is made that takes that many seconds: once where it is slow, or late."""
        late = time.monotonic() - self.begun > self.args.budget / 2
        return 1 if slow > 60 or late else self.args.repeat

    def ways(self):
        """The faster ways to read and to write with dd."""
        if not self.is_done("disk"):
            self.measure("disk")
        return fastest(self.rows["disk"])

    def measure(self, name):
        """Measure one row and record it."""
        if name == "disk":
            measured = self.disk()
        elif name in METHODS or name == NO_RESCALE:
            measured = self.method(name)
        elif name == "grid":
            measured = self.grid()
        elif name == "grid beside mergekit":
            measured = self.grid_beside_mergekit()
        else:
            measured = self.growth(name.split()[1])
        self.keep(name, **measured)

    def disk(self):
        """Both ways to read and to write one checkpoint."""
        (folder,) = self.models("1.1B", ["base"])
        out = self.folder / "written"
        measured = {"reading": {}, "writing": {}, "bytes": n_bytes(self.shapes["1.1B"])}
        for way in ("buffered", "direct"):
            try:
                for _ in range(self.args.repeat):
                    reading, writing = read_once([folder], way), write_once(folder, out, way)
                    measured["reading"].setdefault(way, []).append({"wall": reading})
                    measured["writing"].setdefault(way, []).append({"wall": writing})
            except Failed as failed:
                if way == "buffered":
                    raise
                say(f"no direct way on this filesystem: {failed}")
        return measured

    def method(self, name):
        """One method beside mergekit, inputs in the page cache, and beside the limit, inputs evicted."""
        text = METHODS.get(name) or task_vectors("dare_linear", parameters="normalize: false, rescale: false")
        path, folders = self.config("1.1B", name, text)
        measured = {"inputs": len(folders), "bytes": n_bytes(self.shapes["1.1B"])}
        if name in METHODS:
            measured["mergekit"], measured["warm"] = [], []
            for turn in range(self.args.repeat):
                if not self.args.skip_mergekit and (turn == 0 or turn < self.often(measured["mergekit"][0]["wall"])):
                    warm(folders)
                    measured["mergekit"].append(self.theirs(path))
                warm(folders)
                measured["warm"].append(self.single(path))
        ways = self.ways()
        measured["limit"], measured["cold"] = [], []
        for _ in range(self.args.repeat):
            measured["limit"].append(limit(folders, self.folder / "written", ways))
            evict(folders)
            measured["cold"].append(self.single(path))
        return measured

    def grid_configs(self):
        """The eleven configs of the SLERP grid, and the folders of their two models."""
        made = [self.config("grid", f"t{t}", config("slerp", ["math", "code"], "math", f"t: {t}")) for t in GRID]
        return [path for path, _ in made], made[0][1]

    def grid(self):
        """Fan-out beside eleven single merges of ours, inputs evicted before each, and beside the limit."""
        paths, folders = self.grid_configs()
        ways = self.ways()
        measured = {"bytes": n_bytes(self.shapes["grid"]), "fan-out": [], "singles": [], "limit": []}
        for _ in range(self.args.repeat):
            singles = []
            for path in paths:
                evict(folders)
                singles.append(self.single(path))
            measured["singles"].append(in_sum(singles))
            evict(folders)
            measured["fan-out"].append(self.fan_out(paths))
            measured["limit"].append(limit(folders, self.folder / "written", ways, len(paths)))
        return measured

    def grid_beside_mergekit(self):
        """Fan-out beside eleven calls of mergekit's, inputs in the page cache."""
        paths, folders = self.grid_configs()
        measured = {"bytes": n_bytes(self.shapes["grid"]), "mergekit": [], "warm": []}
        for turn in range(self.args.repeat):
            warm(folders)
            measured["warm"].append(self.fan_out(paths))
            # Eleven starts of a slow program: once is enough.
            if turn == 0 and not self.args.skip_mergekit:
                warm(folders)
                measured["mergekit"].append(in_sum([self.theirs(path) for path in paths]))
        return measured

    def growth(self, shape):
        """Our time for a shape, inputs in the page cache."""
        measured = {"bytes": n_bytes(self.shapes[shape])}
        for method in GROWTH_METHODS:
            path, folders = self.config(shape, method, METHODS[method])
            measured["inputs"] = len(folders)
            measured[method] = []
            for _ in range(self.args.repeat):
                warm(folders)
                measured[method].append(self.single(path))
        return measured

    def profile(self, name):
        """One merge of ours under perf, and the functions it spends its time in."""
        path, folders = self.config("1.1B", name, METHODS[name])
        warm(folders)
        data = self.folder / "perf.data"
        merge = [self.mergesweep, "merge", path, self.out / "one", *FLAGS]
        run(["perf", "record", "--quiet", "--freq", "499", "--output", data, "--", *merge], [self.out / "one"])
        perf = ["perf", "report", "--stdio", "--no-children", "--percent-limit", "1", "--sort", "symbol", "--input", str(data)]
        shown = subprocess.run(perf, capture_output=True, text=True)
        if shown.returncode != 0:
            raise Failed(f"perf report: {shown.stderr.strip()[-200:]}")
        print(f"**{name}**, share of CPU time by function\n\n```")
        print("\n".join(line.rstrip() for line in shown.stdout.splitlines() if line.strip() and not line.startswith("#")))
        print("```")

    def check_disk(self, names):
        """End where the disk has no room for what the rows make."""
        shapes = {"grid": 2} if any(name.startswith("grid") for name in names) else {}
        shapes |= {name.split()[1]: 3 for name in names if name.startswith("growth")} | {"1.1B": 3}
        needed = 0
        for shape, count in shapes.items():
            for name in MODELS[-count:]:
                needed += 0 if (self.folder / shape / name / "config.json").is_file() else n_bytes(self.shapes[shape])
        outputs = [n_bytes(self.shapes["1.1B"])] + ([len(GRID) * n_bytes(self.shapes["grid"])] if "grid" in shapes else [])
        needed += max(outputs) + 10**9
        BENCH.mkdir(exist_ok=True)
        free = shutil.disk_usage(BENCH).free
        if free < needed:
            fail(f"only {free / 1e9:.1f} GB free here: expected {needed / 1e9:.1f} GB", "delete .bench, or measure fewer --rows")

    def all(self, names):
        """Measure what is missing, while there is time."""
        missing = [name for name in names if self.args.redo or not self.is_done(name)]
        self.check_disk(missing)
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in missing:
            if time.monotonic() - self.begun > self.args.budget:
                say(f"out of time: the same command goes on with `{name}`")
                return
            if name == "grid beside mergekit" and self.args.skip_mergekit:
                continue
            say(f"measuring {name}")
            try:
                self.measure(name)
            except Failed as failed:
                say(f"failed: {name}: {failed}")
                self.rows[name] = {"row": name, "failed": str(failed)}


def fastest(disk):
    """The faster way to read, and the one to write."""
    return [min(disk[side], key=lambda way: median(disk[side][way])) for side in ("reading", "writing")]


def in_sum(runs):
    """Several runs as one: what they took together, and the highest peak."""
    total = {key: sum(run[key] for run in runs) for key in runs[0]}
    return total | {"peak": max(run["peak"] for run in runs)}


# --- The table -------------------------------------------------------------------------------------------------------


def median(runs, key="wall"):
    """Median of one figure of several runs."""
    return statistics.median(run[key] for run in runs)


def shown(runs, key="wall", scale=1.0):
    """Median with the smallest and the largest."""
    values = [run[key] / scale for run in runs]
    if len(values) == 1:
        return f"{figure(values[0])} (once)"
    return f"{figure(statistics.median(values))} ({figure(min(values))}–{figure(max(values))})"


def figure(value):
    """Three digits, or all that a larger number has before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else "0"


def judged(value, goal, least):
    """A figure beside its goal."""
    if goal is None:
        return f"{figure(value)} (no goal)"
    met = value >= goal if least else value <= goal
    return f"{figure(value)} ({'≥' if least else '≤'} {goal:g}: {'met' if met else '**missed**'})"


def table(title, head, rows):
    """Print a Markdown table, if it has rows."""
    if rows:
        print(f"\n**{title}**\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
        for row in rows:
            print(f"| {' | '.join(row)} |")


def report(bench):
    """Print every row that is measured."""
    sound = {name: measured for name, measured in bench.rows.items() if not measured.get("failed")}
    methods = [name for name in [*METHODS, NO_RESCALE] if name in sound]
    print(f"{platform.machine()}, {os.cpu_count()} cores, {memory_gib():.0f} GiB of memory. A checkpoint has "
          f"{n_bytes(bench.shapes['1.1B']) / 1e9:.2f} GB. Medians (smallest–largest) of whole commands; wall time ends when the "
          "output is synced.")
    if bench.size == "quick":
        print("\nTiny checkpoints, to test the script: the ratios mean nothing.")
    if len({measured["binary"] for name, measured in sound.items() if name != "disk"}) > 1:
        print("\nNot all rows were measured with the same binary of mergesweep.")
    head = ["method", "inputs", "mergekit s", "mergesweep s", "wall ÷", "mergekit CPU s", "mergesweep CPU s", "CPU ÷",
            "mergekit peak MiB", "mergesweep peak MiB"]
    rows = []
    for name in methods:
        measured, (wall_goal, cpu_goal, _) = sound[name], GOALS[name]
        kit, ours = measured.get("mergekit"), measured.get("warm")
        if kit:
            peak = max(run["peak"] for run in ours + measured["cold"]) / MIB
            rows.append([name, str(measured["inputs"]), shown(kit), shown(ours), judged(median(kit) / median(ours), wall_goal, True),
                         shown(kit, "cpu"), shown(ours, "cpu"), judged(median(kit, "cpu") / median(ours, "cpu"), cpu_goal, True),
                         figure(max(run["peak"] for run in kit) / MIB), judged(peak, PEAK_MIB, False)])
    table("Beside mergekit 0.1.5, inputs in the page cache for both", head, rows)
    if "disk" in sound:
        disk = sound["disk"]
        rows = [[side, way, shown(runs), figure(disk["bytes"] / 1e9 / median(runs)), "yes" if way == taken else ""]
                for side, taken in zip(("reading", "writing"), fastest(disk)) for way, runs in disk[side].items()]
        table("The disk, one checkpoint with `dd bs=16M`, read after eviction, written with fsync",
              ["what", "how", "s", "GB/s", "taken for the limit"], rows)
    rows = [[name, str(sound[name]["inputs"]), shown(sound[name]["limit"]), shown(sound[name]["cold"]),
             judged(median(sound[name]["cold"]) / median(sound[name]["limit"]), GOALS[name][2], False),
             judged(max(run["peak"] for run in sound[name]["cold"]) / MIB, PEAK_MIB, False)] for name in methods]
    table("Beside the limit (inputs read once, output written), inputs evicted before every run",
          ["method", "inputs", "limit s", "mergesweep s", "wall ÷ limit", "peak MiB"], rows)
    rows = []
    if "grid" in sound:
        grid = sound["grid"]
        rows.append(["evicted before each merge", "eleven single merges", shown(grid["singles"]), shown(grid["fan-out"]),
                     "fan-out ÷ singles: " + judged(median(grid["fan-out"]) / median(grid["singles"]), GRID_SHARE, False),
                     judged(max(run["peak"] for run in grid["fan-out"]) / MIB, PEAK_MIB, False)])
        rows.append(["evicted", "limit: two models read, eleven written", shown(grid["limit"]), shown(grid["fan-out"]),
                     "fan-out ÷ limit: " + judged(median(grid["fan-out"]) / median(grid["limit"]), None, False), ""])
    if sound.get("grid beside mergekit", {}).get("mergekit"):
        grid = sound["grid beside mergekit"]
        rows.append(["in the page cache", "eleven mergekit-yaml calls", shown(grid["mergekit"]), shown(grid["warm"]),
                     "mergekit ÷ fan-out: " + judged(median(grid["mergekit"]) / median(grid["warm"]), GRID_RATIO, True),
                     judged(max(run["peak"] for run in grid["warm"]) / MIB, PEAK_MIB, False)])
    table(f"Eleven-point SLERP grid, {n_bytes(bench.shapes['grid']) / 1e9:.2f} GB an output, fan-out in one call",
          ["inputs", "beside", "s", "fan-out s", "ratio", "peak MiB"], rows)
    rows = []
    for method in GROWTH_METHODS:
        for shape in GROWTH:
            measured = sound.get(f"growth {shape}")
            if measured:
                moved = measured["bytes"] * (measured["inputs"] + 1)
                rows.append([method, f"{moved / 1e9:.2f}", shown(measured[method]), figure(moved / 1e9 / median(measured[method]))])
    table("Growth: bytes read and written, inputs in the page cache", ["method", "GB", "s", "GB/s"], rows)
    rows = []
    for name in methods:
        for cache in ("warm", "cold"):
            runs = sound[name].get(cache)
            if runs:
                wall, user, system = median(runs), median(runs, "user"), median(runs, "system")
                rows.append([name, "page cache" if cache == "warm" else "evicted", shown(runs), figure(user), figure(system),
                             f"{(user + system) / wall:.2f}", figure(median(runs, "sync")), figure(median(runs, "read") / 1e9),
                             f"{median(runs, 'faults'):.0f}"])
    table("Where the time of mergesweep goes; what no core is busy with is waiting for the disk",
          ["method", "inputs", "wall s", "user s", "system s", "busy cores", "sync after exit s", "read from disk GB", "major faults"], rows)
    for name, measured in bench.rows.items():
        if measured.get("failed"):
            print(f"\n`{name}` failed: {measured['failed']}")
    missing = [name for name in ROWS if name not in bench.rows]
    if missing:
        print(f"\nNot measured: {', '.join(missing)}.")


def memory_gib():
    """Memory of the machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)


def main():
    parser = argparse.ArgumentParser(
        prog="scripts/bench-merge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="rows: " + ", ".join(ROWS) + "\n\nenvironment: MERGESWEEP and MERGEKIT_YAML name programs that are there already;\n"
        "without them the release binary is built, and mergekit 0.1.5 installed into .bench/venv.")
    parser.add_argument("--rows", metavar="NAMES", help="rows to measure, with commas between them (default: all)")
    parser.add_argument("--repeat", metavar="N", type=int, default=3, help="runs of each (default 3; slow ones of mergekit once)")
    parser.add_argument("--redo", action="store_true", help="measure also what is measured")
    parser.add_argument("--skip-mergekit", action="store_true", help="measure mergesweep and the limit only")
    parser.add_argument("--quick", action="store_true", help="tiny checkpoints, to test this script: its ratios mean nothing")
    parser.add_argument("--budget", metavar="SECONDS", type=float, default=3000,
                        help="start no row after this time; the next start goes on (default 3000)")
    parser.add_argument("--profile", metavar="METHOD", choices=METHODS,
                        help="run one merge of ours under perf, print where its CPU time goes, and measure nothing else (build with "
                        "CARGO_PROFILE_RELEASE_STRIP=none to see names)")
    parser.add_argument("--report", action="store_true", help="print the table of what is measured, and measure nothing")
    args = parser.parse_args()
    names = [name.strip() for name in args.rows.split(",")] if args.rows else ROWS
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        fail(f"unknown row `{unknown[0]}`", f"rows: {', '.join(ROWS)}")
    if args.repeat < 1:
        fail(f"--repeat: expected at least 1, found {args.repeat}")
    bench = Bench(args)
    if not args.report:
        if not bench.mergesweep:
            fail("MERGESWEEP names no program", "start this with scripts/bench-merge")
        if args.profile:
            return bench.profile(args.profile)
        if not bench.mergekit and not args.skip_mergekit:
            fail("MERGEKIT_YAML names no program", "start this with scripts/bench-merge, or give --skip-mergekit")
        bench.all(names)
    report(bench)
    sys.exit(1 if any(row.get("failed") for row in bench.rows.values()) else 0)


if __name__ == "__main__":
    main()
