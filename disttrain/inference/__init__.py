"""A trained model: made, given its weights, and used. No optimizer, no train loop."""
