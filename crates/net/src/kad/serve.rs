//! Answering others: the server's half.

use super::ask::written;
use super::key::Place;
use super::table::K;
use super::{Contact, Dht, valid_record};
use crate::frame::{read_frame, write_frame};
use crate::streams::{Incoming, Stream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;
use types::PeerId;
use wire::kad::{self, KEY_BYTES_MAX, Kind, MESSAGE_BYTES_MAX, Message};

/// A stream on which nothing comes for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Streams that are answered at once; each holds one message at a time.
const STREAMS_MOST: usize = 512;
/// Providers in one answer.
const PROVIDERS_TOLD: usize = 32;

/// Answers until the host stops, or `incoming` is dropped.
pub(super) async fn serve(dht: Dht, mut incoming: Incoming) {
    let places = Arc::new(Semaphore::new(STREAMS_MOST));
    while let Some((peer, _, stream)) = incoming.next().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let dht = dht.clone();
        tokio::spawn(async move {
            dht.converse(peer, stream).await;
            drop(place);
        });
    }
}

impl Dht {
    async fn converse(&self, peer: PeerId, mut stream: Stream) {
        // Who asks is there: also one that was too slow to answer and was forgotten.
        self.learn(&peer);
        loop {
            let read = tokio::time::timeout(IDLE, read_frame(&mut stream, MESSAGE_BYTES_MAX)).await;
            let Ok(Ok(Some(bytes))) = read else { break };
            let answer = match kad::decode(&bytes) {
                Ok(request) => self.answer(&peer, request),
                Err(error) => Err(error.to_string()),
            };
            match answer {
                Ok(None) => {}
                Ok(Some(answer)) => {
                    let written = tokio::time::timeout(IDLE, write_frame(&mut stream, &answer.encode())).await;
                    if !matches!(written, Ok(Ok(()))) {
                        return;
                    }
                }
                Err(reason) => {
                    // Dropped without a farewell: the asker sees a reset, as from Kubo.
                    tracing::debug!(%peer, reason, "a question to the DHT is refused");
                    return;
                }
            }
        }
        let _ = stream.shutdown().await;
    }

    /// What to say to a request; nothing to one that wants no answer.
    fn answer(&self, from: &PeerId, request: Message) -> Result<Option<Message>, String> {
        let now = Instant::now();
        let inner = &self.inner;
        let key = &request.key;
        if key.is_empty() && request.kind != Kind::Ping {
            return Err("it has no key".to_owned());
        }
        let mut answer = Message::request(request.kind, key);
        match request.kind {
            Kind::Ping => return Ok(Some(answer)),
            Kind::PutValue => {
                let (of, value) = request.record.as_ref().ok_or("a value is missing")?;
                if of != key {
                    return Err("the value is of another key".to_owned());
                }
                let record = valid_record(key, value)?;
                let mut values = inner.values.lock();
                let kept = values.get(key, now).and_then(|kept| valid_record(key, kept).ok());
                if kept.is_some_and(|kept| kept.order(&record).is_gt()) {
                    return Err("a newer one is here".to_owned());
                }
                values.put(key, value.clone(), now);
                return Ok(Some(request));
            }
            Kind::GetValue => {
                let kept = inner.values.lock().get(key, now).map(<[u8]>::to_vec);
                answer.record = kept.filter(|kept| valid_record(key, kept).is_ok()).map(|kept| (key.clone(), kept));
            }
            Kind::AddProvider => {
                if key.len() > KEY_BYTES_MAX {
                    return Err("no multihash is so long".to_owned());
                }
                // Everybody speaks for itself only.
                let own = request.providers.iter().find(|contact| contact.id == *from).ok_or("it names others than itself")?;
                let mut contact = self.read_contact(own);
                contact.addresses.truncate(kad::ADDRESSES_MAX);
                if !contact.addresses.is_empty() {
                    inner.providers.lock().add(key, &contact, now);
                }
                return Ok(None);
            }
            Kind::GetProviders => {
                let kept = inner.providers.lock().of(key, now);
                answer.providers = kept.iter().take(PROVIDERS_TOLD).map(written).collect();
            }
            Kind::FindNode => {}
        }
        answer.closer = self.closer(from, key).iter().map(written).collect();
        Ok(Some(answer))
    }

    /// The known peers nearest to a key; a peer that is asked for by its id also when it only is connected.
    fn closer(&self, from: &PeerId, key: &[u8]) -> Vec<Contact> {
        let mut closer = self.inner.table.lock().closest(&Place::of(key), K + 1);
        closer.retain(|contact| contact.peer != *from);
        closer.truncate(K);
        if let Ok(wanted) = PeerId::from_bytes(key)
            && closer.iter().all(|contact| contact.peer != wanted)
            && let Some(contact) = self.connected_contact(&wanted).filter(|_| wanted != *from)
        {
            closer.insert(0, contact);
        }
        closer
    }
}
