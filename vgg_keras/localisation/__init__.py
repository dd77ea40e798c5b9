"""Where the object is: Appendix A of the paper."""
