"""Recipes: read strictly, checked whole, and without importing torch."""

from disttrain.config.reading.dump import EXECUTION_KEYS, dump_recipe, flatten, recipe_differences
from disttrain.config.reading.load import check_recipe, load_recipe, recipe_schema
from disttrain.config.reading.problems import Problem, RecipeError
from disttrain.config.reading.saved import saved_recipe
from disttrain.config.reading.trust import outside_objects, require_consent
from disttrain.config.sections.recipe import Recipe

__all__ = [
    "EXECUTION_KEYS",
    "Problem",
    "Recipe",
    "RecipeError",
    "check_recipe",
    "dump_recipe",
    "flatten",
    "load_recipe",
    "outside_objects",
    "recipe_differences",
    "recipe_schema",
    "require_consent",
    "saved_recipe",
]
