//! One sentence on the whole, and the reasons for it.

use cluster::{PeerHealth, PeerRow};
use peer::Totals;
use types::ByteCount;

/// From this share on a peer counts as nearly full.
const FULL_PERCENT: u64 = 90;
/// A clock that differs by more than this is told of.
const CLOCK_WRONG: std::time::Duration = std::time::Duration::from_secs(60);

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Good,
    Warn,
    Bad,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Good => "good",
            Level::Warn => "warn",
            Level::Bad => "bad",
        }
    }
}

/// The health of the cluster in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Health {
    pub level: Level,
    pub sentence: String,
    pub reasons: Vec<String>,
}

impl Health {
    pub fn of(peers: &[PeerRow], totals: &Totals) -> Health {
        let mut level = Level::Good;
        let mut reasons = Vec::new();
        let mut add = |at: Level, reason: String| {
            level = level.max(at);
            reasons.push(reason);
        };
        if totals.short > 0 {
            add(Level::Bad, format!("{} fewer confirmed copies than wished", count(totals.short, "pin has", "pins have")));
        }
        if totals.left_out > 0 {
            let blocks = count(totals.left_out, "block", "blocks");
            add(Level::Warn, format!("{blocks} of the shared state left out, since no member signed it: see `pinfold status --json`"));
        }
        if totals.wrongly_signed > 0 {
            let blocks = count(totals.wrongly_signed, "block", "blocks");
            add(Level::Warn, format!("{blocks} of the shared state taken with a wrong signature: see `pinfold status --json`"));
        }
        if totals.unsure > 0 {
            let pins = count(totals.unsure, "pin was", "pins were");
            add(Level::Good, format!("{pins} taken over from another peer, and are being compared with the history"));
        }
        if totals.mended > 0 {
            let pins = count(totals.mended, "pin was", "pins were");
            add(
                Level::Warn,
                format!("{pins} not what the history says when this peer took them over from another one; this was put right"),
            );
        }
        for row in peers {
            match row.health {
                PeerHealth::Down => add(Level::Warn, format!("{} is down: its copies are being replaced", name(row))),
                PeerHealth::Suspect => add(Level::Warn, format!("{} is silent: repair begins when its grace is over", name(row))),
                PeerHealth::Draining => add(Level::Warn, format!("{} is handing its copies over", name(row))),
                // People decided so.
                PeerHealth::Cordoned | PeerHealth::Up | PeerHealth::Gone => {}
            }
            if let Some(ahead) = row.clock_ahead.filter(|ahead| ahead.unsigned_abs() > CLOCK_WRONG.as_millis() as u64)
                && matches!(row.health, PeerHealth::Up | PeerHealth::Draining)
            {
                add(Level::Warn, wrong_clock(&name(row), ahead));
            }
            if let Some(percent) = fill_percent(row)
                && percent >= FULL_PERCENT
                && row.health != PeerHealth::Gone
            {
                add(Level::Warn, format!("{} is {percent} % full", name(row)));
            }
        }
        let on_their_way =
            if totals.waiting > 0 { format!("{} on the way", count(totals.waiting, "copy is", "copies are")) } else { String::new() };
        let sentence = match (level, totals.short) {
            (_, short) if short > 0 => format!("{} short of copies", count(short, "pin is", "pins are")),
            (Level::Good, _) if totals.pins == 0 => "Nothing is pinned yet".to_owned(),
            (Level::Good, _) => "Everything that is pinned has its copies".to_owned(),
            _ => "Everything has its copies, but something needs attention".to_owned(),
        };
        let sentence = if on_their_way.is_empty() { format!("{sentence}.") } else { format!("{sentence}; {on_their_way}.") };
        Health { level, sentence, reasons }
    }
}

/// What a wrong clock does and does not do.
fn wrong_clock(name: &str, ahead: i64) -> String {
    // To the nearest: what was said took its time to arrive.
    let minutes = (ahead.unsigned_abs() + 30_000) / 60_000;
    let span = match minutes {
        0..=119 => format!("{minutes} min"),
        120..=2879 => format!("{} h", (minutes + 30) / 60),
        _ => format!("{} d", (minutes + 720) / 1440),
    };
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    format!(
        "the clock of {name} is {span} {side} this peer's: times written there are wrong by so much, and pins with an end stay until the \
         slowest clock has reached it; set the clocks (NTP)"
    )
}

/// The name of a peer for people.
pub(crate) fn name(row: &PeerRow) -> String {
    if row.name.is_empty() { format!("…{}", row.peer.short()) } else { row.name.clone() }
}

/// How full a peer is, where it said so.
pub(crate) fn fill_percent(row: &PeerRow) -> Option<u64> {
    let is_bounded = row.space_limit != ByteCount::ZERO && row.space_limit.get() != u64::MAX;
    is_bounded.then(|| ((row.space_used + row.space_reserved).get() as f64 * 100.0 / row.space_limit.get() as f64) as u64)
}

pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{PeerId, UnixMillis};

    fn row(name: &str, health: PeerHealth, used: u64) -> PeerRow {
        PeerRow {
            peer: PeerId::from_ed25519(&[1; 32]),
            name: name.into(),
            is_self: false,
            health,
            heard: UnixMillis(0),
            clock_ahead: None,
            node_addresses: vec![],
            gateway: None,
            api: None,
            space_limit: ByteCount(100),
            space_used: ByteCount(used),
            space_reserved: ByteCount(0),
            duty: cluster::Duty::InUse,
            load: None,
            exceptions: 0,
        }
    }

    #[test]
    fn a_wrong_clock_is_told_in_words() {
        for (ahead, words) in [(7_199_600, "the clock of a is 2 h ahead of"), (-180_000, "the clock of a is 3 min behind")] {
            let health = Health::of(&[PeerRow { clock_ahead: Some(ahead), ..row("a", PeerHealth::Up, 0) }], &Totals::default());
            assert!(health.level == Level::Warn && health.reasons[0].starts_with(words), "{:?}", health.reasons);
        }
        let right = PeerRow { clock_ahead: Some(-400), ..row("a", PeerHealth::Up, 0) };
        assert_eq!(Health::of(&[right], &Totals::default()).level, Level::Good);
    }

    #[test]
    fn blocks_that_do_not_count_are_told_of() {
        let health = Health::of(&[], &Totals { pins: 1, unsure: 1, ..Totals::default() });
        assert_eq!((health.level, health.reasons.len()), (Level::Good, 1));
        let health = Health::of(&[], &Totals { pins: 1, unsure: 1, mended: 1, ..Totals::default() });
        assert_eq!((health.level, health.reasons.len()), (Level::Warn, 2));
        let health = Health::of(&[], &Totals { pins: 1, left_out: 2, wrongly_signed: 1, ..Totals::default() });
        assert_eq!((health.level, health.reasons.len()), (Level::Warn, 2));
        assert!(health.reasons[0].starts_with("2 blocks of the shared state left out"), "{:?}", health.reasons);
    }

    #[test]
    fn the_sentence_says_whether_it_is_safe() {
        let check = |peers: &[PeerRow], pins: u64, short: u64, waiting: u64, level: Level, sentence: &str, reasons: &[&str]| {
            let health = Health::of(peers, &Totals { pins, short, waiting, ..Totals::default() });
            assert_eq!((health.level, health.sentence.as_str()), (level, sentence));
            assert_eq!(health.reasons, reasons);
        };
        let up = row("a", PeerHealth::Up, 10);
        check(std::slice::from_ref(&up), 0, 0, 0, Level::Good, "Nothing is pinned yet.", &[]);
        check(std::slice::from_ref(&up), 5, 0, 0, Level::Good, "Everything that is pinned has its copies.", &[]);
        check(std::slice::from_ref(&up), 5, 0, 1, Level::Good, "Everything that is pinned has its copies; 1 copy is on the way.", &[]);
        check(
            &[up.clone(), row("b", PeerHealth::Down, 95)],
            2000,
            1500,
            0,
            Level::Bad,
            "1\u{202f}500 pins are short of copies.",
            &["1\u{202f}500 pins have fewer confirmed copies than wished", "b is down: its copies are being replaced", "b is 95 % full"],
        );
        check(
            &[row("", PeerHealth::Suspect, 10)],
            1,
            0,
            0,
            Level::Warn,
            "Everything has its copies, but something needs attention.",
            &[&format!("…{} is silent: repair begins when its grace is over", up.peer.short())],
        );
    }
}
