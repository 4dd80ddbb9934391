"""Comparing runs of one recipe with each other; above ``training``, because it starts the command line."""
