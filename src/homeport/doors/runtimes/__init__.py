"""What runs a service; each file satisfies `model.ports.Runtime`."""
