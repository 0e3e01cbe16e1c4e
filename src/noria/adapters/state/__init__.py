"""The control plane's memory: SQL, with SQLite read by hand where a process has to stay small."""
