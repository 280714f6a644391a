//! Which addresses this host tells others: where it listens, what its owner announces, what others dialled back, the ones through relays.

use super::Driver;
use crate::host::{HostError, HostEvent, HostOptions, Reachable};
use crate::peer::is_circuit;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use std::collections::BTreeSet;

impl Driver {
    /// What the owner announces stands from the start; whoever is asked to dial back tries it, too.
    pub(super) fn announce(&mut self, options: &HostOptions) -> Result<(), HostError> {
        for text in &options.announce {
            let address: Multiaddr = text.parse().map_err(|_| HostError::BadAddress { address: text.clone() })?;
            self.announced.insert(address.clone());
            self.swarm.behaviour_mut().autonat.probe_address(address.clone());
            self.swarm.add_external_address(address);
        }
        Ok(())
    }

    pub(super) fn address_confirmed(&mut self, address: &Multiaddr) {
        let is_told = self.tells_listened || is_circuit(address) || self.announced.contains(address);
        if !is_told {
            self.swarm.remove_external_address(address);
        } else if !is_circuit(address) && !self.announced.contains(address) && !self.reach.confirmed.contains(address) {
            self.reach.confirmed.push(address.clone());
        }
        self.listen_changed();
    }

    pub(super) fn listen_changed(&mut self) {
        self.vouch_for_listeners();
        let id = *self.swarm.local_peer_id();
        let with_id = |address: &Multiaddr| address.clone().with_p2p(id).unwrap_or_else(|address| address).to_string();
        let listening: BTreeSet<String> = self.swarm.listeners().map(with_id).collect();
        let mut external: Vec<String> = self.swarm.external_addresses().map(with_id).collect();
        external.retain(|address| !listening.contains(address));
        if let Some(lan) = &self.lan {
            let here = listening.iter().chain(&external).filter(|address| !address.contains("/p2p-circuit"));
            lan.listens(&here.cloned().collect::<Vec<_>>());
        }
        let mut all: Vec<String> = listening.into_iter().collect();
        if !self.tells_listened {
            let announced: BTreeSet<String> = self.announced.iter().map(with_id).collect();
            all.retain(|address| announced.contains(address) || address.contains("/p2p-circuit"));
        }
        all.append(&mut external);
        if *self.board.addresses.read() != all {
            *self.board.addresses.write() = all;
            self.push(HostEvent::ListenChanged);
        }
    }

    /// Who says that it can be dialled has its addresses given to those who take a seat here.
    fn vouch_for_listeners(&mut self) {
        if self.reach.options.reachable != Reachable::Yes || !self.tells_listened {
            return;
        }
        let is_loopback = |address: &Multiaddr| {
            address
                .iter()
                .any(|part| matches!(part, Protocol::Ip4(ip) if ip.is_loopback()) || matches!(part, Protocol::Ip6(ip) if ip.is_loopback()))
        };
        let own: Vec<Multiaddr> = self.swarm.listeners().filter(|address| !is_circuit(address)).cloned().collect();
        let is_all_loopback = own.iter().all(is_loopback);
        for address in own.into_iter().filter(|address| is_all_loopback || !is_loopback(address)) {
            if !self.swarm.external_addresses().any(|known| *known == address) {
                self.swarm.add_external_address(address);
            }
        }
    }
}
