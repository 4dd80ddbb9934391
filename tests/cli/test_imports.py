"""What is not asked for is not imported: it takes seconds at every start."""

from __future__ import annotations

import subprocess
import sys

from tests.harness import environment

HEAVY = ("transformers", "wandb", "mlflow", "pyarrow", "pandas", "datasets", "torch._dynamo", "tensorboard", "sklearn")
PROGRAM = """
import sys
import disttrain
disttrain.train, disttrain.evaluate, disttrain.Callback, disttrain.State, disttrain.Supervised, disttrain.totals
sys.argv = ["disttrain", "show"]
from disttrain.cli.main import main
main()
print("imported:", *sorted(set(sys.modules) & set(sys.stdin.read().split())))
"""


def test_show_and_the_names_of_the_package_import_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment(),
        input=" ".join((*HEAVY, "torch")),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "peak learning rate" in done.stdout
    assert done.stdout.splitlines()[-1] == "imported: torch"
