//! A whole IPFS node in the process.
