"""Nothing reaches traffic by itself: gates decide about a candidate, a rollout gives it its traffic step by step."""
