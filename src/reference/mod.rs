//! What each op means, in loops over a number type: slow, obvious, and the truth that everything is tested against.
