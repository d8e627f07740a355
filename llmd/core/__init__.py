"""Pure cores: no I/O, no clock, no concurrency. They are handed bytes, facts and `now`, and answer with decisions."""
