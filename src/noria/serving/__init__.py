"""The data plane, free of any transport: routing, guarding and recording of requests, and the way of the records."""
