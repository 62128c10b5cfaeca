"""Claims that go wrong in every way a claim can, each beside sound ones that must not suffer."""
