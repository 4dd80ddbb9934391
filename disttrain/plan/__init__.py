"""From a recipe and numbers to every number of a run. Pure: no device, no data, no run."""
