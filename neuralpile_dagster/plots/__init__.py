"""Counts -> pictures. Draws what it is given; chooses nothing."""
