//! Gossip with Go's parameters, so that meshes of both kinds of peers behave alike.

use libp2p::gossipsub::{self, AllowAllSubscriptionFilter, ConfigBuilder, IdentityTransform, MaxCountSubscriptionFilter};
use libp2p::gossipsub::{MessageAuthenticity, MessageId, ValidationMode};
use libp2p::identity::Keypair;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use types::PeerId;

/// Who may speak on which topic.
pub(super) type Filters = HashMap<String, Arc<dyn Fn(&PeerId) -> bool + Send + Sync>>;

/// The longest gossip message taken and sent (Go's limit).
const MESSAGE_MAX: usize = 1 << 20;

/// The largest control part of one gossip RPC. Go sends up to 10,000 message ids of 24 bytes at once; the library's default (16 KiB)
/// drops such RPCs whole.
const CONTROL_MAX: usize = 1 << 20;

/// Topics that one peer may be in; without a bound it could fill our memory with names.
const TOPICS_PER_PEER_MAX: usize = 256;

/// Gossip with bounded subscriptions of others.
pub(super) type Behaviour = gossipsub::Behaviour<IdentityTransform, MaxCountSubscriptionFilter<AllowAllSubscriptionFilter>>;

/// How a host takes part in gossip.
#[derive(Clone, Debug)]
pub struct GossipOptions {
    /// The topics it takes part in from the start.
    pub topics: Vec<String>,
    /// How often the mesh is tended. Go's cluster has 10 s; a new subscriber is taken into a small mesh at once anyhow.
    pub heartbeat: Duration,
}

impl GossipOptions {
    /// These topics, with Go's period.
    pub fn new(topics: impl IntoIterator<Item = impl Into<String>>) -> GossipOptions {
        GossipOptions { topics: topics.into_iter().map(Into::into).collect(), heartbeat: Duration::from_secs(10) }
    }
}

/// Why a message was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nobody connected takes part in the topic (yet).
    #[error("publishing: no connected peer takes part in the topic")]
    NoPeers,
    /// Over the limit of 1 MiB.
    #[error("publishing: {size} bytes are over the limit of {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// All peers' queues are full; passes by itself.
    #[error("publishing: the queues of all peers are full")]
    Busy,
    /// This host was started without gossip.
    #[error("publishing: this host takes no part in gossip")]
    NoGossip,
    /// The host was stopped.
    #[error("publishing: the network is stopped")]
    Stopped,
    /// Anything else.
    #[error("publishing: {0}")]
    Failed(String),
}

impl PublishError {
    pub(super) fn from_gossipsub(error: gossipsub::PublishError, size: usize) -> PublishError {
        match error {
            gossipsub::PublishError::NoPeersSubscribedToTopic => PublishError::NoPeers,
            gossipsub::PublishError::MessageTooLarge => PublishError::TooLarge { size, limit: MESSAGE_MAX },
            gossipsub::PublishError::AllQueuesFull(_) => PublishError::Busy,
            other => PublishError::Failed(other.to_string()),
        }
    }
}

/// Go's message id in a cluster: the first 16 bytes of the signer's id, then the sequence number. (Go slices without a look at the
/// length; a shorter id gives a shorter message id here.)
pub fn message_id(from: &[u8], sequence: u64) -> Vec<u8> {
    let mut id = from[..from.len().min(16)].to_vec();
    id.extend_from_slice(&sequence.to_be_bytes());
    id
}

pub(super) fn behaviour(options: &GossipOptions, keypair: &Keypair) -> Result<Behaviour, String> {
    let config = ConfigBuilder::default()
        .heartbeat_interval(options.heartbeat)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .history_length(6)
        .history_gossip(2)
        .mesh_n(24)
        .mesh_n_low(20)
        .mesh_n_high(48)
        .retain_scores(16)
        .mesh_outbound_min(8)
        .gossip_lazy(24)
        .flood_publish(false)
        .duplicate_cache_time(Duration::from_secs(30 * 60))
        .max_control_messages_sent(10_000)
        .max_transmit_size(MESSAGE_MAX)
        .max_control_message_size(CONTROL_MAX)
        .validation_mode(ValidationMode::Strict)
        .validate_messages()
        .message_id_fn(|message| {
            let from = message.source.map(|id| id.to_bytes()).unwrap_or_default();
            MessageId::from(message_id(&from, message.sequence_number.unwrap_or_default()))
        })
        .build()
        .map_err(|error| error.to_string())?;
    let filter = MaxCountSubscriptionFilter {
        filter: AllowAllSubscriptionFilter {},
        max_subscribed_topics: TOPICS_PER_PEER_MAX,
        max_subscriptions_per_request: TOPICS_PER_PEER_MAX,
    };
    Behaviour::new_with_subscription_filter(MessageAuthenticity::Signed(keypair.clone()), config, filter).map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_id_is_gos_and_short_signers_are_no_panic() {
        let from = PeerId::from_ed25519(&[0x11; 32]);
        let id = message_id(from.as_bytes(), 0x0102_0304_0506_0708);
        assert_eq!(id[..6], [0x00, 0x24, 0x08, 0x01, 0x12, 0x20]);
        assert_eq!(id[6..16], [0x11; 10]);
        assert_eq!(id[16..], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(message_id(&[], 1), [0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn gos_parameters_are_taken() {
        assert!(behaviour(&GossipOptions::new(["a"]), &Keypair::generate_ed25519()).is_ok());
    }
}
