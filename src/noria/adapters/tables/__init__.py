"""The tables: Delta Lake, what SQL sees of them, and Parquet that callers send."""
