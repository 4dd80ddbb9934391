"""Recipes: read strictly, checked whole, and without importing torch."""

from disttrain.config.load import dump_recipe, flatten, load_recipe, recipe_differences, recipe_schema
from disttrain.config.problems import Problem, RecipeError
from disttrain.config.recipe import Recipe

__all__ = [
    "Problem",
    "Recipe",
    "RecipeError",
    "dump_recipe",
    "flatten",
    "load_recipe",
    "recipe_differences",
    "recipe_schema",
]
