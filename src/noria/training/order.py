"""The names of a run's steps, in order; light, so that whoever shows a run knows them."""

STEPS = ("labels", "snapshot", "validate", "train", "evaluate", "register", "card")
