"""Every side effect of homeport goes through a door; nothing here decides."""
