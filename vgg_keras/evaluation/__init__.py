"""The test procedures of §3.2 and the errors of §4."""
