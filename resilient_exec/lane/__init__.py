"""One worker at a time, from start to end.  Touches one process; hands facts up to the supervisor."""
