"""Numbered SQL files, carried out in order, each in one transaction with its record."""
