//! Decides who holds what, what to do next, what is wrong and why.
