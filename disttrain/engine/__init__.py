"""Engines: who is in the job, on which device, and how gradients travel."""
