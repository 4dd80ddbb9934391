"""``disttrain evaluate``."""

from __future__ import annotations

from disttrain.cli.options import Device, Engine, RunDir, Timeout, Trust, early


def evaluate(
    run_dir: RunDir, engine: Engine = "auto", device: Device = "auto", timeout: Timeout = None, trust: Trust = False
) -> None:
    """Evaluate the newest valid checkpoint of a run on its test set, and on its validation set if there is one, on any number of
    ranks."""
    from disttrain.config import Recipe, load_recipe, require_consent
    from disttrain.engine.environment import read_launch, time_limit
    from disttrain.errors import NoCheckpointError

    def saved() -> Recipe:
        if not (run_dir / "recipe.yaml").is_file():
            raise NoCheckpointError(f"{run_dir} holds no run: recipe.yaml is missing")
        recipe = load_recipe(run_dir / "recipe.yaml")
        if not trust:
            require_consent(recipe, run_dir / "recipe.yaml")
        return recipe

    launch, limit = read_launch(), time_limit(timeout)
    given = early(saved, alone=launch.size == launch.local_size)

    from disttrain.checkpoint import Checkpoint
    from disttrain.cli.job import job
    from disttrain.engine.agreement import everyone, on_main
    from disttrain.inference.evaluate import by_name, deciding
    from disttrain.inference.evaluate import evaluate as evaluate_run
    from disttrain.inference.prepared import Prepared, build_model
    from disttrain.inference.weights import read, restore_weights
    from disttrain.telemetry import print_summary

    with job(launch, engine, device, limit) as (joined, _):

        def set_up() -> tuple[Prepared, Checkpoint | None, list[str]]:
            recipe = on_main(joined, given)
            checkpoint, refused = read(joined, run_dir)
            ready = build_model(recipe, joined)
            restore_weights(ready, checkpoint, averaged=True)
            return ready, checkpoint, refused

        ready, checkpoint, refused = everyone(joined, set_up)
        joined.phase = "evaluating"
        splits = dict.fromkeys((deciding(ready), "test"))
        metrics = by_name({split: evaluate_run(ready, split) for split in splits})
        if joined.world.is_main:
            assert checkpoint is not None
            warnings = {"passed over": "; ".join(refused)} if refused else {}
            summary = {**metrics, "updates": checkpoint.step, "run_dir": str(run_dir), **warnings}
            print_summary(summary, framed=joined.world.owns_terminal)
