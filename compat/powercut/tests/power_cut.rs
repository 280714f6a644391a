//! The judge: the store runs on a disk whose power is cut at seeded moments; what it acknowledged must be there afterwards.
//!
//! A child process (this binary, started again) works on the mounted disk and reports over a pipe each step that `Synced` or `sync`
//! made durable. When the power goes every call of it fails. Then the survivor is mounted and another child asks it for everything: this
//! process only serves the disks, for one that used its own disk could not even be killed.

mod work;

use powercut::{Disk, Mounted, why_not};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use work::{Acks, Load, Role};

const CAPACITY: u64 = 4 << 30;
/// The judge ends after this time, whatever the speed of the machine; it demands at least one chain of cuts of each load.
const TIME: Duration = Duration::from_secs(25);
const CHAINS: u64 = 40;
const CUTS_IN_A_CHAIN: u64 = 3;
/// A victim that neither reports nor meets its cut for so long has hung.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    if let Some(reason) = why_not() {
        println!("skipped: {reason}");
        return;
    }
    let (start, mut cuts, mut acks, mut journals) = (Instant::now(), 0, 0, 0);
    for seed in 0..CHAINS {
        let load = if seed % 4 == 3 { Load::Heavy } else { Load::Light };
        let (chain_acks, chain_journals) = chain(seed, load);
        (cuts, acks, journals) = (cuts + CUTS_IN_A_CHAIN, acks + chain_acks, journals + chain_journals);
        if seed >= 3 && start.elapsed() > TIME {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{cuts} power cuts, {acks} acknowledged steps, {journals} lives beyond the first journal, {seconds:.1} s");
    assert!(acks > cuts, "the victims got hardly anything done: {acks} steps in {cuts} lives");
}

#[test]
fn the_child() {
    work::run_if_told();
}

/// Cuts the power of one disk several times; returns how much was acknowledged, and how many lives came to a second journal.
fn chain(seed: u64, load: Load) -> (u64, u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut disk = Disk::new(CAPACITY);
    let (mut acks, mut journals) = (Acks::default(), 0);
    for life in 0..CUTS_IN_A_CHAIN {
        // From the first calls, while the store is created, to well after several flushes and compactions.
        let cut = 10f64.powf(random.random_range(load.reach())) as u64;
        disk.cut_after(cut);
        let dead = live(disk, load, life, &mut acks);
        let luck = [0.0, 0.0, 0.5, 0.9][random.random_range(0..4)];
        disk = dead.survivor(luck, &mut random);
        let what = format!("seed {seed}, life {life}, cut before change {cut}, luck {luck}");
        journals += u64::from(examine(&disk, &acks, &what));
    }
    (acks.count(), journals)
}

/// Lets a victim work on the disk until its power goes; returns the dead disk.
fn live(disk: Disk, load: Load, life: u64, acks: &mut Acks) -> Disk {
    let at = tempfile::tempdir().expect("a directory to mount on");
    let mounted = Mounted::new(disk, at.path()).expect("mounts");
    let mut victim = start(Role::Victim { load, life }, at.path());
    let lines = BufReader::new(victim.stdout.take().expect("piped")).lines();
    let reports = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<String>>());
    let start = Instant::now();
    while !mounted.with(|disk| disk.is_dead()) {
        assert!(start.elapsed() < PATIENCE, "the victim hangs after {} changes", mounted.with(|disk| disk.changes()));
        let ended = victim.try_wait().expect("can be asked");
        assert!(ended.is_none() || mounted.with(|disk| disk.is_dead()), "the victim ended by itself: {ended:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    victim.kill().expect("can be killed");
    victim.wait().expect("ends");
    for line in reports.join().expect("reads to the end") {
        acks.take(&line, life);
    }
    mounted.unmount().expect("nobody uses it any more")
}

/// Starts this test binary again in another role.
fn start(role: Role, at: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this test has a file"))
        .args(["--exact", "the_child", "--nocapture", "--test-threads=1"])
        .env(work::TOLD, role.tell(at))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(if matches!(role, Role::Victim { .. }) { Stdio::null() } else { Stdio::inherit() })
        .spawn()
        .expect("starts")
}

/// Opens the store on a copy of the survivor and asks for everything; returns whether fjall had closed its first journal.
fn examine(disk: &Disk, acks: &Acks, what: &str) -> bool {
    let at = tempfile::tempdir().expect("a directory to mount on");
    let mounted = Mounted::new(disk.clone(), at.path()).expect("mounts");
    let mut examiner = start(Role::Examiner, at.path());
    examiner.stdin.take().expect("piped").write_all(acks.to_text().as_bytes()).expect("the examiner listens");
    let output = examiner.wait_with_output().expect("ends");
    mounted.unmount().expect("nobody uses it any more");
    assert!(output.status.success(), "{what}: the examiner is not content, see above");
    String::from_utf8_lossy(&output.stdout).contains(work::LATER_JOURNAL)
}

/// Also without a cut a disk may fail: it may be full.
#[test]
fn a_full_disk_is_refused_with_numbers_and_nothing_is_lost() {
    if let Some(reason) = why_not() {
        println!("skipped: {reason}");
        return;
    }
    for keeps_reserve in [true, false] {
        let at = tempfile::tempdir().expect("a directory to mount on");
        let mounted = Mounted::new(Disk::new(100 << 20), at.path()).expect("mounts");
        let mut filler = start(Role::Filler { keeps_reserve }, at.path());
        let mut lines = BufReader::new(filler.stdout.take().expect("piped")).lines().map_while(Result::ok);
        if lines.any(|line| line == work::FULL) {
            mounted.with(|disk| disk.set_capacity(400 << 20));
            writeln!(filler.stdin.take().expect("piped"), "there is room").expect("the filler listens");
        }
        lines.for_each(drop);
        assert!(filler.wait().expect("ends").success(), "keeps_reserve {keeps_reserve}: the filler is not content, see above");
        mounted.unmount().expect("nobody uses it any more");
    }
}
