"""The whole loop on real data: customers' tweets, a world that changes, a model that keeps up by itself.

Run it with `make demo`. It is a user of Noria like any other: it starts `noria up`, talks HTTP, and reads what
`noria` prints.
"""
