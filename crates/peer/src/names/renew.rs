//! Renewing: records of this peer's keys get a later end before the old one comes, and routing is told again.
//!
//! What to do follows from the registers alone: when a record was made and for how long is in them, so a restart forgets nothing.

use super::publish::{after, sign};
use super::{Names, Written, verified};
use std::sync::Arc;
use std::time::Duration;
use types::UnixMillis;
use wire::ipns::{Entry, Record, name_text};

/// The longest sleep: clocks may be set meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// The shortest one, whatever short lifetimes there are.
const PAUSE: Duration = Duration::from_secs(1);
/// A renewal that failed is tried again after this.
const AGAIN: Duration = Duration::from_secs(60);

/// When a record that was made then, and ends then, is made anew: in good time before its end, and at least every `most`.
pub(super) fn due(made: UnixMillis, ends: UnixMillis, most: Duration) -> UnixMillis {
    let lifetime = ends.0.saturating_sub(made.0);
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    UnixMillis(made.0.saturating_add(most.min(lifetime / 3 * 2)))
}

impl Names {
    /// Renews what is due, over and over; ends with the peer.
    pub async fn run(self: Arc<Names>) {
        loop {
            let sleep = self.renew_due().await;
            // What is published meanwhile may be due sooner.
            tokio::time::timeout(sleep, self.published.notified()).await.ok();
        }
    }

    /// Renews what is due; how long nothing more will be.
    pub async fn renew_due(&self) -> Duration {
        let mine = match self.registers.mine() {
            Ok(mine) => mine,
            Err(error) => {
                tracing::error!(%error, "reading the own records of names");
                return AGAIN;
            }
        };
        let mut sleep = LOOK_EVERY;
        for written in mine {
            let Ok(record) = verified(&written.name, &written.record) else { continue };
            let now = crate::clock::wall();
            let at = due(written.at, record.entry.validity.to_millis(), self.renew_every);
            let left = Duration::from_millis(at.0.saturating_sub(now.0));
            let left = if left.is_zero() { self.renew(&written, record).await } else { left };
            sleep = sleep.min(left);
        }
        sleep.max(PAUSE)
    }

    /// Makes one record anew, if this peer can and nobody has published a newer value; when to look at it again.
    async fn renew(&self, written: &Written, record: Record) -> Duration {
        let name = name_text(&written.name);
        let one_at_a_time = self.publishing.lock().await;
        let key = match self.keys.of(&written.name) {
            Ok(Some(key)) => key,
            Ok(None) => {
                // The key was removed, or the record is somebody else's: it is kept as long as it counts.
                if record.is_expired(super::now())
                    && let Err(error) = self.registers.write(&written.name, None).await
                {
                    tracing::debug!(%name, %error, "taking an ended record back");
                }
                return LOOK_EVERY;
            }
            Err(error) => {
                tracing::warn!(%name, %error, "the record of a name cannot be renewed");
                return AGAIN;
            }
        };
        let best = self.known(&written.name).ok().flatten().unwrap_or_else(|| record.clone());
        if best.entry.sequence > record.entry.sequence {
            return LOOK_EVERY;
        }
        let lifetime = record.entry.validity.to_millis().0.saturating_sub(written.at.0);
        let validity = after(crate::clock::wall(), Duration::from_millis(lifetime));
        let renewed = sign(&key, &Entry { validity, ..record.entry });
        let outcome = match renewed {
            Ok(renewed) => {
                self.registers.write(&written.name, Some(renewed.bytes().to_vec())).await.map(|()| renewed).map_err(|e| e.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            Ok(renewed) => {
                drop(one_at_a_time);
                tracing::info!(%name, %validity, "the record of a name is renewed");
                for (router, told) in self.tell_routing(&written.name, renewed.bytes()).await {
                    if let Err(error) = told {
                        tracing::warn!(%name, %router, %error, "telling a renewed record");
                    }
                }
                PAUSE
            }
            Err(error) => {
                tracing::warn!(%name, %error, "the record of a name cannot be renewed");
                AGAIN
            }
        }
    }
}
