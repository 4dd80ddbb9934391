"""``disttrain schema``."""

from __future__ import annotations


def schema() -> None:
    """Print the JSON Schema of a recipe, for editors."""
    import json

    from disttrain.config import recipe_schema

    print(json.dumps(recipe_schema(), indent=2))
