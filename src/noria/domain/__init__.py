"""The nouns and the pure rules of Noria: frozen dataclasses, standard library only, no I/O.

Identifiers and times are made by the logic that creates a noun; stores insert what they are told.
All times are timezone-aware UTC, except on the request path, which counts microseconds since the epoch.
"""
