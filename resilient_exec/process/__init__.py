"""Processes as the kernel knows them: trees, memory, the orphan guard.  Touches ``/proc`` and signals."""
