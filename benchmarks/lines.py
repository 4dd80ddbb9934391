"""How many lines ten tasks take with disttrain, Accelerate and Lightning.

    python benchmarks/lines.py > benchmarks/lines.md

Counted are lines that are neither empty nor comments, of the programs in ``examples/ten_tasks``, all formatted alike (ruff, 120
columns). What all three begin with (data sets, networks) is in ``shared.py`` there and not counted.
"""

from __future__ import annotations

from pathlib import Path

TASKS = {
    "own_model": "train a model of one's own",
    "fine_tune": "fine-tune from a file, the new head first",
    "padding": "data in dicts, with padding",
    "own_metric": "a metric of one's own",
    "wandb": "log to W&B",
    "resume": "stop, and resume on other ranks",
    "average": "take the best averaged model into plain torch",
    "own_loop": "a loop of one's own with mixed precision",
    "contrastive": "a contrastive loss over the global batch",
    "sweep": "a sweep from Python",
}
LIBRARIES = ("disttrain", "accelerate", "lightning")
PROGRAMS = Path(__file__).resolve().parents[1] / "examples/ten_tasks"

HEAD = """# Lines for ten tasks

`python benchmarks/lines.py > benchmarks/lines.md`. Lines that are neither empty nor comments, of the programs in
`examples/ten_tasks`, formatted alike; what all three begin with (`shared.py`) is not counted. All thirty run
(`tests/docs/test_ten_tasks.py`), against Accelerate 1.15.0 and Lightning 2.6.6. They do not all do the same: on another number of
ranks only disttrain's is the same run; in `resume`, Accelerate goes on at a whole batch of its new size and Lightning exactly
at ends of epochs only; Lightning's metrics are means of batch means."""


def lines(task: str, library: str) -> int:
    program = (PROGRAMS / task / f"with_{library}.py").read_text().splitlines()
    return sum(1 for line in program if line.strip() and not line.lstrip().startswith("#"))


def table() -> str:
    rows = ["| task | disttrain | Accelerate | Lightning |", "|---|---|---|---|"]
    rows += [
        f"| {about} | {' | '.join(str(lines(task, library)) for library in LIBRARIES)} |"
        for task, about in TASKS.items()
    ]
    return f"{HEAD}\n\n" + "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
