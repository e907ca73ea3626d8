"""The loop that drives the core, with its clock, callbacks and observers.  Touches threads."""
