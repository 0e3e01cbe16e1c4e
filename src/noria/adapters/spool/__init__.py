"""The log on this machine: SQLite files that API processes append to and the worker ships from."""
