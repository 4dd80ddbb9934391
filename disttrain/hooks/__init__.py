"""Who watches a run: objects of the user's that are called while it trains."""
