"""A callback that ends a training after so many samples, before the recipe does: its schedule stays what it is."""

from __future__ import annotations

from disttrain.hooks.callbacks import Callback
from disttrain.hooks.view import RunView


class Until(Callback):
    """Ends the run at the first update by which ``samples`` were seen since its start."""

    def __init__(self, samples: int) -> None:
        self._samples = samples

    def on_start(self, run: RunView) -> None:
        self.on_update(run)

    def on_update(self, run: RunView) -> None:
        if run.samples >= self._samples:
            run.stop(f"{self._samples} samples were asked for")
