"""Backends for other people's programs, each a module of its own: import the one you need."""
