"""Nouns: frozen structs and typed errors. Imports nothing else of homeport."""
