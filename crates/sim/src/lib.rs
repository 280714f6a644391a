//! Many peers on virtual time, with seeded faults.
