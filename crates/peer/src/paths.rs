//! How this peer is reached, and which way its connections go, in words and in fields.

use net::{Host, Path, Reach, Reachability};
use std::collections::BTreeMap;
use types::PeerId;

/// How this peer is reached and reaches others.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    /// Its cluster host.
    pub cluster: Reach,
    /// Its node.
    pub node: Option<Reach>,
    /// The connected members, and the way there.
    pub members: BTreeMap<PeerId, Path>,
}

impl Paths {
    pub(crate) fn of(cluster: &Host, node: Option<&Host>) -> Paths {
        let way = |peer: PeerId| cluster.peer_info(&peer).map(|info| (peer, info.path));
        Paths { cluster: cluster.reach(), node: node.map(Host::reach), members: cluster.connected().into_iter().filter_map(way).collect() }
    }

    /// How the own peer is reached, for people; `name` gives a member's name.
    pub fn own_words(&self, name: impl Fn(&PeerId) -> String) -> String {
        let relays: Vec<String> = self.cluster.relays.iter().map(name).collect();
        let circuits = self.cluster.circuits + self.node.as_ref().map_or(0, |node| node.circuits);
        match self.cluster.state {
            Reachability::Public if circuits == 1 => "can be dialled; relays 1 connection of others".to_owned(),
            Reachability::Public if circuits > 1 => format!("can be dialled; relays {circuits} connections of others"),
            Reachability::Public => "can be dialled".to_owned(),
            Reachability::BehindNat if relays.is_empty() => {
                "behind a NAT; no member relays, so those behind other NATs cannot reach it (let one be reachable from outside)".to_owned()
            }
            Reachability::BehindNat => format!("behind a NAT; reached through {}", relays.join(" and ")),
            Reachability::Unknown if relays.is_empty() => String::new(),
            Reachability::Unknown => format!("reached through {} too", relays.join(" and ")),
        }
    }

    /// The way to a member, for people; empty where it is not connected.
    pub fn words_to(&self, peer: &PeerId, name: impl Fn(&PeerId) -> String) -> String {
        match self.members.get(peer) {
            None => String::new(),
            Some(Path::Direct) => "direct".to_owned(),
            Some(Path::Relayed { by: Some(relay) }) => format!("through {}", name(relay)),
            Some(Path::Relayed { by: None }) => "through a relay".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId::from_ed25519(&[number; 32])
    }

    #[test]
    fn words_say_how_a_peer_is_reached() {
        let reach = |state, relays: &[u8], circuits| Reach {
            state,
            relays: relays.iter().map(|number| peer(*number)).collect(),
            circuits,
            ..Reach::default()
        };
        let name = |id: &PeerId| if *id == peer(1) { "nas1".to_owned() } else { "nas2".to_owned() };
        for (cluster, expected) in [
            (reach(Reachability::Unknown, &[], 0), ""),
            (reach(Reachability::Unknown, &[1], 0), "reached through nas1 too"),
            (reach(Reachability::BehindNat, &[1, 2], 0), "behind a NAT; reached through nas1 and nas2"),
            (reach(Reachability::Public, &[], 0), "can be dialled"),
            (reach(Reachability::Public, &[], 1), "can be dialled; relays 1 connection of others"),
            (reach(Reachability::Public, &[], 3), "can be dialled; relays 3 connections of others"),
        ] {
            let paths = Paths { cluster, ..Paths::default() };
            assert_eq!(paths.own_words(name), expected);
        }
        let lost = Paths { cluster: reach(Reachability::BehindNat, &[], 0), ..Paths::default() };
        assert!(lost.own_words(name).contains("no member relays"));
        let ways = [(peer(3), Path::Direct), (peer(4), Path::Relayed { by: Some(peer(1)) }), (peer(5), Path::Relayed { by: None })];
        let paths = Paths { members: ways.into(), ..Paths::default() };
        let words = [3, 4, 5, 6].map(|number| paths.words_to(&peer(number), name));
        assert_eq!(words, ["direct", "through nas1", "through a relay", ""]);
    }
}
