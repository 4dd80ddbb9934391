"""``disttrain evaluate``."""

from __future__ import annotations

from disttrain.cli.options import Device, Engine, RunDir


def evaluate(run_dir: RunDir, engine: Engine = "auto", device: Device = "auto") -> None:
    """Evaluate the newest valid checkpoint of a run on its test set, and on its validation set if there is one, on any number of
    ranks."""
    from disttrain.engine.environment import read_launch
    from disttrain.errors import NoCheckpointError

    launch = read_launch()
    if not (run_dir / "recipe.yaml").is_file():
        raise NoCheckpointError(f"{run_dir} holds no run: recipe.yaml is missing")

    from disttrain.cli.job import job
    from disttrain.config import load_recipe
    from disttrain.engine.agreement import on_main
    from disttrain.telemetry import print_summary
    from disttrain.training.build import build_model
    from disttrain.training.evaluate import by_name, deciding
    from disttrain.training.evaluate import evaluate as evaluate_run
    from disttrain.training.persist import read, restore_weights

    with job(launch, engine, device) as (joined, _):
        recipe = on_main(joined, lambda: load_recipe(run_dir / "recipe.yaml"))
        checkpoint, refused = read(joined, run_dir)
        ready = build_model(recipe, joined)
        restore_weights(ready, checkpoint, averaged=True)
        step = joined.broadcast_object(checkpoint.step if checkpoint is not None else None)
        joined.phase = "evaluating"
        splits = dict.fromkeys((deciding(ready), "test"))
        metrics = by_name({split: evaluate_run(ready, split) for split in splits})
        if joined.world.is_main:
            warnings = {"passed over": "; ".join(refused)} if refused else {}
            summary = {**metrics, "updates": step, "run_dir": str(run_dir), **warnings}
            print_summary(summary, framed=joined.world.owns_terminal)
