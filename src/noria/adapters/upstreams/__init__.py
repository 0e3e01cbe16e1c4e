"""How versions are called: our own model servers and services elsewhere, and who we are to them."""
