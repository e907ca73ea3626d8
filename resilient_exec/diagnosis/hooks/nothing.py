"""Does nothing: what a program is asked to run in place of a question that it did not come to answer."""
