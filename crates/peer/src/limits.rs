//! Limits of bandwidth by day and hour: rules from the configuration or set while the peer runs, applied to the hosts' throttle.
//!
//! A rule is a line: `always wan_up=5MB/s`, `mon-fri 08:00-18:00 wan_up=1MB/s lan_up=none`. Where several fit, the later one wins for
//! what it names. Rules that were set stand instead of the configured ones, survive restarts, and are given up by clearing them.

use crate::core::Core;
use net::{BandwidthLimits, Throttle, Traffic};
use parking_lot::Mutex;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use store::{Area, Batch, Durability};

const KEY: &[u8] = b"bandwidth";
/// How often it is looked which rules fit.
const LOOK: Duration = Duration::from_secs(5);
/// Rules at most: people write them.
pub const RULES_MOST: usize = 100;
const DAY: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const KEYS: [&str; 4] = ["lan_up", "lan_down", "wan_up", "wan_down"];

/// A limit of one kind of traffic, or none for "no limit".
type Rate = Option<NonZeroU64>;

/// When it holds, and what it limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A bit for each day from Monday.
    days: u8,
    /// Minutes of the day; from > to goes over midnight.
    from: u16,
    to: u16,
    /// In the order of [`KEYS`]; those that it does not name are left as they are.
    rates: [Option<Rate>; 4],
}

/// Text that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no rule of bandwidth ({what}): write it like \"mon-fri 08:00-18:00 wan_up=1MB/s\" or \"always lan_up=none\"")]
pub struct BadRule {
    text: String,
    what: &'static str,
}

/// What the rules give on a day (0 is Monday) at a minute of it.
pub fn effective(rules: &[Rule], day: u8, minute: u16) -> BandwidthLimits {
    let mut rates = [None; 4];
    for rule in rules.iter().filter(|rule| rule.holds(day, minute)) {
        for (rate, named) in rates.iter_mut().zip(rule.rates) {
            *rate = named.unwrap_or(*rate);
        }
    }
    let [lan_up, lan_down, wan_up, wan_down] = rates;
    BandwidthLimits { lan_up, lan_down, wan_up, wan_down }
}

impl Rule {
    fn holds(&self, day: u8, minute: u16) -> bool {
        let is_day = |day: u8| self.days & (1 << (day % 7)) != 0;
        if self.from < self.to {
            return is_day(day) && (self.from..self.to).contains(&minute);
        }
        (is_day(day) && minute >= self.from) || (is_day(day + 6) && minute < self.to)
    }
}

impl FromStr for Rule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Rule, BadRule> {
        let bad = |what| BadRule { text: text.to_owned(), what };
        let mut rule = Rule { days: 0x7f, from: 0, to: DAY, rates: [None; 4] };
        for word in text.split_whitespace() {
            let lower = word.to_ascii_lowercase();
            if let Some((key, rate)) = lower.split_once('=') {
                let key = key.replace('-', "_");
                let index = KEYS.iter().position(|known| *known == key).ok_or(bad("it names lan_up, lan_down, wan_up and wan_down"))?;
                rule.rates[index] = Some(parse_rate(rate).ok_or(bad("a rate is 5MB/s, 500KiB/s or none"))?);
            } else if lower.starts_with(|first: char| first.is_ascii_digit()) {
                (rule.from, rule.to) = parse_hours(&lower).ok_or(bad("hours are 08:00-18:00"))?;
            } else if lower != "always" {
                rule.days = parse_days(&lower).ok_or(bad("days are mon-fri or sat,sun"))?;
            }
        }
        if rule.rates == [None; 4] { Err(bad("it limits nothing")) } else { Ok(rule) }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days == 0x7f && (self.from, self.to) == (0, DAY) {
            f.write_str("always")?;
        } else {
            let days: Vec<&str> = DAYS.iter().enumerate().filter(|(day, _)| self.days & (1 << day) != 0).map(|(_, name)| *name).collect();
            let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
            write!(f, "{} {}-{}", days.join(","), clock(self.from), clock(self.to))?;
        }
        for (key, rate) in KEYS.iter().zip(self.rates) {
            match rate {
                None => {}
                Some(None) => write!(f, " {key}=none")?,
                Some(Some(rate)) => write!(f, " {key}={rate}")?,
            }
        }
        Ok(())
    }
}

fn parse_rate(text: &str) -> Option<Rate> {
    if text == "none" || text == "off" {
        return Some(None);
    }
    let text = text.strip_suffix("/s").unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: f64 = match unit {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    NonZeroU64::new((number.parse::<f64>().ok()? * factor) as u64).map(Some)
}

fn parse_hours(text: &str) -> Option<(u16, u16)> {
    let clock = |text: &str| {
        let (hours, minutes) = text.split_once(':')?;
        let minute =
            hours.parse::<u16>().ok()?.checked_mul(60)?.checked_add(minutes.parse::<u16>().ok().filter(|minutes| *minutes < 60)?)?;
        (minute <= DAY).then_some(minute)
    };
    let (from, to) = text.split_once('-')?;
    let (from, to) = (clock(from)?, clock(to)?);
    (from != to && from < DAY).then_some((from, to))
}

fn parse_days(text: &str) -> Option<u8> {
    let day = |name: &str| DAYS.iter().position(|known| *known == name);
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let mut at = first;
        days |= 1 << at;
        while at != last {
            at = (at + 1) % 7;
            days |= 1 << at;
        }
    }
    Some(days)
}

/// What the peer is told at its start.
#[derive(Clone)]
pub struct LimitsOptions {
    /// The throttle of its hosts.
    pub throttle: Throttle,
    /// The configured rules.
    pub rules: Vec<Rule>,
    /// Minutes by which the local clock is ahead of UTC.
    pub utc_offset: Arc<dyn Fn() -> i32 + Send + Sync>,
}

/// What a door may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LimitsAsk {
    /// What stands.
    Show,
    /// These rules from now on.
    Set(Vec<Rule>),
    /// The configured rules again.
    Clear,
}

/// What stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsReport {
    /// The rules.
    pub rules: Vec<Rule>,
    /// Whether they were set while the peer ran; else they are configured.
    pub is_set: bool,
    /// What holds at this moment.
    pub now: BandwidthLimits,
    /// Bytes since the start.
    pub traffic: Traffic,
    /// Minutes by which the clock of the rules is ahead of UTC.
    pub utc_offset: i32,
}

/// Applies the rules of one peer.
pub(crate) struct Limits {
    core: Arc<Core>,
    options: LimitsOptions,
    set: Mutex<Option<Vec<Rule>>>,
}

impl Limits {
    pub(crate) fn new(core: Arc<Core>, options: LimitsOptions) -> Arc<Limits> {
        let kept = core.store.get(Area::Meta, KEY).ok().flatten();
        let set = kept.map(|kept| String::from_utf8_lossy(&kept).lines().filter_map(|line| line.parse().ok()).collect());
        let limits = Arc::new(Limits { core, options, set: Mutex::new(set) });
        limits.apply();
        limits
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(self: Arc<Limits>) {
        loop {
            tokio::time::sleep(LOOK).await;
            self.apply();
        }
    }

    pub(crate) fn ask(&self, ask: LimitsAsk) -> Result<LimitsReport, String> {
        let mut batch = Batch::new();
        let rules = match ask {
            LimitsAsk::Show => return Ok(self.report()),
            LimitsAsk::Set(rules) if rules.len() > RULES_MOST => {
                return Err(format!("{} rules are too many: at most {RULES_MOST}", rules.len()));
            }
            LimitsAsk::Set(rules) => {
                let lines: Vec<String> = rules.iter().map(Rule::to_string).collect();
                batch.put(Area::Meta, KEY, lines.join("\n"));
                Some(rules)
            }
            LimitsAsk::Clear => {
                batch.delete(Area::Meta, KEY);
                None
            }
        };
        self.core.store.commit(batch, Durability::Synced).map_err(|error| format!("keeping the limits: {error}"))?;
        *self.set.lock() = rules;
        self.apply();
        Ok(self.report())
    }

    fn rules(&self) -> Vec<Rule> {
        self.set.lock().clone().unwrap_or_else(|| self.options.rules.clone())
    }

    fn apply(&self) {
        let (day, minute) = local(self.core.now().wall.0, (self.options.utc_offset)());
        self.options.throttle.set(effective(&self.rules(), day, minute));
    }

    fn report(&self) -> LimitsReport {
        LimitsReport {
            rules: self.rules(),
            is_set: self.set.lock().is_some(),
            now: self.options.throttle.limits(),
            traffic: self.options.throttle.traffic(),
            utc_offset: (self.options.utc_offset)(),
        }
    }
}

/// Day (0 is Monday) and minute of a moment.
fn local(wall: u64, offset: i32) -> (u8, u16) {
    let minutes = i64::try_from(wall / 60_000).unwrap_or(0) + i64::from(offset);
    // The first of January 1970 was a Thursday.
    let day = (minutes.div_euclid(i64::from(DAY)) + 3).rem_euclid(7);
    (day as u8, minutes.rem_euclid(i64::from(DAY)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &[&str]) -> Vec<Rule> {
        text.iter().map(|text| text.parse().expect("a rule")).collect()
    }

    #[test]
    fn later_rules_win_for_what_they_name_while_they_hold() {
        let rules = rules(&[
            "always wan_up=5MB/s wan_down=10MB/s",
            "mon-fri 08:00-18:00 wan_up=1MB",
            "sat,sun wan-up=none",
            "fri 22:00-06:00 lan_up=1KiB/s",
        ]);
        let at = |day, hour: u16| {
            let limits = effective(&rules, day, hour * 60);
            let number = |rate: Rate| rate.map_or(0, NonZeroU64::get);
            (number(limits.wan_up), number(limits.wan_down), number(limits.lan_up))
        };
        assert_eq!(at(0, 7), (5_000_000, 10_000_000, 0));
        assert_eq!(at(0, 8), (1_000_000, 10_000_000, 0));
        assert_eq!(at(4, 17), (1_000_000, 10_000_000, 0));
        assert_eq!(at(4, 18), (5_000_000, 10_000_000, 0), "the end does not belong to it");
        assert_eq!(at(4, 23), (5_000_000, 10_000_000, 1024), "over midnight");
        assert_eq!(at(5, 5), (0, 10_000_000, 1024), "into the next day");
        assert_eq!(at(5, 6), (0, 10_000_000, 0));
        assert_eq!(at(6, 5), (0, 10_000_000, 0), "that night belongs to saturday");
    }

    #[test]
    fn rules_read_back_as_they_are_shown() {
        for text in ["always lan_up=1000", "mon,tue,wed,thu,fri 08:00-18:00 wan_up=1000000 wan_down=none", "sun 22:30-06:00 lan_down=7"] {
            assert_eq!(text.parse::<Rule>().expect("a rule").to_string(), text);
        }
        assert_eq!("fri-mon wan_up=1.5kb/s".parse::<Rule>().expect("a rule").to_string(), "mon,fri,sat,sun 00:00-24:00 wan_up=1500");
    }

    #[test]
    fn what_is_no_rule_says_why() {
        for (text, what) in [
            ("always", "limits nothing"),
            ("always up=1", "it names"),
            ("always wan_up=fast", "a rate"),
            ("always wan_up=0", "a rate"),
            ("25:00-26:00 wan_up=1", "hours"),
            ("08:00 wan_up=1", "hours"),
            ("someday wan_up=1", "days"),
        ] {
            let error = text.parse::<Rule>().expect_err("no rule").to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn days_and_hours_are_those_of_the_local_clock() {
        assert_eq!(local(0, 0), (3, 0), "a thursday");
        assert_eq!(local(0, -60), (2, 23 * 60));
        assert_eq!(local(4 * 86_400_000, 90), (0, 90), "monday the fifth");
    }
}
