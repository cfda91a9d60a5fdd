"""Renders events and results for a person."""
