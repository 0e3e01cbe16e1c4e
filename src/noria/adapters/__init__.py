"""One file for each outside world; only `bootstrap.py` names them."""
