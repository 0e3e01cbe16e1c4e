"""What monitoring costs: beside Evidently and NannyML, and by itself as history and data grow."""
