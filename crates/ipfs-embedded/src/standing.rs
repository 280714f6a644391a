//! What is known of one server over HTTP: what it gave, and for how long it is put aside after it failed. Time is a parameter.
//!
//! One that fails is left alone for a time that grows with each failure; then one request tries it, and the others wait for how that ends.
//! One that is only slow may be slow about that content: it is put aside when nothing came of several requests in a row. One that lies is left alone for much longer, and what it gives afterwards does not make that forgotten.

use ipfs::routing::HttpSource;
use std::time::{Duration, Instant};

/// First and longest time aside, by what was wrong.
const SLOW: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(120));
const FAILED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1800));
const LIED: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(86_400));
const BUSY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));
/// So many slow answers in a row are forgiven.
const SLOW_FORGIVEN: u32 = 2;
/// The request that tries it again keeps the others waiting for so long.
const TRY: Duration = Duration::from_secs(5);

/// What was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No answer in time, from it or from those behind it.
    Slow,
    /// It cannot be reached, or its answer makes no sense.
    Failed,
    /// What it gave is not what was asked for.
    Lied,
    /// It says that this was too much, and when to come again.
    Busy(Option<Duration>),
}

/// The right to ask once; says whether this is the request that tries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    is_try: bool,
}

/// A server that is put aside: until when, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Aside {
    pub(crate) until: Instant,
    pub(crate) why: String,
    /// It is likely to give then: it asked for a pause, is being tried, or failed for the first time since it gave.
    pub(crate) is_hopeful: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Faults since it last gave something.
    faults: u32,
    lies: u32,
    aside: Option<(Instant, Fault)>,
    is_tried: bool,
    why: Option<String>,
    asked: u64,
    given: u64,
    missed: u64,
    failed: u64,
    bytes: u64,
}

impl Standing {
    /// Whether it may be asked now.
    pub(crate) fn ask(&mut self, now: Instant) -> Result<Ticket, Aside> {
        let is_try = match self.aside {
            Some((until, fault)) if now < until => return Err(self.aside_until(until, fault)),
            Some((_, fault)) => {
                self.aside = Some((now + TRY, fault));
                self.is_tried = true;
                true
            }
            None => false,
        };
        self.asked += 1;
        Ok(Ticket { is_try })
    }

    /// It gave what was asked for.
    pub(crate) fn gave(&mut self, bytes: u64, ticket: Ticket, now: Instant) {
        self.given += 1;
        self.bytes += bytes;
        self.works(ticket, now);
    }

    /// It answered that it does not have it.
    pub(crate) fn missed(&mut self, ticket: Ticket, now: Instant) {
        self.missed += 1;
        self.works(ticket, now);
    }

    fn works(&mut self, ticket: Ticket, now: Instant) {
        // What was asked before it lied, or before it asked for a pause, changes nothing.
        let stays = matches!(self.aside, Some((until, Fault::Lied | Fault::Busy(_))) if now < until);
        self.is_tried &= !ticket.is_try;
        if ticket.is_try || !stays {
            self.aside = None;
            self.faults = 0;
        }
    }

    fn aside_until(&self, until: Instant, fault: Fault) -> Aside {
        let failed_first = self.given > 0 && self.faults == 1 && fault == Fault::Failed;
        let is_hopeful = self.is_tried || failed_first || matches!(fault, Fault::Busy(_));
        Aside { until, why: self.why.clone().unwrap_or_default(), is_hopeful }
    }

    /// It failed: whether it is put aside for that.
    pub(crate) fn fault(&mut self, fault: Fault, why: String, ticket: Ticket, now: Instant) -> Option<Aside> {
        self.failed += 1;
        // Those that were under way when the first failed tell nothing new, unless they show a lie.
        if let Some((until, fault)) = self.aside.filter(|(until, _)| now < *until && !ticket.is_try && fault != Fault::Lied) {
            return Some(self.aside_until(until, fault));
        }
        self.is_tried &= !ticket.is_try;
        self.why = Some(why);
        self.faults = self.faults.saturating_add(1);
        let growing = |(first, most): (Duration, Duration), times: u32| first.saturating_mul(1 << (times - 1).min(16)).min(most);
        let pause = match fault {
            Fault::Slow if self.faults <= SLOW_FORGIVEN => return None,
            Fault::Slow => growing(SLOW, self.faults - SLOW_FORGIVEN),
            Fault::Failed => growing(FAILED, self.faults),
            Fault::Lied => {
                self.lies = self.lies.saturating_add(1);
                growing(LIED, self.lies)
            }
            Fault::Busy(Some(pause)) => pause.clamp(Duration::from_secs(1), BUSY.1),
            Fault::Busy(None) => growing(BUSY, self.faults),
        };
        self.aside = Some((now + pause, fault));
        Some(self.aside_until(now + pause, fault))
    }

    /// The request was dropped before it ended.
    pub(crate) fn dropped(&mut self, ticket: Ticket, now: Instant) {
        // Whoever comes next tries it.
        if let (true, Some((until, _))) = (ticket.is_try, &mut self.aside) {
            *until = now;
            self.is_tried = false;
        }
    }

    /// For people.
    pub(crate) fn row(&self, url: String, is_found: bool, now: Instant) -> HttpSource {
        HttpSource {
            url,
            is_found,
            asked: self.asked,
            given: self.given,
            missed: self.missed,
            failed: self.failed,
            bytes: self.bytes,
            again_in: self.aside.map(|(until, _)| until.saturating_duration_since(now)),
            why: self.why.clone(),
        }
    }

    /// Blocks or answers that it gave.
    pub(crate) fn given(&self) -> u64 {
        self.given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn until(standing: &mut Standing, fault: Fault, ticket: Ticket, now: Instant) -> Option<Instant> {
        standing.fault(fault, "why".to_owned(), ticket, now).map(|aside| aside.until)
    }

    /// For how long it is put aside by each of these, tried again as soon as it may be.
    fn pauses(faults: &[Fault]) -> Vec<u64> {
        let (mut standing, mut now) = (Standing::default(), Instant::now());
        let each = faults.iter().map(|fault| {
            let ticket = standing.ask(now).expect("it may be asked");
            let Some(aside) = standing.fault(*fault, "why".to_owned(), ticket, now) else { return 0 };
            assert_eq!(standing.ask(now).as_ref(), Err(&aside));
            let pause = aside.until - now;
            now = aside.until;
            pause.as_secs()
        });
        each.collect()
    }

    #[test]
    fn the_pause_grows_with_each_fault_and_has_a_longest() {
        assert_eq!(pauses(&[Fault::Failed; 5]), [10, 20, 40, 80, 160]);
        assert_eq!(pauses(&[Fault::Failed; 40])[39], 1800);
        assert_eq!(pauses(&[Fault::Slow; 9]), [0, 0, 5, 10, 20, 40, 80, 120, 120]);
        assert_eq!(pauses(&[Fault::Lied; 3]), [600, 1200, 2400]);
        assert_eq!(pauses(&[Fault::Busy(Some(seconds(7))); 2]), [7, 7]);
        assert_eq!(pauses(&[Fault::Busy(Some(seconds(0))), Fault::Busy(Some(seconds(100_000)))]), [1, 3600]);
        assert_eq!(pauses(&[Fault::Busy(None); 3]), [5, 10, 20]);
    }

    #[test]
    fn what_fails_together_counts_once_and_then_one_request_tries() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        let tickets: Vec<Ticket> = (0..16).map(|_| standing.ask(now).expect("nothing is known")).collect();
        let untils: Vec<_> = tickets.iter().map(|ticket| until(&mut standing, Fault::Failed, *ticket, now)).collect();
        assert!(untils.iter().all(|until| *until == Some(now + seconds(10))), "{untils:?}");
        let later = now + seconds(10);
        let first = standing.ask(later).expect("the pause is over");
        assert!(standing.ask(later).is_err_and(|aside| aside.until == later + TRY), "others wait for the first");
        standing.dropped(first, later);
        let second = standing.ask(later).expect("the first gave up");
        assert_eq!(until(&mut standing, Fault::Failed, second, later), Some(later + seconds(20)));
        let third = standing.ask(later + seconds(20)).expect("the pause is over");
        standing.gave(7, third, later);
        assert!((0..3).all(|_| standing.ask(later).is_ok()), "it works: all may ask");
        assert_eq!(standing.row("url".to_owned(), false, later).again_in, None);
    }

    #[test]
    fn it_is_worth_waiting_for_one_that_works_asked_for_a_pause_or_is_tried() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        let mut fail = |gives: bool, fault: Fault, now: Instant| {
            let ticket = standing.ask(now).expect("may");
            if gives {
                standing.gave(1, ticket, now);
                let ticket = standing.ask(now).expect("may");
                return standing.fault(fault, "why".to_owned(), ticket, now).map(|aside| aside.is_hopeful);
            }
            standing.fault(fault, "why".to_owned(), ticket, now).map(|aside| aside.is_hopeful)
        };
        assert_eq!(fail(false, Fault::Failed, now), Some(false), "it never gave anything");
        assert_eq!(fail(true, Fault::Failed, now + seconds(10)), Some(true));
        assert_eq!(fail(false, Fault::Failed, now + seconds(20)), Some(false), "again");
        assert_eq!(fail(false, Fault::Busy(None), now + seconds(100)), Some(true));
        assert_eq!(fail(true, Fault::Lied, now + seconds(1000)), Some(false));
        standing.ask(now + seconds(2000)).expect("the pause is over");
        assert!(standing.ask(now + seconds(2000)).is_err_and(|aside| aside.is_hopeful), "it is being tried");
    }

    #[test]
    fn a_lie_is_not_forgotten_for_what_it_gives() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        let (good, bad) = (standing.ask(now).expect("may"), standing.ask(now).expect("may"));
        assert_eq!(until(&mut standing, Fault::Lied, bad, now), Some(now + seconds(600)));
        standing.gave(1, good, now);
        assert!(standing.ask(now).is_err());
        let later = now + seconds(600);
        let again = standing.ask(later).expect("the pause is over");
        standing.gave(1, again, later);
        let again = standing.ask(later).expect("it gave");
        assert_eq!(until(&mut standing, Fault::Lied, again, later), Some(later + seconds(1200)));
    }

    #[test]
    fn a_pause_that_it_asked_for_is_kept_and_an_answer_ends_other_ones() {
        let (mut standing, now) = (Standing::default(), Instant::now());
        let (busy, other) = (standing.ask(now).expect("may"), standing.ask(now).expect("may"));
        standing.fault(Fault::Busy(Some(seconds(30))), "429".to_owned(), busy, now);
        standing.gave(1, other, now);
        assert!(standing.ask(now + seconds(29)).is_err());
        let (mut standing, now) = (Standing::default(), Instant::now());
        let (down, other) = (standing.ask(now).expect("may"), standing.ask(now).expect("may"));
        standing.fault(Fault::Failed, "500".to_owned(), down, now);
        standing.missed(other, now);
        assert!(standing.ask(now).is_ok(), "it answers");
        let row = standing.row("url".to_owned(), true, now);
        assert_eq!((row.asked, row.given, row.missed, row.failed, row.why), (3, 0, 1, 1, Some("500".to_owned())));
    }
}
