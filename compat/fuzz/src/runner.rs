//! Runs one target: a thread decodes, another one watches it.

use crate::corpus::{self, corpus_of, save_failure, to_hex, trace};
use crate::{Mutator, allocator};
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most that one input may take of its thread's time (not of the clock's: machines are busy).
pub const CPU_MOST: Duration = Duration::from_secs(2);
/// The same by the clock, where the system does not tell a thread's time.
const CLOCK_MOST: Duration = Duration::from_secs(20);
const WATCH: Duration = Duration::from_millis(100);

/// Inputs that a run adds to its pool, and the longest of them.
const LEARNED: usize = 256;
const LEARNED_LONGEST: usize = 16 << 10;

/// The most memory that an input of `length` bytes may take at once.
pub fn memory_bound(length: usize) -> u64 {
    (64 << 20) + 200 * length as u64
}

/// A decoder: takes any bytes, says whether it understood them.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Decodes, and checks its law.
    pub decode: fn(&[u8]) -> bool,
}

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of the mutations.
    pub seed: u64,
    /// So many inputs beside the corpus.
    pub count: u64,
    /// Writes every input to a file before it is tried: for a fault that ends the process without a word, as a full stack does.
    pub traces: bool,
    /// Instead of the count.
    pub time: Option<Duration>,
    /// See [`CPU_MOST`].
    pub cpu_most: Duration,
}

impl Plan {
    /// The plan of a test: `count` inputs, unless the environment asks for time. `share` is the number of targets that share it.
    pub fn of_environment(count: u64, share: usize) -> Plan {
        let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name}={text}: no number")));
        let seconds = number("PINFOLD_FUZZ_SECONDS");
        let of_clock = || std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64);
        let seed = number("PINFOLD_FUZZ_SEED").unwrap_or_else(|| if seconds.is_some() { of_clock() } else { 1 });
        let traces = number("PINFOLD_FUZZ_TRACE").is_some();
        Plan { seed, count, traces, time: seconds.map(|seconds| Duration::from_secs(seconds) / share.max(1) as u32), cpu_most: CPU_MOST }
    }
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Inputs tried.
    pub inputs: u64,
    /// Of them, understood.
    pub understood: u64,
    /// Of the corpus, understood.
    pub of_corpus: u64,
    /// How long it took.
    pub time: Duration,
    /// The most memory that an input took at once.
    pub memory: u64,
    /// Inputs made here and understood, for the corpus.
    pub learned: Vec<Vec<u8>>,
}

/// What an input did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Panicked, or broke its law.
    Panic(String),
    /// Held more than its bound.
    Memory(u64),
    /// Took too long, or did not return.
    Time,
    /// No input of the corpus is understood.
    Deaf,
}

/// An input that did what none may.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which target.
    pub target: &'static str,
    /// Of the run.
    pub seed: u64,
    /// Which input of the run.
    pub number: u64,
    /// What it did.
    pub cause: Cause,
    /// The input.
    pub input: Vec<u8>,
    /// Where it was written.
    pub file: Option<PathBuf>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { target, seed, number, cause, input, file } = self;
        writeln!(f, "target {target}, seed {seed}, input {number}: {} bytes", input.len())?;
        match cause {
            Cause::Panic(words) => writeln!(f, "panicked: {words}")?,
            Cause::Memory(bytes) => writeln!(f, "held {bytes} bytes of memory, at most {}", memory_bound(input.len()))?,
            Cause::Time => writeln!(f, "took more than its time")?,
            Cause::Deaf => writeln!(f, "understands nothing of its corpus: only its first checks are tested")?,
        }
        writeln!(f, "input: {}", to_hex(input))?;
        match file {
            Some(file) => write!(f, "written to {}; mend the decoder, then move it to compat/fuzz/corpus/{target}/", file.display()),
            None => Ok(()),
        }
    }
}

/// The input that is being decoded.
#[derive(Default)]
struct Current {
    number: u64,
    input: Vec<u8>,
    /// `<pid>/task/<tid>` of the thread that decodes.
    thread: Option<PathBuf>,
}

type Slot = Arc<Mutex<Current>>;

fn lock(slot: &Slot) -> MutexGuard<'_, Current> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a target over its kept corpus, its seeds and damaged forms of them; prints what it did, panics on a failure.
pub fn check(target: Target, seeds: Vec<Vec<u8>>, plan: Plan) {
    match run(target, seeds, plan) {
        Ok(Report { inputs, understood, time, memory, .. }) => println!(
            "{}: {inputs} inputs, {understood} understood, {:.0} each second, at most {} KiB at once",
            target.name,
            inputs as f64 / time.as_secs_f64().max(0.001),
            memory >> 10
        ),
        Err(failure) => panic!("{failure}"),
    }
}

/// The same, for who wants to know.
pub fn run(target: Target, seeds: Vec<Vec<u8>>, plan: Plan) -> Result<Report, Box<Failure>> {
    let (sender, receiver) = channel();
    let slot = Slot::default();
    let own = slot.clone();
    let decode = move || {
        let result = decode_all(target, seeds, plan, &own);
        // The watcher is gone when it gave up on an input that ended after all.
        let _ = sender.send(result);
    };
    let spawned = std::thread::Builder::new().name(format!("fuzz-{}", target.name)).spawn(decode);
    spawned.expect("a thread starts");
    let outcome = watch(&receiver, &slot, plan.cpu_most);
    outcome.map_err(|(cause, number, input)| {
        let file = if cause == Cause::Deaf { None } else { save_failure(target.name, &input) };
        Box::new(Failure { target: target.name, seed: plan.seed, number, cause, input, file })
    })
}

type Outcome = Result<Report, (Cause, u64, Vec<u8>)>;

/// Waits for the result; gives up when one input takes too long. Its thread is left behind: no thread can be ended from outside.
fn watch(receiver: &Receiver<Outcome>, slot: &Slot, cpu_most: Duration) -> Outcome {
    let mut seen = (0, Instant::now(), Duration::ZERO);
    loop {
        match receiver.recv_timeout(WATCH) {
            Ok(outcome) => return outcome,
            Err(RecvTimeoutError::Disconnected) => return Err((Cause::Panic("the harness itself".to_owned()), 0, Vec::new())),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let current = lock(slot);
        let cpu = current.thread.as_ref().and_then(cpu_of);
        if seen.0 != current.number {
            seen = (current.number, Instant::now(), cpu.unwrap_or_default());
        } else if cpu.map_or_else(|| seen.1.elapsed() > CLOCK_MOST, |cpu| cpu.saturating_sub(seen.2) > cpu_most) {
            return Err((Cause::Time, current.number, current.input.clone()));
        }
    }
}

/// The time that a thread has had; none where the system does not tell.
fn cpu_of(thread: &PathBuf) -> Option<Duration> {
    let text = std::fs::read_to_string(PathBuf::from("/proc").join(thread).join("schedstat")).ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}

fn decode_all(target: Target, seeds: Vec<Vec<u8>>, plan: Plan, slot: &Slot) -> Outcome {
    lock(slot).thread = std::fs::read_link("/proc/thread-self").ok();
    let words = slot.clone();
    allocator::set_last_words(Box::new(move || {
        let current = lock(&words);
        let file = save_failure(target.name, &current.input);
        let (number, input) = (current.number, current.input.clone());
        let cause = Cause::Memory(allocator::HARD_MOST as u64);
        // Past the capture of tests: the process ends behind this.
        eprintln!("{}", Failure { target: target.name, seed: plan.seed, number, cause, input, file });
    }));
    let started = Instant::now();
    let mut report = Report::default();
    let mut pool = corpus_of(target.name);
    pool.extend(seeds);
    for input in &pool {
        report.of_corpus += u64::from(attempt(target, input, plan, &mut report, slot)?);
    }
    if report.of_corpus == 0 {
        return Err((Cause::Deaf, 0, Vec::new()));
    }
    let mut mutator = Mutator::new(plan.seed ^ corpus::hash(target.name.as_bytes()));
    let mut made = 0;
    while plan.time.map_or(made < plan.count, |time| started.elapsed() < time) {
        made += 1;
        let input = mutator.next(&pool);
        if attempt(target, &input, plan, &mut report, slot)?
            && input.len() <= LEARNED_LONGEST
            && report.learned.len() < LEARNED
            && made % 8 == 0
        {
            pool.push(input.clone());
            report.learned.push(input);
        }
    }
    report.time = started.elapsed();
    Ok(report)
}

fn attempt(target: Target, input: &[u8], plan: Plan, report: &mut Report, slot: &Slot) -> Result<bool, (Cause, u64, Vec<u8>)> {
    report.inputs += 1;
    {
        let mut current = lock(slot);
        current.number = report.inputs;
        current.input.clear();
        current.input.extend_from_slice(input);
    }
    if plan.traces {
        trace(target.name, input);
    }
    allocator::start();
    let result = catch_unwind(AssertUnwindSafe(|| (target.decode)(input)));
    let memory = allocator::stop();
    report.memory = report.memory.max(memory);
    let failed = |cause| Err((cause, report.inputs, input.to_vec()));
    match result {
        Err(words) => failed(Cause::Panic(words_of(&*words))),
        Ok(_) if memory > memory_bound(input.len()) => failed(Cause::Memory(memory)),
        Ok(is_understood) => {
            report.understood += u64::from(is_understood);
            Ok(is_understood)
        }
    }
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without words".to_owned())
}
