"""How a recipe is read, and what is said of one that is wrong."""
