"""Pure decisions: no effect, no clock, no file; everything they need is handed in."""
