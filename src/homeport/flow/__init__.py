"""Use-cases: they ask the doors, hand what they read to `decide`, and act through the doors."""
