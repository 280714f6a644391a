//! A libp2p host: dialling, private network, gossip, bitswap, streams.
