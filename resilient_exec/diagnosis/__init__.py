"""Why a program hangs: what is seen of its processes, and the cause where it is known.  Touches /proc, signals, py-spy.

Collectors read what can be read from outside (kernel, descriptors, stacks, what the probe inside the program tells)
and make values of it (facts).  Diagnosers are pure: facts in, a named cause with its evidence and its remedy out, or
nothing.  Renderers make text of both.  Hands up: a watcher that follows a program, and a report.
"""
