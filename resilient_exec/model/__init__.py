"""Values and words: tasks, events, errors, dossiers, policies.  Touches nothing."""
