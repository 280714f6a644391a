//! Who is trusted now: read on every gossip message and every lane, written when membership changes.

use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::PeerId;

/// Shared, cheap to read.
#[derive(Clone, Default)]
pub struct Trust(Arc<RwLock<Lists>>);

#[derive(Default)]
struct Lists {
    members: BTreeSet<PeerId>,
    /// Who is or was a member: what they wrote counts.
    authors: BTreeSet<PeerId>,
    /// Node id -> cluster id, as each member said over its authenticated connection.
    nodes: BTreeMap<PeerId, PeerId>,
}

impl Trust {
    /// Replaces the members.
    pub fn set_members(&self, members: impl IntoIterator<Item = PeerId>) {
        let mut lists = self.0.write();
        lists.members = members.into_iter().collect();
        let Lists { members, nodes, .. } = &mut *lists;
        nodes.retain(|_, owner| members.contains(owner));
    }

    /// Those are, or were, members; all that are known when there is a new one among them.
    pub fn know_authors(&self, authors: impl IntoIterator<Item = PeerId>) -> Option<BTreeSet<PeerId>> {
        let mut lists = self.0.write();
        let before = lists.authors.len();
        lists.authors.extend(authors);
        (lists.authors.len() > before).then(|| lists.authors.clone())
    }

    /// Whether what this peer wrote counts.
    pub fn is_author(&self, peer: &PeerId) -> bool {
        self.0.read().authors.contains(peer)
    }

    /// A member said which nodes are its own.
    pub fn set_nodes(&self, member: PeerId, nodes: impl IntoIterator<Item = PeerId>) {
        let mut lists = self.0.write();
        lists.nodes.retain(|_, owner| *owner != member);
        for node in nodes {
            // The first to claim a node keeps it: a member cannot take another's.
            lists.nodes.entry(node).or_insert(member);
        }
    }

    /// Whether a cluster peer is trusted.
    pub fn is_member(&self, peer: &PeerId) -> bool {
        self.0.read().members.contains(peer)
    }

    /// The trusted member a node belongs to.
    pub fn member_of_node(&self, node: &PeerId) -> Option<PeerId> {
        let lists = self.0.read();
        lists.nodes.get(node).filter(|member| lists.members.contains(member)).copied()
    }

    /// The nodes of a member.
    pub fn nodes_of(&self, member: &PeerId) -> Vec<PeerId> {
        self.0.read().nodes.iter().filter(|(_, owner)| *owner == member).map(|(node, _)| *node).collect()
    }

    /// All trusted members.
    pub fn members(&self) -> Vec<PeerId> {
        self.0.read().members.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::from_ed25519(&[n; 32])
    }

    #[test]
    fn a_member_cannot_claim_the_node_of_another() {
        let trust = Trust::default();
        trust.set_members([peer(1), peer(2)]);
        trust.set_nodes(peer(1), [peer(11)]);
        trust.set_nodes(peer(2), [peer(11), peer(12)]);
        assert_eq!(trust.member_of_node(&peer(11)), Some(peer(1)));
        assert_eq!(trust.nodes_of(&peer(2)), vec![peer(12)]);
    }

    #[test]
    fn nodes_of_an_expelled_member_are_strangers() {
        let trust = Trust::default();
        trust.set_members([peer(1)]);
        trust.set_nodes(peer(1), [peer(11)]);
        trust.set_members([]);
        assert_eq!(trust.member_of_node(&peer(11)), None);
    }
}
