#!/usr/bin/env python3
"""Runs a framework's own trainer over the stub on configs, and prints llmlint's estimate beside it.

    run.py FRAMEWORK [CASE...]  --work DIR --llmlint BINARY [--csv FILE] [--peak]

CASE is a name of cases.py or a config file whose paths are those of DIR (models/NAME, data/...).
Without one, every case runs. Run it with the Python of the framework's environment (README.md).
"""

import argparse
import csv
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import common  # noqa: E402
import peak  # noqa: E402
from cases import CASES  # noqa: E402

COLUMNS = ["id", "framework", "version", "model", "config", "allocated_bytes", "reserved_bytes", "phase"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("framework", choices=sorted(path.name.removesuffix("_driver.py") for path in HERE.glob("*_driver.py")))
    arguments.add_argument("cases", nargs="*")
    arguments.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "run_framework")
    arguments.add_argument("--llmlint", default="llmlint")
    arguments.add_argument("--csv", type=Path, help="append the rows to this table")
    arguments.add_argument("--peak", action="store_true", help="print what is allocated at the peak")
    options = arguments.parse_args()
    options.csv = options.csv and options.csv.resolve()
    options.llmlint = str(Path(options.llmlint).resolve()) if "/" in options.llmlint else options.llmlint
    common.start_over_stub()
    driver = importlib.import_module(f"{options.framework}_driver")
    cases = getattr(driver, "CASES", None) or CASES[options.framework]
    models = json.loads((HERE / "models.json").read_text())
    options.work.mkdir(parents=True, exist_ok=True)
    os.chdir(options.work)
    (options.work / ".git").mkdir(exist_ok=True)
    if hasattr(driver, "prepare"):
        driver.prepare(options.work)
    else:
        for name, described in models.items():
            common.model_folder(Path("models") / name, described)
        driver.data("data", 2048)
    version = driver.load()
    for name in options.cases or cases:
        path = config_file(options.framework, cases, name)
        measured = in_a_child(driver, path, options.peak)
        found = estimate(path, options.llmlint)
        report(name, measured, found)
        for line in measured.get("peak", []):
            print("   ", line, flush=True)
        if options.csv and measured.get("allocated_bytes") and "error" not in measured:
            append(options.csv, options.framework, version, name, path, models, measured)


def config_file(framework, cases, name):
    """Writes a case's file. A dot in a key opens a table; the key `#` is a comment at the top."""
    if name not in cases:
        return Path(name)
    base, changes = cases[name]
    keys = {key: value for key, value in {**base, **changes}.items() if value is not None}
    comment = keys.pop("#", None)
    tables = {}
    for key, value in keys.items():
        table, (*outer, last) = tables, key.split(".")
        for part in outer:
            table = table.setdefault(part, {})
        table[last] = value
    suffix, text = (".toml", toml(tables)) if framework == "torchtitan" else (".yaml", yaml_text(tables))
    path = Path(f"{framework}-{name}{suffix}")
    path.write_text((f"# {comment}\n" if comment else "") + text)
    return path


def yaml_text(tables):
    import yaml

    return yaml.safe_dump(tables, sort_keys=False)


def toml(tables):
    """Tables of scalars, which is all a job file has. JSON's scalars are TOML's."""
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
        for name, table in tables.items()
    )


def in_a_child(driver, path, whole=False):
    """One case in a forked process: imports are shared, the device's state is not."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        log = os.open(f"{path}.log", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        answer = {}
        import torch

        # Imports may have started CUDA. The stub's state is plain memory, so a fork keeps it whole.
        torch.cuda._is_in_bad_fork = lambda: False
        meter = common.Meter().start()
        if whole:
            peak.record()
        try:
            driver.run(path)
        except SystemExit as done:
            if done.code:
                answer["error"] = f"SystemExit: {done.code}"[:200]
        except BaseException as error:  # noqa: BLE001
            traceback.print_exc()
            answer["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        try:
            if meter.started:
                answer.update(meter.row())
            if whole:
                answer["peak"] = list(peak.lines())
            sys.stdout.flush()
        finally:
            os.write(write, json.dumps(answer).encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {"error": "the process died"}


def estimate(path, binary):
    clean = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run([binary, "explain", "--format", "json", str(path)], capture_output=True, text=True, env=clean)
    try:
        file = json.loads(done.stdout)["files"][0]
    except (json.JSONDecodeError, LookupError):
        return {"unknown": done.stderr.strip()[:300]}
    return file.get("estimate") or {"unknown": file.get("unknown")}


def report(name, measured, found):
    error = measured.get("error", "")
    truth, guess = measured.get("allocated_bytes", 0), found.get("allocated_bytes", 0)
    difference = f"{100 * (guess / truth - 1):+7.2f} %" if truth and guess else "      -  "
    print(f"{name:32} {truth / 1e6:9.1f} {guess / 1e6:9.1f} MB {difference}  {measured.get('phase')}/{found.get('phase')} "
          f"reserved {measured.get('reserved_bytes', 0) / 1e6:.0f}/{found.get('reserved_bytes', 0) / 1e6:.0f} "
          f"steps {measured.get('steps')} {error} {found.get('unknown') or ''}", flush=True)


def append(table, framework, version, name, path, models, measured):
    text = path.read_text()
    model = next((json.dumps(models[name]) for name in models if f"models/{name}" in text), "")
    fresh = not table.exists()
    with table.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(COLUMNS)
        writer.writerow([f"{framework}-{name}", framework, version, model, text,
                         measured["allocated_bytes"], measured["reserved_bytes"], measured["phase"]])


if __name__ == "__main__":
    main()
