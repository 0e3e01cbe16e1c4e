"""The console: read-only pages, rendered on the server, that keep themselves up to date.

Everything on a page is untrusted text and escaped; the pages ask no other host for anything, run no inline script and
change nothing. Without JavaScript they reload themselves.
"""

from noria.api.console.views import routes

__all__ = ["routes"]
