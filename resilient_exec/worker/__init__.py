"""All that runs in the worker process.  Touches that process alone; hands outcomes up over the wire."""
