"""The history of the state's schema; `noria.adapters.sql.migrate` plays it."""
