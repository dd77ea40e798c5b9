"""Localisation: a box for each of the most probable classes (Appendix A of the paper)."""
