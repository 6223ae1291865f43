"""How good discovered slices are: metrics, matching with true slices, intervals and paired tests."""
