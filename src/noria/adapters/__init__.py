"""One file for each outside world; only `bootstrap` names them."""
