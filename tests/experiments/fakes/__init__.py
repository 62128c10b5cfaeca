"""Claims that take no time, for tests of the machinery; not about the sheet."""
