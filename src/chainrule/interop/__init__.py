"""Files of other programs, written and read without them."""
