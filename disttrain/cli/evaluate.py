"""``disttrain evaluate``."""

from __future__ import annotations

from disttrain.cli.options import AtStep, Average, Best, Device, Engine, RunDir, Timeout, Trust, early, which_checkpoint


def evaluate(
    run_dir: RunDir,
    best: Best = False,
    checkpoint: AtStep = None,
    average: Average = None,
    engine: Engine = "auto",
    device: Device = "auto",
    timeout: Timeout = None,
    trust: Trust = False,
) -> None:
    """Evaluate a checkpoint of a run, the newest valid one unless another is asked for, on its test set, and on its validation
    set if there is one, on any number of ranks."""
    from disttrain.config import saved_recipe
    from disttrain.engine.environment import read_launch, time_limit

    which = which_checkpoint(best, checkpoint)
    launch, limit = read_launch(), time_limit(timeout)
    given = early(lambda: saved_recipe(run_dir, trust=trust), alone=launch.size == launch.local_size)

    from disttrain.cli.job import job
    from disttrain.engine.agreement import everyone, on_main
    from disttrain.inference.choice import Choice
    from disttrain.inference.evaluate import results
    from disttrain.inference.trained import load_trained
    from disttrain.telemetry import print_summary

    with job(launch, engine, device, limit) as (joined, _):
        chosen = Choice(which, average)
        ready, origin = everyone(joined, lambda: load_trained(on_main(joined, given), run_dir, joined, chosen))
        joined.phase = "evaluating"
        metrics = results(ready)
        if joined.world.is_main:
            print_summary({**metrics, **origin.about()}, framed=joined.world.owns_terminal)
