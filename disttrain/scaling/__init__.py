"""How throughput grows with the ranks, where the rest of the time goes, and what more ranks would give."""
