"""What runs a service; each file satisfies `model.running.Runtime`."""
