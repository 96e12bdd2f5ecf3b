"""Parts of the documentation that are made from the code; tests keep them equal."""
