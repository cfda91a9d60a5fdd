"""The stages of a deploy, one function each."""
