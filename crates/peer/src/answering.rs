//! Streams that are answered, each in a task of its own.

use net::{Incoming, Stream};
use std::sync::Arc;
use tokio::sync::Semaphore;
use types::PeerId;

/// Answers every stream, at most `at_once` at a time (further ones wait in their queue), until the host stops.
pub(crate) async fn answer_each<A>(mut asked: Incoming, at_once: usize, answer: impl Fn(PeerId, Stream) -> A)
where
    A: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(at_once));
    while let Some((peer, _, stream)) = asked.next().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let answering = answer(peer, stream);
        tokio::spawn(async move {
            answering.await;
            drop(place);
        });
    }
}
