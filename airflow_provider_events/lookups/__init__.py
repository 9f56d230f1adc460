"""Whether customers have an entry: one by one, or by the pages of a listing."""
