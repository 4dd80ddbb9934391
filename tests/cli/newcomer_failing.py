"""A module that fails while it is imported, inside a library that it calls."""

import numpy as np

CLASSES = np.loadtxt("/nonexistent/classes.txt")
