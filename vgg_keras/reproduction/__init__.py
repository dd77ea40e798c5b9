"""The paper's experiments as one plan, and its claims, tested on results."""
