//! Every byte that must equal Go's.
