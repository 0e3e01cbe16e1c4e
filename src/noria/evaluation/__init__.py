"""The measures: pure functions over arrays and texts, the same on one machine and on a cluster; no I/O."""
