"""The way of a record: redacted, written, read again, and carried into the tables."""
