"""The Executor that users see.  Touches all layers below; hands up the public API."""
