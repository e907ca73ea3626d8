"""Negotiation tournaments: how they run, and their seeds."""
