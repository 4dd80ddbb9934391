"""disttrain from Python: train, evaluate and load, for scripts, notebooks and sweeps."""
