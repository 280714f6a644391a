//! What many pins cost below the doors: `cargo run --release -p consensus --example many_pins [directory [pins]]`.
//!
//! Reads lines as `state export` writes them, writes the pins in batches through the CRDT on this disk, opens it again, and prints all of
//! them as lines. Seconds of wall time, CPU seconds of the process, bytes on disk for each pin.

use consensus::crdt::{Crdt, CrdtOptions};
use consensus::memory::{MemoryNetwork, Weather};
use consensus::{Consensus, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use store::{Area, DiskOptions, DiskStore, Snapshot, Store};
use types::{Cid, PeerId};

const BATCH: usize = 4096;
const PAGE: usize = 1000;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let base = arguments.next().unwrap_or_else(|| ".".to_owned());
    let count: u64 = arguments.next().map_or(100_000, |count| count.parse().expect("a number of pins"));
    let dir = Path::new(&base).join(format!("many-pins-{}", std::process::id()));
    let lines: Vec<String> = (0..count).map(|number| line(number, u64::MAX / count)).collect();

    let mut meter = Meter::start();
    let pins: Vec<types::Pin> = lines.iter().map(|line| wire::export::parse_line(line).expect("a pin")).collect();
    meter.say("parse lines");
    let writes: Vec<Write> = pins.iter().map(|pin| Write::put(pin.cid.to_bytes(), wire::pin::encode_pin(pin))).collect();
    meter.say("encode pins");
    drop((lines, pins));

    let store = Arc::new(DiskStore::open(&dir, DiskOptions::default()).expect("opens"));
    let crdt = open(store.clone()).await;
    meter.say("open an empty store");
    let mut writes = writes.into_iter();
    loop {
        let batch: Vec<Write> = writes.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        crdt.submit(batch).await.expect("written");
    }
    meter.say("submit in batches");
    crdt.stop().await;
    drop((crdt, store));
    meter.say("stop");

    let store = Arc::new(DiskStore::open(&dir, DiskOptions::default()).expect("opens"));
    let crdt = open(store.clone()).await;
    meter.say("open it again");
    let view = crdt.view();
    let mut seen = 0;
    each(&*view, |_, _| seen += 1, || ());
    meter.say("list keys and values");
    let (mut lines, mut out, mut bytes) = (wire::rest::LineWriter::default(), std::cell::RefCell::new(Vec::new()), 0);
    let print = |key: &[u8], stored: &[u8]| {
        let mut pin = wire::pin::decode_pin(stored).expect("a pin");
        pin.cid = Cid::try_from(key).expect("a CID");
        lines.push_pin(&mut out.borrow_mut(), &pin);
    };
    each(&*view, print, || {
        bytes += out.borrow().len();
        out.borrow_mut().clear();
    });
    meter.say("print lines");
    out.get_mut().clear();
    println!("{seen} pins, {bytes} bytes of lines, {} bytes on disk for each", store.disk_bytes().expect("measured").get() / count);
    drop((view, crdt, store));
    std::fs::remove_dir_all(&dir).expect("removed");
}

async fn open(store: Arc<DiskStore>) -> Arc<Crdt> {
    let me = PeerId::from_ed25519(&[1; 32]);
    let network = MemoryNetwork::new(Weather::FINE);
    Arc::new(Crdt::open(store, network.link(me), CrdtOptions { alone: true, ..CrdtOptions::new(me) }).await.expect("opens"))
}

/// Walks all pins in pages.
fn each(view: &dyn Snapshot, mut entry: impl FnMut(&[u8], &[u8]), mut end_of_page: impl FnMut()) {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let mut last = Vec::new();
        let page = view.visit(Area::Pins, after.as_deref(), &[], PAGE, &mut |key, stored| {
            last.clear();
            last.extend_from_slice(key);
            entry(key, stored);
        });
        end_of_page();
        if page.expect("reads") < PAGE {
            return;
        }
        after = Some(last);
    }
}

struct Meter {
    begun: Instant,
    cpu: f64,
}

impl Meter {
    fn start() -> Meter {
        Meter { begun: Instant::now(), cpu: cpu() }
    }

    fn say(&mut self, what: &str) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let anon = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default().trim();
        println!("{what:24} {:8.3} s {:8.2} CPU-s  {anon}", self.begun.elapsed().as_secs_f64(), cpu() - self.cpu);
        *self = Meter::start();
    }
}

/// CPU seconds so far (100 ticks a second on Linux).
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let tick = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (tick(11) + tick(12)) / 100.0
}

/// A pin whose content stands in its CID; sorted by number.
fn line(number: u64, step: u64) -> String {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut digest = (number * step).to_be_bytes().to_vec();
    for _ in 0..3 {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        digest.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes());
    }
    let cid = Cid::try_from([&[1, 0x55, 0, 32][..], &digest].concat()).expect("a CID");
    format!(
        r#"{{"replication_factor_min":-1,"replication_factor_max":-1,"name":"pin {number}","mode":"recursive","shard_size":0,"user_allocations":null,"expire_at":"0001-01-01T00:00:00Z","metadata":null,"pin_update":null,"origins":[],"cid":"{cid}","type":"pin","allocations":[],"max_depth":-1,"reference":null,"timestamp":"2026-11-23T16:39:26Z"}}"#
    )
}
