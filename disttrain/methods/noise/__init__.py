"""Measuring the gradient noise scale while training: what is compared, and what comes of it."""
