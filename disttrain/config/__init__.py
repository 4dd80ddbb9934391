"""Recipes: read strictly, checked whole, and without importing torch."""

from disttrain.config.dump import EXECUTION_KEYS, dump_recipe, flatten, recipe_differences
from disttrain.config.load import load_recipe, recipe_schema
from disttrain.config.problems import Problem, RecipeError
from disttrain.config.recipe import Recipe

__all__ = [
    "EXECUTION_KEYS",
    "Problem",
    "Recipe",
    "RecipeError",
    "dump_recipe",
    "flatten",
    "load_recipe",
    "recipe_differences",
    "recipe_schema",
]
