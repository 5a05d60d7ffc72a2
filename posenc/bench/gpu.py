"""What a card does, in some minutes: `python -m posenc.bench.gpu --json FILE`, from a source tree; `nox -s gpu`.

First every encoding, attention, form and backend against the CPU in float64 (agreement), in several processes; then
real steps of tasks (steps); then the table of speed (run). After each part the file is written anew: what a run had no
time for is missing in it and named. With `--device cpu --tiny` the same runs in seconds, to see that it can.

Needs torch and the light dependencies alone. Exit status 1 where anything failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from posenc.common.text import as_json

Row = dict[str, Any]
SHARES = {"agreement": 0.5, "steps": 0.75}
"""By which share of the minutes a part must have ended; the table of speed has the rest."""
TINY = ["t5"]
PART = "posenc.bench.gpu"
LENGTH = 300
"""Tokens of a row that is compared: more than two of the chunks that linear attention has on a GPU, and of the blocks
that FlexAttention has."""


def _part(names: Sequence[str], device: str, tiny: bool, file: Path) -> None:
    """Some encodings' comparisons, a line each, written as they are made."""
    from posenc.bench import agreement

    with file.open("a", encoding="utf-8") as lines:
        for row in agreement.compare(names, device, length=48 if tiny else LENGTH, tiny=tiny):
            lines.write(json.dumps(row) + "\n")
            lines.flush()
        lines.write(json.dumps({"ended": True}) + "\n")


def _agreement(names: Sequence[str], device: str, tiny: bool, jobs: int, until: float) -> tuple[list[Row], list[str]]:
    """All comparisons that ended in time, and what was left out."""
    with tempfile.TemporaryDirectory() as folder:
        running, left_out = [], list[str]()
        for job in range(jobs):
            mine, file = names[job::jobs], Path(folder) / f"{job}.jsonl"
            if not mine:
                continue
            command = [sys.executable, "-m", PART, "--device", device, "--part", ";".join(mine), "--json", str(file)]
            command += ["--tiny"] if tiny else []
            running.append((subprocess.Popen(command, stderr=subprocess.PIPE, text=True), mine, file))
        rows = []
        for process, mine, file in running:
            try:
                _, said = process.communicate(timeout=max(until - time.monotonic(), 1))
                why = (said.strip().splitlines() or ["no message"])[-1]
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                why = "out of time"
            text = file.read_text(encoding="utf-8") if file.exists() else ""
            found = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
            rows += [row for row in found if "ended" not in row]
            if not any("ended" in row for row in found):
                done = [row["encoding"] for row in found]
                left_out.append(f"agreement of {', '.join(name for name in mine if name not in done[:-1])}: {why}")
    return rows, left_out


def summary(rows: Sequence[Row]) -> Row:
    """How many agree, the worst by backend and precision, and each that failed or could not be, by its reason."""
    worst: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["passed"] is not None and "error" in row:
            of = worst.setdefault(f"{row['attention']} {row['backend']}", {})
            of[row["precision"]] = max(of.get(row["precision"], 0.0), row["error"], row["gradient_error"])
    refused: dict[str, int] = {}
    for row in rows:
        if row["passed"] is None:
            refused[row["reason"]] = refused.get(row["reason"], 0) + 1
    return {
        "agreed": sum(row["passed"] is True for row in rows),
        "worst": worst,
        "failed": [row for row in rows if row["passed"] is False],
        "refused": refused,
    }


def _steps(device: str, tiny: bool, data: Path | None, reached: Any, until: float, left_out: list[str]) -> list[Row]:
    from posenc.bench import steps

    ways = ("none", "cudagraphs") if device == "cuda" else ("none",)
    tasks = (("enwik8", "softmax", "rope"), ("glue/sst2", "softmax", "rope")) if tiny else steps.TASKS
    given: Row = {"scale": "smoke" if tiny else "small", "data": data, "reached": reached}
    given |= {"steps": (1, 1, 0)} if tiny else {}
    rows = []
    for compile in ways:
        for task, attention, encoding in tasks:
            if time.monotonic() > until:
                left_out.append(f"steps of {task}, {attention}, {encoding}, compile {compile}: out of time")
                continue
            rows.append(steps.measure(task, attention, encoding, device, compile=compile, **given))
    return rows


def _speed(device: str, tiny: bool, until: float, left_out: list[str], say: Callable[[str], None]) -> list[Row]:
    from posenc.api import registry
    from posenc.bench import run

    dtype = "bfloat16" if device == "cuda" else "float32"
    same: Row = {"device": device, "dtype": dtype, "rounds": 1 if tiny else 10, "memory": False}
    wanted: list[Row] = [{"encodings": ["rope"], "lengths": [16], "peers": False, "attentions": ["softmax"]}]
    if not tiny:
        by_distance = ["t5", "alibi", "shaw"]
        wanted = [
            {"encodings": list(registry.BUILT_IN), "lengths": [512]},
            {"encodings": ["rope", *by_distance], "lengths": [2048, 8192, 16384], "peers": False},
            *({"encodings": by_distance, "lengths": [1024, 2048, 4096, 8192], "backend": backend, "peers": False,
               "attentions": ["softmax"]} for backend in ("sdpa", "flex", "xformers")),
            {"encodings": ["rope"], "size": "bert-base", "compile": "inductor", "attentions": ["softmax"]},
            {"encodings": ["rope"], "lengths": [128], "compile": "cudagraphs", "peers": False},
        ]  # fmt: skip
    rows = []
    for more in wanted:
        for length in more.pop("lengths", [512]):
            if time.monotonic() > until:
                left_out.append(f"speed of {', '.join(more['encodings'])} at {length} tokens: out of time")
                continue
            options = run.Options(**(same | more | {"lengths": [length], "compile_limit": 60}))
            rows += run.measure(options, say)
    return rows


def measure(
    device: str, file: Path, *, tiny: bool, jobs: int, minutes: float, data: Path | None, say: Callable[[str], None]
) -> Row:
    """All parts; what was found is in the file after each."""
    import torch

    from posenc.bench import agreement, rates
    from posenc.records import provenance

    start = time.monotonic()
    ends = {name: start + 60 * minutes * share for name, share in {**SHARES, "speed": 1.0}.items()}
    left_out: list[str] = []
    dtype = "bfloat16" if device == "cuda" else "float32"
    found: Row = {"torch": torch.__version__, "hardware": provenance.hardware(device), "left_out": left_out}

    def keep(name: str, value: Any) -> None:
        found[name] = value
        found["seconds"] = time.monotonic() - start
        file.write_text(as_json(found) + "\n", encoding="utf-8")
        say(f"{name}: {found['seconds']:.0f} s since the start")

    names = TINY if tiny else agreement.encodings()
    rows, missing = _agreement(names, device, tiny, jobs, ends["agreement"])
    left_out += missing
    keep("agreement", summary(rows))
    reached = rates.measure(device, dtype)
    keep("reached", {"flops": reached.flops, "copied": reached.copied, "dtype": dtype})
    keep("steps", _steps(device, tiny, data, reached, ends["steps"], left_out))
    keep("speed", _speed(device, tiny, ends["speed"], left_out, say))
    return found


def told(found: Row) -> list[str]:
    """What people read: counts, the worst, and every failure with its reason."""
    agreed = found["agreement"]
    lines = [f"{agreed['agreed']} comparisons agree, {len(agreed['failed'])} do not"]
    lines += [f"  worst of {name}: {worst}" for name, worst in sorted(agreed["worst"].items())]
    lines += [f"  FAILED {' '.join(str(row[key]) for key in ('encoding', 'attention', 'form', 'rows', 'backend'))},"
              f" {row['precision']}: {row['reason']}" for row in agreed["failed"]]  # fmt: skip
    lines += [f"  not possible, {times} times: {why}" for why, times in agreed["refused"].items()]
    for row in found["steps"]:
        name = f"step of {row['task']}, {row['attention']}, {row['encoding']}, compile {row['compile']}"
        if row["reason"]:
            lines.append(f"{name}: {row['reason']}")
            continue
        more = "" if row["works"] is None else f", the card works {row['works']:.0%}, {row['launches']:.0f} launches"
        lines.append(f"{name}: {row['milliseconds']:.1f} ms, {row['tokens_a_second']:.3g} tokens/s{more}")
    lines += [f"{row['subject']}, {row['encoding']}, {row['length']} tokens, {row['pass']}: {row['reason']}"
              for row in found["speed"] if row["reason"]]  # fmt: skip
    return lines + [f"left out: {line}" for line in found["left_out"]]


def failed(found: Row) -> bool:
    """Whether anything went wrong: what differs, comparisons that ended without an answer, a step that cannot run.

    What a run had no time for is no failure; a card on which nothing was compared is one.
    """
    agreed = found["agreement"]
    ended = [line for line in found["left_out"] if line.startswith("agreement of") and not line.endswith("out of time")]
    steps = [row for row in found["steps"] if row["reason"] and not row["reason"].startswith("not possible")]
    return bool(agreed["failed"] or not agreed["agreed"] or ended or steps)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit status: 1 where a comparison failed, 2 where the device is not there."""
    ask = argparse.ArgumentParser(prog=f"python -m {PART}", description=__doc__.splitlines()[0])
    ask.add_argument("--json", type=Path, required=True, help="where what is found is written")
    ask.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    ask.add_argument("--minutes", type=float, default=6.0, help="what has not begun by then is left out, and named")
    ask.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="processes that compare")
    ask.add_argument("--data", type=Path, default=os.environ.get("POSENC_DATA"), help="official data")
    ask.add_argument("--tiny", action="store_true", help="a few small cases of each part")
    ask.add_argument("--part", help=argparse.SUPPRESS)
    given = ask.parse_args(arguments)
    if given.part:
        _part(given.part.split(";"), given.device, given.tiny, given.json)
        return 0
    from posenc.common.errors import PosencError
    from posenc.training.runtime import require_device

    try:
        require_device(given.device)
    except PosencError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = measure(
        given.device, given.json, tiny=given.tiny, jobs=given.jobs, minutes=given.minutes, data=given.data, say=print
    )
    print(*told(found), sep="\n")
    return int(failed(found))


if __name__ == "__main__":
    sys.exit(main())
