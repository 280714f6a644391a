//! What every node promises, one function a promise.
