"""Answers from many trainings of one recipe: how the batch changes what a target costs."""
