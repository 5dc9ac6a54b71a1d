//! Task definitions of an include path, read without starting Python: which tasks there are, and which of them run code.
