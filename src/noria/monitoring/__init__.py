"""Watching what is in the tables: windows close, monitors fold them in, alerts say what is wrong."""
