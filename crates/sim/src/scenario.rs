//! One run: who is there, what people want, what breaks, what is looked at.

use crate::faults::{Fault, Profile, draw};
use crate::invariants::Violation;
use crate::node::Node;
use crate::peer::SimPeer;
use crate::queue::{Place, Time, What};
use crate::truth::{Item, Promise, Truth};
use crate::world::doors::{Wish, options_for};
use crate::world::{Numbers, World};
use cid::multihash::Multihash;
use cluster::{BrakeLimits, Options, Pace, PlantedBug, RepairLimits};
use consensus::crdt::MachineOptions;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use store::MemoryStore;
use types::{Cid, Millis, PeerId, PinOptions};

/// Peers have started and met by then.
const LOAD_BEGINS: Time = 3_000;
/// Faults begin while pins are still being made.
const FAULTS_BEGIN: Time = 20_000;
/// Large adds begin: all peers have said what they have.
const LARGE_BEGINS: Time = 15_000;
/// Beside the grace, healing may take so long.
const HEALING: Time = 210_000;
/// People look at removals that were braked so late.
const APPROVED_AFTER: Time = 60_000;
/// An even spread may take so long on top.
const EVENING: Time = 500_000;
/// So long no copy has moved for it: then it has ended. Longer than until a peer counts what it let go as collected, and the next walk.
const EVEN_FOR: Time = 250_000;
/// So long nothing may happen at the end.
const QUIET: Time = 130_000;
/// A roomy disk, and a small one.
const DISKS: [u64; 2] = [8 << 30, 96 << 20];

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Everything follows from it.
    pub seed: u64,
    /// How many peers.
    pub peers: usize,
    /// How many pins.
    pub pins: usize,
    /// Which faults.
    pub profile: Profile,
    /// How long people go on wanting things and faults happen, in virtual milliseconds.
    pub faults_for: Time,
    /// After how long a silent peer's copies are replaced.
    pub grace: Time,
    /// Tell every step.
    pub steps: bool,
    /// Over so many sites the peers are spread; none when it is 0.
    pub sites: usize,
    /// All disks are of this size; none: roomy ones and, here and there, a small one.
    pub disk: Option<u64>,
    /// Near the end of the load nearly everything is removed at once, and a person approves it a minute later.
    pub mass_removal: bool,
    /// When removals brake.
    pub brake: BrakeLimits,
    /// How fast repair goes.
    pub repair: RepairLimits,
    /// Large adds that begin together, each by another peer: bytes and copies.
    pub large: Vec<(u64, u32)>,
    /// A fault put into the machines on purpose.
    pub planted: Option<PlantedBug>,
    /// The same for the consensus.
    pub planted_in_crdt: Option<consensus::crdt::PlantedBug>,
}

impl Settings {
    /// A run of this seed with all faults.
    pub fn new(seed: u64, peers: usize, pins: usize) -> Settings {
        let repair = RepairLimits {
            pins_per_minute: 3_000,
            walk_busy: Millis::minutes(1),
            walk_quiet: Millis::minutes(2),
            trim_after: Millis::seconds(30),
            ..RepairLimits::default()
        };
        Settings {
            seed,
            peers,
            pins,
            profile: Profile::All,
            faults_for: 200_000,
            grace: 40_000,
            steps: false,
            sites: if seed.is_multiple_of(2) { 3 } else { 0 },
            disk: None,
            mass_removal: false,
            brake: BrakeLimits::default(),
            repair,
            large: Vec::new(),
            planted: None,
            planted_in_crdt: None,
        }
    }

    /// Where a peer stands.
    pub fn site(&self, place: Place) -> Option<usize> {
        place.checked_rem(self.sites)
    }

    /// Until then people pin new things.
    pub fn load_ends(&self) -> Time {
        LOAD_BEGINS + self.faults_for / 3
    }

    /// Then everything is mended.
    pub fn faults_end(&self) -> Time {
        LOAD_BEGINS + self.faults_for
    }

    /// The command that repeats the run.
    pub fn replay(&self) -> String {
        let Settings { seed, peers, pins, profile, faults_for, grace, sites, .. } = self;
        let profile = profile.name();
        let what = format!("--seed {seed} --peers {peers} --pins {pins} --fault-profile {profile}");
        let large: String = self.large.iter().map(|(bytes, copies)| format!(" --large {bytes}x{copies}")).collect();
        let disk = self.disk.map(|disk| format!(" --disk {disk}")).unwrap_or_default();
        let still = if self.repair.balances { "" } else { " --still" };
        format!("cargo run -p sim -- {what} --faults-for {faults_for} --grace {grace} --sites {sites}{still}{large}{disk} --steps")
    }

    /// Options of a peer's machine.
    pub(crate) fn machine_options(&self, me: PeerId, place: Place, life: u32, members: Vec<PeerId>) -> Options {
        let site = |place| Some(BTreeMap::from([("site".to_owned(), self.site(place)?.to_string())]));
        let labels = members.iter().enumerate().filter_map(|(place, peer)| Some((*peer, site(place)?))).collect();
        Options {
            labels,
            incarnation: u64::from(life),
            members,
            grace: Millis(self.grace),
            pace: Pace { round: Millis::minutes(2), gather: Millis(250), ..Pace::default() },
            repair: self.repair,
            brake: self.brake,
            planted: self.planted,
            ..Options::new(me, &format!("peer-{place}"), "sim")
        }
    }

    /// Options of a peer's CRDT.
    pub(crate) fn crdt_options(&self, place: Place, life: u32) -> MachineOptions {
        MachineOptions {
            spacing: Millis(700),
            spacing_with_others: Millis(700),
            rebroadcast: Millis::seconds(30),
            alone: self.peers == 1,
            pages_after: 2_000,
            seed: self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (place as u64) << 32 ^ u64::from(life),
            signer: None,
            authors: None,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first broken rule.
    pub violation: Option<Violation>,
    /// A hash over everything that was done.
    pub trace: u64,
    /// Numbers.
    pub numbers: Numbers,
    /// Pins promised to be kept at the end.
    pub kept: usize,
    /// Virtual milliseconds.
    pub time: Time,
}

/// Runs one seed to its end.
pub fn run(settings: &Settings) -> Outcome {
    let mut chance = ChaCha8Rng::seed_from_u64(settings.seed);
    let (truth, wishes) = people(settings, &mut chance);
    let faults = draw(settings, FAULTS_BEGIN, &mut chance);
    let mut world = stage(settings, truth, wishes, chance);
    for (time, fault) in faults {
        world.at(time, What::Fault(fault));
    }
    if settings.mass_removal {
        world.at(mass_removal_at(settings) + APPROVED_AFTER, What::Fault(Fault::ApproveRemovals));
    }
    for (place, (bytes, copies)) in settings.large.iter().enumerate() {
        world.add_large(LARGE_BEGINS, place % settings.peers, *bytes, options_for(*copies, *copies));
    }
    let healed = settings.faults_end() + settings.grace + HEALING;
    world.run_until(healed);
    // Copies go on moving until all peers have their share.
    let mut rested = healed;
    let mut moves = 0;
    while settings.repair.balances && world.numbers.moves != moves && rested < healed + EVENING && world.violation.is_none() {
        moves = world.numbers.moves;
        rested += EVEN_FOR;
        world.run_until(rested);
    }
    if world.violation.is_none() {
        world.large_must_be_done();
        world.look_at_the_end();
        world.must_rest = world.numbers.histories_lost == 0;
        world.run_until(rested + QUIET);
        world.measure_spread();
    }
    Outcome {
        violation: world.violation.clone(),
        trace: world.trace,
        numbers: world.numbers,
        kept: world.truth.items.values().filter(|item| item.promise == Promise::Kept).count(),
        time: world.now,
    }
}

/// Peers that start in the first moments, and what people will want of them; nothing breaks.
pub(crate) fn stage(settings: &Settings, truth: Truth, wishes: Vec<(Time, Wish)>, mut chance: ChaCha8Rng) -> World {
    let peers = peers(settings, &truth, &mut chance);
    let starts: Vec<Time> = (0..settings.peers).map(|_| chance.random_range(0..1_500)).collect();
    let mut world = World::new(settings.clone(), peers, truth, chance);
    for (place, start) in starts.into_iter().enumerate() {
        world.at(start, What::Start(place));
    }
    for (time, wish) in wishes {
        world.want(time, wish);
    }
    world.at(LOAD_BEGINS, What::Look);
    world
}

fn mass_removal_at(settings: &Settings) -> Time {
    settings.faults_end() - 2 * APPROVED_AFTER
}

/// What people will want, and when.
fn people(settings: &Settings, chance: &mut ChaCha8Rng) -> (Truth, Vec<(Time, Wish)>) {
    let mut items = BTreeMap::new();
    let mut wishes = Vec::new();
    let (begin, end) = (LOAD_BEGINS, settings.load_ends());
    for number in 0..settings.pins {
        let cid = cid_of(settings.seed, number as u64);
        let (least, most) = match chance.random_range(0..100) {
            0..60 => (2, 3),
            60..75 => (2, 2),
            75..98 => (3, 4),
            _ => (0, 0),
        };
        // Small clusters cannot do more than they have peers.
        let (least, most) = if least as usize > settings.peers.div_ceil(2) { (2, 3) } else { (least, most) };
        let is_added = chance.random_bool(0.3);
        let is_unfetchable = !is_added && chance.random_bool(0.01);
        let size = if least == 0 { 1 << 20 } else { chance.random_range(1..40u64) << 20 };
        items.insert(cid, Item { size, least, most, promise: Promise::None, is_unfetchable, is_outside: !is_added, lost: Vec::new() });
        let options = options_for(least, most);
        let time = chance.random_range(begin..end);
        wishes.push((time, if is_added { Wish::Add(cid, options.clone()) } else { Wish::Pin(cid, options.clone()) }));
        later(time, settings, cid, options, chance, &mut wishes);
    }
    (Truth { items }, wishes)
}

/// Some are pinned again under another name, some are removed.
fn later(time: Time, settings: &Settings, cid: Cid, options: PinOptions, chance: &mut ChaCha8Rng, wishes: &mut Vec<(Time, Wish)>) {
    let later = chance.random_range(time + 20_000..settings.faults_end().max(time + 40_000));
    match chance.random_range(0..100) {
        _ if settings.mass_removal && chance.random_bool(0.9) => {
            wishes.push((mass_removal_at(settings) + chance.random_range(0..3_000), Wish::Unpin(cid)));
        }
        drawn @ 0..8 => {
            wishes.push((later, Wish::Rename(cid, PinOptions { name: "again".to_owned(), ..options.clone() })));
            // Somebody else may do so at the same moment.
            if drawn < 4 {
                wishes.push((later + chance.random_range(0..50), Wish::Rename(cid, PinOptions { name: "anew".to_owned(), ..options })));
            }
        }
        8..20 => wishes.push((later, Wish::Unpin(cid))),
        _ => {}
    }
}

fn peers(settings: &Settings, truth: &Truth, chance: &mut ChaCha8Rng) -> Vec<SimPeer> {
    let shared: Vec<Cid> = truth.items.keys().copied().collect();
    (0..settings.peers)
        .map(|place| {
            let is_small = settings.peers >= 5 && place % 8 == 7;
            let mut node = Node::new(settings.disk.unwrap_or(DISKS[usize::from(is_small)]), place % 2 == 1);
            let mut persons: BTreeSet<Cid> = (0..3).map(|number| cid_of(settings.seed, 1_000_000 + (place as u64) * 10 + number)).collect();
            // Now and then a person had pinned before what the cluster will want.
            let tries = if settings.disk.is_some() { 0 } else { 4 - 3 * u32::from(is_small) };
            for _ in 0..tries {
                persons.extend(shared.get(chance.random_range(0..shared.len().max(1))).filter(|_| chance.random_bool(0.3)));
            }
            for cid in &persons {
                node.pin_foreign(*cid, truth.size(cid));
            }
            let skew = if chance.random_bool(0.3) { chance.random_range(-3_600_000..3_600_000) } else { 0 };
            SimPeer {
                id: peer_of(settings.seed, place),
                life: 0,
                skew,
                store: MemoryStore::new(),
                node,
                running: None,
                persons,
                is_over: false,
            }
        })
        .collect()
}

pub(crate) fn cid_of(seed: u64, number: u64) -> Cid {
    let digest = hash(seed, b"cid", number);
    Multihash::wrap(0x12, &digest).map_or_else(|_| Cid::default(), |hash| Cid::new_v1(0x55, hash))
}

fn peer_of(seed: u64, place: Place) -> PeerId {
    PeerId::from_ed25519(&hash(seed, b"peer", place as u64))
}

fn hash(seed: u64, kind: &[u8], number: u64) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(seed.to_be_bytes());
    hasher.update(kind);
    hasher.update(number.to_be_bytes());
    hasher.finalize().into()
}
