//! This disk: ordered keys, transactions, block packs.
