//! What a machine is told once, when it is made.

use std::collections::BTreeMap;
use types::{Millis, PeerId, Replicas, SignedRecord};

/// How many copies a pin gets that does not say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultClass {
    /// Fewer is a fault to be repaired. Zero: everywhere.
    pub least: u32,
    /// Placed at first.
    pub want: u32,
    /// More is trimmed.
    pub most: u32,
}

impl Default for DefaultClass {
    fn default() -> DefaultClass {
        DefaultClass { least: 2, want: 2, most: 3 }
    }
}

impl DefaultClass {
    /// Everybody holds everything (Go's default, -1/-1).
    pub const EVERYWHERE: DefaultClass = DefaultClass { least: 0, want: 0, most: 0 };

    /// The factors as they are written into a pin.
    pub fn replicas(self) -> Replicas {
        match (std::num::NonZeroU32::new(self.least), std::num::NonZeroU32::new(self.most.max(self.least))) {
            (Some(least), Some(most)) => Replicas::Between { least, most },
            _ => Replicas::Everywhere,
        }
    }
}

/// How fast lost copies are replaced and others moved. Every peer has these limits for what it proposes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepairLimits {
    /// Off: nothing is repaired (Go's default).
    pub is_on: bool,
    /// Pins re-placed per minute, at most: what writing them costs. Small pins are cheap to copy, so bytes are the limit that
    /// people feel.
    pub pins_per_minute: u32,
    /// Bytes re-placed per minute because copies were lost. Where a size is not known the average counts.
    pub bytes_per_minute: u64,
    /// Bytes moved per minute while nothing is at risk: draining and balancing.
    pub move_bytes_per_minute: u64,
    /// How long the second proposer waits for the first, the third for the second.
    pub patience: Millis,
    /// Between two walks over all pins when something is not as wished.
    pub walk_busy: Millis,
    /// Between two walks over all pins when all is well.
    pub walk_quiet: Millis,
    /// How long a pin must have too many confirmed copies before one goes.
    pub trim_after: Millis,
    /// Whether copies move by themselves to peers that hold less than their share.
    pub balances: bool,
}

impl Default for RepairLimits {
    fn default() -> RepairLimits {
        RepairLimits {
            is_on: true,
            pins_per_minute: 60_000,
            bytes_per_minute: 60 * (500 << 20),
            move_bytes_per_minute: 60 * (100 << 20),
            patience: Millis::seconds(2),
            walk_busy: Millis::seconds(30),
            walk_quiet: Millis::minutes(10),
            trim_after: Millis::minutes(10),
            balances: true,
        }
    }
}

/// Spans that tests shorten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two hellos to all.
    pub hello: Millis,
    /// Silent so long although linked: suspect.
    pub suspect_silent: Millis,
    /// Without a link so long: suspect.
    pub suspect_unlinked: Millis,
    /// Between two full comparisons of wish and holding, and between two full questions to a peer about its copies.
    pub round: Millis,
    /// A fetch without progress for so long gives up its slot.
    pub stall: Millis,
    /// Copies whose change is told are gathered for so long when many change.
    pub gather: Millis,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            hello: Millis::seconds(5),
            suspect_silent: Millis::seconds(15),
            suspect_unlinked: Millis::seconds(5),
            round: Millis::minutes(10),
            stall: Millis::minutes(2),
            gather: Millis(100),
        }
    }
}

/// The brake on mass removals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrakeLimits {
    /// So many removals within a minute never brake.
    pub removals: u64,
    /// Nor do so many percent of the ledger.
    pub percent: u64,
}

impl Default for BrakeLimits {
    fn default() -> BrakeLimits {
        BrakeLimits { removals: 1000, percent: 5 }
    }
}

/// Faults that tests put in on purpose, to see that the simulator finds them.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Lets go of what is held and not wanted without looking into the ledger.
    IgnoresLedger,
    /// Lets go of a re-placed pin before its holders have confirmed it.
    LetsGoEarly,
    /// Answers a pin before its write is durable.
    AnswersEarly,
    /// Repairs although most members are out of sight.
    IgnoresPartition,
    /// Lets go while the view is catching up.
    ActsWhileCatchingUp,
    /// Lets mass removals pass.
    IgnoresBrake,
    /// Enters what was held on another account into the ledger.
    ClaimsForeign,
    /// Replaces the copies of a silent peer before its grace is over.
    IgnoresGrace,
    /// Gives a whole missing failure domain no more time than one peer.
    IgnoresDomains,
    /// Every peer repairs at once, without waiting for its turn.
    IgnoresRank,
    /// Promises the same room to every add.
    ForgetsPromises,
    /// Shows silent peers as if they were heard of.
    ShowsSilentAsLive,
    /// Moves what it offered whether it is taken or not.
    IgnoresTakers,
    /// Chooses holders without what it gives to each of them already.
    ForgetsGiven,
    /// Takes what was said of one value of a pin for the next one.
    TakesAnyEarlyWord,
}

/// What a machine is told once.
#[derive(Clone, Debug)]
pub struct Options {
    /// The own peer.
    pub me: PeerId,
    /// Its name for people.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// Counts the starts of this peer; higher than at any start before.
    pub incarnation: u64,
    /// Peers that are trusted from the start (the own one need not be listed).
    pub members: Vec<PeerId>,
    /// Records that were stored before; they were verified and accepted then.
    pub records: Vec<SignedRecord>,
    /// Checks a record's signature; the shell gives the one that knows the bytes on the wire.
    pub verify: fn(&SignedRecord) -> bool,
    /// Copies of a pin that does not say how many.
    pub class: DefaultClass,
    /// What people call that class: answers name it.
    pub class_name: String,
    /// A silent peer's copies are replaced after so long.
    pub grace: Millis,
    /// Fetches at a time.
    pub concurrent_pins: usize,
    /// Removals at a time.
    pub concurrent_unpins: usize,
    /// How fast repair goes.
    pub repair: RepairLimits,
    /// Spans.
    pub pace: Pace,
    /// When removals brake.
    pub brake: BrakeLimits,
    /// Labels of peers (`site`, `region`), as configured.
    pub labels: BTreeMap<PeerId, BTreeMap<String, String>>,
    /// The label over whose values copies are spread, and that names a failure domain.
    pub spread_by: String,
    /// Whether adds that are larger than a unit are cut into shards.
    pub shards: bool,
    /// Whether this peer only follows: what others wish is carried out, and nothing is written, neither for a door nor by itself (repair,
    /// pins that end). For peers that the others do not trust, whose writes would be seen here alone.
    pub follower: bool,
    /// A fault put in by a test.
    #[doc(hidden)]
    pub planted: Option<PlantedBug>,
}

impl Options {
    /// The defaults for a peer.
    pub fn new(me: PeerId, name: &str, cluster: &str) -> Options {
        Options {
            me,
            name: name.to_owned(),
            cluster: cluster.to_owned(),
            incarnation: 1,
            members: Vec::new(),
            records: Vec::new(),
            verify: |_| false,
            class: DefaultClass::default(),
            class_name: "default".to_owned(),
            grace: Millis::minutes(10),
            concurrent_pins: 10,
            concurrent_unpins: 4,
            repair: RepairLimits::default(),
            pace: Pace::default(),
            brake: BrakeLimits::default(),
            labels: BTreeMap::new(),
            spread_by: "site".to_owned(),
            shards: true,
            follower: false,
            planted: None,
        }
    }

    /// The failure domain of a peer, where one is configured.
    pub fn domain(&self, peer: &PeerId) -> Option<&str> {
        self.labels.get(peer)?.get(&self.spread_by).map(String::as_str)
    }
}
