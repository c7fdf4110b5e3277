"""``neuralpile doctor``: what works on this machine and, for the rest, what to do.

Every line calls the code that builds use, once and with short timeouts, so that it tests the real behavior.
Nothing is written, and Dagster is not imported.
"""
