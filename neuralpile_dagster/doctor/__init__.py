"""``neuralpile doctor``: what works on this machine and, for the rest, what to do.

Every line is a call of the code that builds make, once and with short timeouts, so that what the doctor
proves is what the product does. Nothing is written, and nothing of Dagster is imported.
"""
