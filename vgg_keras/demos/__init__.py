"""The paper's experiments at a size that takes minutes on a CPU."""
