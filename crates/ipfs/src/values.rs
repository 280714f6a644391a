//! Values that are found by key in a network of strangers: the seam between names and whatever finds them (a DHT, a delegated router
//! over HTTP, a Kubo daemon).

use async_trait::async_trait;

/// Stores and finds values. An implementer bounds its own time and sizes; whoever asks bounds them again, and checks every value:
/// nothing that comes from here is believed because of where it came from.
#[async_trait]
pub trait ValueRouting: Send + Sync {
    /// What it is, for people: "DHT", "https://delegated-ipfs.dev", "Kubo".
    fn label(&self) -> String;

    /// Whether it is a server over HTTP: one that is only asked, and not on behalf of who asks this peer over HTTP itself: two that name each
    /// other would ask in circles.
    fn is_over_http(&self) -> bool {
        false
    }

    /// The best value it finds under a key (of a name: `/ipns/` and the name's multihash bytes); none when it looked and found nothing.
    /// Cancel by drop.
    async fn get_value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RoutingError>;

    /// Stores a value where others look for it. Repeating is harmless.
    async fn put_value(&self, key: &[u8], value: &[u8]) -> Result<(), RoutingError>;
}

/// Why routing did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RoutingError(pub String);
