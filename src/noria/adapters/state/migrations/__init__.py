"""The history of the state's schema; `noria.adapters.state.sql.migrate` plays it."""
