"""homeport keeps a git repository and the servers that run it in step, in both directions."""

__version__ = "0.1.0"
