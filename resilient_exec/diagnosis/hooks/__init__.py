"""What is put on the path of a watched program: a ``sitecustomize`` that loads the probe, then the program's own."""
