//! What breaks, when: drawn from the seed before the run.

use crate::links::Weather;
use crate::queue::{Place, Time};
use crate::scenario::Settings;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::str::FromStr;

/// Which kinds of faults happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// None.
    Calm,
    /// Loss, delay, repetition, cuts.
    Network,
    /// Crashes, restarts, a lost disk, peers that never come back or leave.
    Crash,
    /// Everything.
    All,
}

impl FromStr for Profile {
    type Err = String;
    fn from_str(text: &str) -> Result<Profile, String> {
        match text {
            "calm" => Ok(Profile::Calm),
            "network" => Ok(Profile::Network),
            "crash" => Ok(Profile::Crash),
            "all" => Ok(Profile::All),
            other => Err(format!("no fault profile is called {other:?}: calm, network, crash or all")),
        }
    }
}

impl Profile {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Calm => "calm",
            Profile::Network => "network",
            Profile::Crash => "crash",
            Profile::All => "all",
        }
    }

    /// Whether links fail.
    pub fn has_network(self) -> bool {
        matches!(self, Profile::Network | Profile::All)
    }

    /// Whether peers fail.
    pub fn has_crashes(self) -> bool {
        matches!(self, Profile::Crash | Profile::All)
    }
}

/// Something breaks or is mended.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The power goes; it starts again after so long, never when none.
    Crash {
        /// Whose.
        place: Place,
        /// Comes back after.
        back_after: Option<Time>,
        /// With an empty disk.
        loses_disk: bool,
    },
    /// These are cut off from all others.
    Island(Vec<Place>),
    /// Nothing goes from the one to the other; the way back is open.
    OneWay(Place, Place),
    /// All cuts are mended.
    Mend,
    /// How bad the links are from now on.
    Weather(Weather),
    /// This peer is asked to leave for good.
    Leave(Place),
    /// A person lets all removals that wait pass.
    ApproveRemovals,
    /// Everything is mended; who is not gone for good starts.
    Heal,
}

/// The faults of one run from `begin` on.
pub fn draw(settings: &Settings, begin: Time, chance: &mut ChaCha8Rng) -> Vec<(Time, Fault)> {
    let end = settings.faults_end();
    let mut faults = Vec::new();
    if settings.profile.has_network() {
        network(settings, begin, end, chance, &mut faults);
    }
    if settings.profile.has_crashes() {
        crashes(settings.peers, begin, end, chance, &mut faults);
    }
    faults.retain(|(time, _)| *time < end);
    faults.push((end, Fault::Heal));
    faults
}

fn network(settings: &Settings, begin: Time, end: Time, chance: &mut ChaCha8Rng, faults: &mut Vec<(Time, Fault)>) {
    let Settings { peers, grace, sites, .. } = *settings;
    faults.push((begin, Fault::Weather(Weather { loss: 0.03, repeat: 0.02, late: 0.02 })));
    let mut now = begin;
    while now + 10_000 < end {
        now += chance.random_range(5_000..40_000);
        match chance.random_range(0..10) {
            0..4 => {
                for _ in 0..chance.random_range(1..=peers) {
                    let (from, to) = (chance.random_range(0..peers), chance.random_range(0..peers));
                    faults.push((now, Fault::OneWay(from, to)));
                }
                now += chance.random_range(5_000..30_000);
            }
            4..8 => {
                faults.push((now, Fault::Island(some(peers, chance.random_range(1..=peers.div_ceil(2)), chance))));
                now += chance.random_range(2_000..30_000);
            }
            // Longer than the grace: each side takes the other for dead.
            _ => {
                let island = match sites {
                    0..2 => some(peers, (peers / 4).max(1), chance),
                    // A whole site: not even then does anything move.
                    _ => on_site(settings, chance.random_range(0..sites)),
                };
                faults.push((now, Fault::Island(island)));
                now += grace + chance.random_range(20_000..60_000);
            }
        }
        faults.push((now.min(end), Fault::Mend));
    }
}

fn crashes(peers: usize, begin: Time, end: Time, chance: &mut ChaCha8Rng, faults: &mut Vec<(Time, Fault)>) {
    let mut order: Vec<Place> = (0..peers).collect();
    order.shuffle(chance);
    if peers >= 5 {
        // One peer is lost for good and one disk, with time for repair between them: two at once lose content by right.
        let early = chance.random_range(begin..begin + (end - begin) / 5);
        let late = chance.random_range(end - (end - begin) / 5..end);
        let (dies, loses) = if chance.random_bool(0.5) { (early, late) } else { (late, early) };
        faults.push((dies, Fault::Crash { place: order.remove(0), back_after: None, loses_disk: false }));
        let back_after = Some(chance.random_range(1_000..100_000));
        faults.push((loses, Fault::Crash { place: order.remove(0), back_after, loses_disk: true }));
        faults.push((chance.random_range(begin..end), Fault::Leave(order.remove(0))));
    }
    for _ in 0..peers.div_ceil(3) {
        let place = order[chance.random_range(0..order.len())];
        let back_after = Some(chance.random_range(500..120_000));
        faults.push((chance.random_range(begin..end), Fault::Crash { place, back_after, loses_disk: false }));
    }
}

fn on_site(settings: &Settings, site: usize) -> Vec<Place> {
    (0..settings.peers).filter(|place| settings.site(*place) == Some(site)).collect()
}

fn some(peers: usize, count: usize, chance: &mut ChaCha8Rng) -> Vec<Place> {
    let mut all: Vec<Place> = (0..peers).collect();
    all.shuffle(chance);
    all.truncate(count);
    all
}
