"""Tasks, suites, objectives, metrics, sources, backends and columns: what the registries and the files hold."""

from __future__ import annotations

from typing import Any

from derived.text import code, linked, table
from posenc.api import sections as report_sections
from posenc.attention.softmax import kernel
from posenc.common.paths import content
from posenc.common.toml import read_toml
from posenc.config.claim import ANY, Claim, SuiteOfClaims
from posenc.config.objectives import OBJECTIVES, objective
from posenc.config.places import available
from posenc.config.suite import Suite, Times
from posenc.config.task import SCALES, Task, task_at
from posenc.data.sources import FILES, GENERATED
from posenc.objectives.metrics import KNOWN
from posenc.plan.selection import find_suite
from posenc.report.statistics.tables import CELL_FIELDS, SCORE_FIELDS

COLUMNS = {
    "id": "the cell's id: it hashes all that decides its numbers",
    "name": "the cell's name",
    "suite": "the suite that ran it",
    "task": "the task",
    "scale": "its scale",
    "attention": "`softmax` or `performer`",
    "variant": "what else the suite varies, as `key=value`; mostly empty",
    "length": "the trained length, in tokens",
    "encoding": "the encoding with its options",
    "label": "the row's name in the report",
    "seed": "the seed",
    "status": "how the cell ended",
    "reason": "why it ended without scores",
    "cause": "`machine` where a failure says nothing of training (memory, time, a killed process)",
    "split": "the split that was scored",
    "evaluated": "the length that was scored, in tokens",
    "metric": "the metric's name",
    "title": "the metric as people read it",
    "better": "`lower` or `higher`",
    "main": "whether it is the task's main metric",
    "value": "the score; NaN where there is none",
    "items": "how many items the score is over",
    "why": "why there is no score",
}
"""Of the columns that are no field of a record, as the function that fills them has them."""


def columns() -> str:
    """The columns of `load_records`, in their order; one without a meaning here stops the build."""
    rows = [
        (code(name), f"`{'.'.join(CELL_FIELDS[name])}` of the record" if name in CELL_FIELDS else COLUMNS[name])
        for name in SCORE_FIELDS
    ]
    if left := set(COLUMNS) - set(SCORE_FIELDS):
        raise ValueError(f"load_records has no columns {sorted(left)}")
    return table(("column", "what it holds"), rows)


def tasks() -> str:
    """Every task that posenc brings, at each scale."""
    return "\n\n".join(_task(name) for name in available("tasks") if (content("tasks") / f"{name}.toml").is_file())


def _task(name: str) -> str:
    scales = read_toml(available("tasks")[name]).get("scales", {})
    made = {scale: task_at(name, scale, {}) for scale in SCALES if scale in scales or not scales}
    one = next(iter(made.values()))
    card = one.card
    rows = [(label, *(of(task) for task in made.values())) for label, of in _FACTS.items()]
    lines = [
        f"### {name}",
        f"{one.title}. {card.summary}",
        f"Objective: `{one.objective}`. Paper: {linked(card.paper)}, {card.section}.",
        table(("", *made), [row for row in rows if any(row[1:])]),
    ]
    for title, texts in {
        "The paper says": card.paper_says,
        "We chose": card.we_chose,
        "Departures from the model named": card.departures,
        "Before you compare with the paper": card.caveats,
    }.items():
        if texts:
            lines.append(f"**{title}**\n\n" + "\n".join(f"- {text}" for text in texts))
    for label, text in {"Data": card.data, "Licence": card.licence, "Revision": card.revision}.items():
        if text:
            lines.append(f"{label}: {text}.")
    return "\n\n".join(lines)


def _steps(task: Task) -> str:
    stages = task.training.stages
    return f"{task.training.steps:,}" + (f" in {len(stages)} stages" if stages else "") if task.training.steps else ""


_FACTS: dict[str, Any] = {
    "data": lambda task: code(task.data.source),
    "length": lambda task: f"{task.length:,}",
    "scored at": lambda task: ", ".join(f"{longer:,}" for longer in task.evaluation.lengths(task.length)),
    "form": lambda task: task.backbone.form,
    "attention": lambda task: task.backbone.attention,
    "layers": lambda task: str(task.backbone.layers),
    "width": lambda task: f"{task.backbone.width:,}",
    "heads": lambda task: str(task.backbone.heads),
    "tokeniser": lambda task: code(task.data.tokeniser),
    "vocabulary": lambda task: f"{task.backbone.vocabulary:,}",
    "steps": _steps,
    "batch": lambda task: str(task.training.batch) if task.training.steps else "",
    "learning rate": lambda task: f"{task.training.learning_rate:g}" if task.training.steps else "",
    "starts from": lambda task: code(task.start),
}


def suites() -> str:
    """Every suite that posenc brings, grid by grid."""
    return "\n\n".join(_suite(find_suite(name)) for name in available("suites"))


def _suite(suite: Suite) -> str:
    facts = [f"baseline `{suite.baseline}`", *([f"claim `{suite.claim}`"] if suite.claim else [])]
    facts += [f"scale `{suite.scale}`", f"seeds {', '.join(map(str, suite.seeds))}"]
    rows = []
    for _, grid in Suite.placed(suite, suite.scale):
        changed = [f"{key} = {value}" for key, value in grid.set.items()]
        changed += [f"{key}: {value}" for key, value in grid.vary.items()]
        changed += [f"{key}, tuned: {_values(value)}" for key, value in grid.tune.items()]
        if grid.lengths:
            changed.append(f"length: {_values(grid.lengths)}")
        rows.append(
            (", ".join(map(code, grid.tasks)), ", ".join(map(code, grid.encodings)), "; ".join(map(code, changed)))
        )
    tables = [table(("tasks", "encodings", "set, varied, tuned"), rows)] if rows else []
    if isinstance(suite, SuiteOfClaims):
        tables.append(table(("claim", "who says so", "tested on"), [_claim(one) for one in suite.ledger]))
    whole = "\n\n".join(tables)
    return f"### {suite.name}\n\n{suite.title}. {suite.description}\n\n{'; '.join(facts)}.\n\n{whole}"


def _claim(claim: Claim) -> tuple[str, str, str]:
    tested = claim.why_not(ANY) or ", ".join(filter(None, (code(claim.task), claim.attention)))
    return f"{code(claim.name)}: {claim.says}", f"{claim.who}, {claim.paper}, {claim.where}", tested


def _values(given: Any) -> str:
    return f"{given.times} times the task's own" if isinstance(given, Times) else str(given)


def objectives() -> str:
    """Every objective that posenc brings, as its class declares it."""
    rows = []
    for name, entry in OBJECTIVES.entries().items():
        if not entry.target.startswith("posenc."):
            continue
        kind = objective(name)
        read = " or ".join("/".join(names) for names in kind.columns) or "bytes" * kind.reads
        read = "symbols" if kind.tokenisers == ("symbols",) else read
        yes = {True: "yes", False: "no"}
        form = " or ".join(kind.forms or (kind.form,))
        rows.append((code(name), form, kind.head, read, ", ".join(kind.tokenisers), yes[kind.packs], yes[kind.staged]))
    head = ("objective", "form", "head", "columns", "tokenisers", "packs rows", "in stages")
    return table(head, rows)


def metrics() -> str:
    """Every metric, and how its sampling error is told."""
    how = {
        "": "not from items",
        "mean": "a mean over items",
        "exp_mean": "e to the power of a mean over items",
        "bleu": "over the whole corpus",
    }
    rows = [
        (code(one.name), one.title, one.better, how.get(one.over, "from answers and truths"), one.test or "none")
        for one in KNOWN.values()
    ]
    return table(("metric", "title", "better", "made", "test over items"), rows)


def sources() -> str:
    """Every source of data by its name, and what its columns are where code makes it."""
    rows = [(code(name), "official files") for name in FILES if name != "stdlib"]
    rows.append((code("stdlib"), "the source text of Python's standard library, as it is installed"))
    rows += [(code(f"generated/{name}"), f"made by code: {', '.join(made[1])}") for name, made in GENERATED.items()]
    return table(("`data.source`", "what it is"), rows)


def backends() -> str:
    """The backends of softmax attention, as their own file tells of them."""
    doc = kernel.__doc__ or ""
    block = doc.partition("Backends:\n")[2]
    rows = [line.split(maxsplit=1) for line in block.splitlines() if line.startswith("    ")]
    rule = " ".join(block.partition("`auto`")[2].split())
    return table(("backend", "what it is"), [(code(name), text) for name, text in rows]) + f"\n\n`auto` {rule}"


def sections() -> str:
    """The sections of the report in their order, each as its own file tells of it."""
    found = []
    for name, entry in report_sections.entries().items():
        if entry.target.startswith("posenc."):
            section = report_sections.load(name)
            doc = __import__(type(section).__module__, fromlist=["_"]).__doc__ or ""
            found.append((section.order, code(name), " ".join(doc.split())))
    return table(("section", "what it says"), [row[1:] for row in sorted(found)])


def bibtex() -> str:
    """An entry for posenc itself, of what CITATION.cff says."""
    import yaml

    said = yaml.safe_load((content("tasks").parent / "CITATION.cff").read_text(encoding="utf-8"))
    authors = " and ".join(f"{{{author['name']}}}" for author in said["authors"])
    fields = {
        "title": f"{{{said['title']}}}",
        "author": authors,
        "note": f"Version {said['version']}, {said['license']} licence",
    }
    lines = [f"  {key:<6} = {{{value}}}," for key, value in fields.items()]
    return "\n".join(["```bibtex", "@misc{posenc,", *lines, "}", "```"])
