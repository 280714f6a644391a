//! Dials: whom, where, and what is tried next when somebody else answers.

use super::{DialReply, Driver, Waiter, answer, theirs_known};
use crate::host::attempt::dial_error;
use crate::host::lan::Found;
use crate::host::{DialError, known_kind};
use crate::peer::ours;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{self, ConnectionId};
use libp2p::{Multiaddr, PeerId as Libp2pId};
use std::time::Instant;
use types::PeerId;

/// Peers of the local net that stay connected although nothing uses them.
const LAN_PEERS_MAX: usize = 64;

impl Driver {
    pub(super) fn dial(&mut self, address: Multiaddr, reply: DialReply) {
        // The last one: before it an address through a relay names that.
        let named = address.iter().last().and_then(|part| if let Protocol::P2p(id) = part { Some(id) } else { None });
        if named == Some(*self.swarm.local_peer_id()) {
            return answer(reply, Err(DialError::Own));
        }
        if let Some(peer) = named {
            return match ours(&peer) {
                Some(peer) => self.connect(peer, vec![address], reply),
                None => answer(reply, Err(DialError::BadAddress(address.to_string()))),
            };
        }
        let options = DialOpts::unknown_peer_id().address(address).allocate_new_port().build();
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
        let connection = Some(options.connection_id());
        match self.swarm.dial(options) {
            Ok(()) => self.waiters.push(Waiter { connection, peer: None, reply }),
            Err(error) => answer(reply, Err(dial_error(&error, None))),
        }
    }

    pub(super) fn connect(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, reply: DialReply) {
        let Some(id) = known_kind(&peer) else { return answer(reply, Err(DialError::NoAddress(peer))) };
        if id == *self.swarm.local_peer_id() {
            return answer(reply, Err(DialError::Own));
        }
        if self.swarm.is_connected(&id) {
            return answer(reply, Ok(peer));
        }
        self.waiters.retain(|waiter| !waiter.reply.is_closed());
        match self.dial_peer(peer, addresses) {
            Ok(connection) => self.waiters.push(Waiter { connection: Some(connection), peer: Some(peer), reply }),
            Err(error) => answer(reply, Err(dial_error(&error, Some(peer)))),
        }
    }

    /// Dials a peer where it may be: not at addresses at which this host listens itself or that it announces, for those lead back to it
    /// (each machine has a loopback, and many the same address for their containers).
    pub(super) fn dial_peer(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>) -> Result<ConnectionId, swarm::DialError> {
        addresses.retain(|address| !self.is_own(address));
        let options = dial_options(&peer, addresses.clone());
        let connection = options.connection_id();
        self.swarm.dial(options)?;
        self.dialled.insert(connection, (peer, addresses));
        Ok(connection)
    }

    pub(super) fn is_own(&self, address: &Multiaddr) -> bool {
        let mut place = address.clone();
        if let Some(Protocol::P2p(_)) = place.iter().last() {
            place.pop();
        }
        self.swarm.listeners().chain(&self.announced).any(|own| *own == place)
    }

    /// The first address that answers ends a dial, also when somebody else is there: then the others are tried without it.
    pub(super) fn dialled_elsewhere(&mut self, connection: ConnectionId, error: &swarm::DialError) -> bool {
        let Some((peer, mut addresses)) = self.dialled.remove(&connection) else { return false };
        let (swarm::DialError::WrongPeerId { address, .. } | swarm::DialError::LocalPeerId { address }) = error else { return false };
        let is_wrong =
            |known: &Multiaddr| known.clone().with_p2p(theirs_known(&peer)).is_ok_and(|known| known == *address) || known == address;
        let before = addresses.len();
        addresses.retain(|known| !is_wrong(known));
        if addresses.is_empty() || addresses.len() == before {
            return false;
        }
        let options = DialOpts::peer_id(theirs_known(&peer))
            .addresses(addresses.clone())
            .condition(PeerCondition::Disconnected)
            .allocate_new_port()
            .build();
        let next = options.connection_id();
        tracing::debug!(%peer, %error, "somebody else is there: trying the other addresses");
        if self.swarm.dial(options).is_err() {
            return false;
        }
        self.dialled.insert(next, (peer, addresses));
        if let Some(kept) = self.kept_dials.remove(&connection) {
            self.kept_dials.insert(next, kept);
        }
        for waiter in self.waiters.iter_mut().filter(|waiter| waiter.connection == Some(connection)) {
            waiter.connection = Some(next);
        }
        true
    }

    /// Somebody on the local net says where it is.
    pub(super) fn found(&mut self, found: Found) {
        let (Some(peer), Some(lan)) = (ours(&found.peer), self.lan.as_mut()) else { return };
        if self.swarm.is_connected(&found.peer) || !lan.is_due(found.peer, Instant::now()) {
            return;
        }
        tracing::debug!(%peer, addresses = ?found.addresses, "heard on the local net");
        if self.lan_peers.len() < LAN_PEERS_MAX && self.lan_peers.insert(found.peer) {
            self.board.streams.want(found.peer, true);
        }
        if let Err(error) = self.dial_peer(peer, found.addresses) {
            tracing::debug!(%peer, %error, "dialling a peer of the local net");
        }
    }

    /// A peer of the local net that is not reached counts for nothing more.
    pub(super) fn lost_on_lan(&mut self, id: &Libp2pId) {
        let is_kept = ours(id).is_some_and(|peer| self.reconnect.is_kept(&peer));
        if self.lan_peers.remove(id) && !is_kept {
            self.board.streams.want(*id, false);
        }
    }
}

/// A fresh port for each dial: with the listening port, two peers that dial each other at one moment would meet in a TCP
/// simultaneous open, where both speak as the dialler and the handshake fails.
fn dial_options(peer: &PeerId, addresses: Vec<Multiaddr>) -> DialOpts {
    DialOpts::peer_id(theirs_known(peer))
        .addresses(addresses)
        .extend_addresses_through_behaviour()
        .condition(PeerCondition::Disconnected)
        .allocate_new_port()
        .build()
}
