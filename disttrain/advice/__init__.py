"""What to train with: batch, ranks and rate, from what was measured, with reasons, or why there is no telling."""
