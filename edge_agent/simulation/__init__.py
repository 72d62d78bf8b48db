"""Simulated strip: images of rolled steel with known defects."""
