"""Which directory a run lives in, and whether a start begins or goes on there."""
