//! The disk of the data directory is full, and then it is not.
