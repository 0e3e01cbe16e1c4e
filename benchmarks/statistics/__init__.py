"""How often monitors alarm when nothing has changed, and how soon they do when something has."""
