"""Who was running when a world failed, and how each competitor did.  Touches negmas' classes."""
