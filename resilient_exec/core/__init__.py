"""Decides and never acts: stimuli in, commands out.  Touches only :mod:`resilient_exec.model`."""
