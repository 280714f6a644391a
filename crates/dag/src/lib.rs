//! Blocks, UnixFS, directories, CAR: cut, hash, build, walk, verify.
