//! Places for connections. When all are taken, whoever comes gets the place of the connection that has been idle longest: clients that
//! connect and say nothing (or half a head) must not shut the door for the others. A connection that is being answered keeps its place.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// A connection that said something less than this ago is not taken for idle.
const IDLE_LEAST: Duration = Duration::from_millis(500);
/// Between two looks for an idle one.
const LOOK: Duration = Duration::from_millis(100);

/// All connections of a door.
pub(crate) struct Crowd {
    room: Arc<Semaphore>,
    seats: Mutex<Seats>,
}

#[derive(Default)]
struct Seats {
    next: u64,
    taken: HashMap<u64, Arc<Manner>>,
}

/// How a connection behaves.
struct Manner {
    state: Mutex<State>,
    cut: CancellationToken,
}

struct State {
    /// Requests being answered.
    busy: usize,
    /// Since when none is.
    idle_since: Instant,
}

/// A place; given back on drop.
pub(crate) struct Seat {
    number: u64,
    manner: Arc<Manner>,
    crowd: Arc<Crowd>,
    _permit: OwnedSemaphorePermit,
}

/// A request under way.
pub(crate) struct Busy(Arc<Manner>);

impl Crowd {
    pub fn new(most: usize) -> Arc<Crowd> {
        Arc::new(Crowd { room: Arc::new(Semaphore::new(most.max(1))), seats: Mutex::default() })
    }

    /// A place, if need be that of the longest idle one. Waits while all are busy.
    pub async fn seat(self: &Arc<Crowd>) -> Option<Seat> {
        loop {
            if let Ok(permit) = self.room.clone().try_acquire_owned() {
                return Some(self.take(permit));
            }
            self.make_room();
            if let Ok(permit) = tokio::time::timeout(LOOK, self.room.clone().acquire_owned()).await {
                return Some(self.take(permit.ok()?));
            }
        }
    }

    fn take(self: &Arc<Crowd>, permit: OwnedSemaphorePermit) -> Seat {
        let manner = Arc::new(Manner { state: Mutex::new(State { busy: 0, idle_since: Instant::now() }), cut: CancellationToken::new() });
        let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let number = seats.next;
        seats.next += 1;
        seats.taken.insert(number, manner.clone());
        Seat { number, manner, crowd: self.clone(), _permit: permit }
    }

    fn make_room(&self) {
        let seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = seats.taken.values().filter(|manner| !manner.cut.is_cancelled()).filter_map(|manner| {
            let state = manner.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.busy == 0 && state.idle_since.elapsed() >= IDLE_LEAST).then_some((state.idle_since, manner))
        });
        if let Some((since, manner)) = idle.min_by_key(|(since, _)| *since) {
            tracing::debug!(idle = ?since.elapsed(), "an idle connection made room");
            manner.cut.cancel();
        }
    }
}

impl Seat {
    /// Resolves when the place is wanted by somebody else.
    pub fn cut(&self) -> CancellationToken {
        self.manner.cut.clone()
    }

    /// Marks a request as under way, until the mark is dropped.
    pub fn marker(&self) -> impl Fn() -> Busy + Clone + Send + use<> {
        let manner = self.manner.clone();
        move || {
            manner.state.lock().unwrap_or_else(PoisonError::into_inner).busy += 1;
            Busy(manner.clone())
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.crowd.seats.lock().unwrap_or_else(PoisonError::into_inner).taken.remove(&self.number);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.busy -= 1;
        state.idle_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_idle_longest_makes_room_and_who_is_busy_does_not() {
        let crowd = Crowd::new(2);
        let busy = crowd.seat().await.unwrap();
        let mark = busy.marker()();
        let idle = crowd.seat().await.unwrap();
        let (idle_cut, busy_cut) = (idle.cut(), busy.cut());
        let waiting = tokio::spawn({
            let crowd = crowd.clone();
            async move { crowd.seat().await.is_some() }
        });
        let leaves = tokio::spawn(async move {
            idle.cut().cancelled().await;
            drop(idle);
        });
        assert!(waiting.await.unwrap());
        leaves.await.unwrap();
        assert!(idle_cut.is_cancelled() && !busy_cut.is_cancelled());
        drop(mark);
    }
}
