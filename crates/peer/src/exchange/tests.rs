//! Exchanges between shelves in memory, and between hosts of which one is an older peer.

use super::*;
use net::HostOptions;
use types::{RecordKey, RecordKind, UnixMillis};

/// Takes everything of anybody; the higher version wins.
#[derive(Default)]
pub(super) struct Memory {
    records: Mutex<BTreeMap<RecordKey, SignedRecord>>,
    handed: Mutex<usize>,
}

impl Memory {
    fn with(records: impl IntoIterator<Item = SignedRecord>) -> Arc<Memory> {
        let memory = Memory::default();
        records.into_iter().for_each(|record| drop(memory.records.lock().insert(record.key.clone(), record)));
        Arc::new(memory)
    }

    fn all(&self) -> Vec<SignedRecord> {
        self.records.lock().values().cloned().collect()
    }

    fn find(&self, key: &[u8]) -> Option<SignedRecord> {
        self.records.lock().values().find(|record| record.key.key == key).cloned()
    }
}

#[async_trait]
impl Shelf for Memory {
    async fn names(&self) -> Result<BTreeMap<RecordName, Vec<u8>>, String> {
        Ok(self.all().iter().map(|record| (name_of(&encode_record(record)), record.key.key.clone())).collect())
    }
    fn record(&self, key: &[u8]) -> Option<SignedRecord> {
        self.find(key)
    }
    fn take(&self, _: PeerId, records: Vec<SignedRecord>) {
        assert!(records.len() <= TOGETHER);
        *self.handed.lock() += records.len();
        for record in records {
            let mut kept = self.records.lock();
            if kept.get(&record.key).is_none_or(|own| own.version < record.version) {
                kept.insert(record.key.clone(), record);
            }
        }
    }
    fn is_member(&self, _: &PeerId) -> bool {
        true
    }
}

fn peer(number: u8) -> PeerId {
    PeerId::from_ed25519(&[number; 32])
}

fn record(number: u64, version: u64, bytes: usize) -> SignedRecord {
    let key = RecordKey { kind: RecordKind::Claim, key: format!("anna/{number}").into_bytes(), author: peer(9) };
    SignedRecord { key, version, written: UnixMillis(number), value: Some(vec![1; bytes]), signature: vec![8; 64] }
}

/// One exchange over a pipe: what was given and taken by who asked.
async fn meet(asker: &Arc<Memory>, asked: &Arc<Memory>) -> (usize, usize) {
    let (mut here, mut there) = tokio::io::duplex(64 << 10);
    let other = asked.clone();
    let answering = tokio::spawn(async move { answer(&mut there, other.as_ref(), peer(1)).await });
    let numbers = ask(&mut here, asker.as_ref(), peer(2)).await.expect("it comes to an end");
    drop(here);
    answering.await.expect("no panic").expect("it comes to an end");
    numbers
}

#[tokio::test]
async fn both_have_everything_and_only_what_was_lacking_was_sent() {
    let common = || (0..500).map(|number| record(number, 1, 40));
    let one = Memory::with(common().chain((1_000..1_300).map(|number| record(number, 1, 40))).chain([record(7, 2, 40)]));
    let other = Memory::with(common().chain((2_000..2_100).map(|number| record(number, 1, 40))).chain([record(8, 3, 40)]));
    // The older values of 7 and 8 are not sent: 8's here is given (its name is lacking there), and 7's is replaced before it is wanted.
    assert_eq!(meet(&one, &other).await, (302, 101));
    assert_eq!(one.all(), other.all());
    assert_eq!(one.all().len(), 900);
    assert_eq!(meet(&one, &other).await, (0, 0));
    assert_eq!(meet(&other, &one).await, (0, 0));
}

#[tokio::test]
async fn records_as_large_as_they_may_be_come_in_several_messages() {
    let one = Memory::with((0..40).map(|number| record(number, 1, 64 << 10)));
    let other = Arc::<Memory>::default();
    assert_eq!(meet(&one, &other).await, (40, 0));
    let third = Arc::<Memory>::default();
    assert_eq!(meet(&third, &other).await, (0, 40));
    assert_eq!(third.all(), one.all());
}

#[tokio::test]
async fn who_says_nonsense_is_left() {
    let sayings: [Vec<u8>; 5] =
        [encode(&Exchange::Ready), vec![1, 9], vec![2, 2], encode(&Exchange::Ranges(Vec::new()))[..1].to_vec(), vec![7; 100]];
    for said in sayings {
        let (mut here, mut there) = tokio::io::duplex(64 << 10);
        let answering = tokio::spawn(async move { answer(&mut there, &Memory::default(), peer(1)).await });
        assert_eq!(hear(&mut here, ANSWER_WITHIN).await, Ok(Exchange::Ready));
        net::frame::write_frame(&mut here, &said).await.expect("it is written");
        assert!(answering.await.expect("no panic").is_err(), "{said:?}");
    }
    // An answer of another kind ends the exchange of who asks.
    let (mut here, mut there) = tokio::io::duplex(64 << 10);
    let asking = tokio::spawn(async move { ask(&mut there, &Memory::default(), peer(1)).await });
    say(&mut here, &Exchange::Ready).await.expect("it is written");
    hear(&mut here, ANSWER_WITHIN).await.expect("a question");
    say(&mut here, &Exchange::Wanted(Vec::new())).await.expect("it is written");
    assert!(asking.await.expect("no panic").is_err());
}

#[tokio::test]
async fn what_is_given_unasked_is_not_taken() {
    let (mut here, mut there) = tokio::io::duplex(1 << 20);
    let shelf = Memory::default();
    let asking = async {
        let wanted = BTreeSet::from([name_of(&encode_record(&record(1, 1, 4)))]);
        take_all(&mut there, &shelf, peer(1), wanted).await
    };
    let answering = async {
        hear(&mut here, ANSWER_WITHIN).await.expect("a question");
        say(&mut here, &Exchange::Records(vec![record(2, 1, 4), record(1, 1, 4)])).await
    };
    let (taken, said) = tokio::join!(asking, answering);
    assert_eq!((taken, said), (Ok(1), Ok(())));
    assert_eq!(shelf.all(), [record(1, 1, 4)]);
}

async fn host(number: u8) -> Host {
    let options = HostOptions { listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()], ..HostOptions::node([number; 32]) };
    Host::start(options).await.expect("starts").0
}

#[tokio::test]
async fn peers_that_meet_ask_in_turn_and_an_older_one_is_found_out() {
    let (first, second, older) = (host(1).await, host(2).await, host(3).await);
    let incoming = vec![first.accept(&[RECORDS]).expect("accepts"), second.accept(&[RECORDS]).expect("accepts")];
    first.connect(second.id(), &second.addresses()).await.expect("connects");
    first.connect(older.id(), &older.addresses()).await.expect("connects");
    let shelves = [Memory::with((0..100).map(|number| record(number, 1, 40))), Memory::with((50..150).map(|number| record(number, 1, 40)))];
    let exchanges: Vec<Arc<Exchanges>> =
        [&first, &second].iter().zip(&shelves).map(|(host, shelf)| Arc::new(Exchanges::new((*host).clone(), shelf.clone()))).collect();
    for (incoming, exchanges) in incoming.into_iter().zip(&exchanges) {
        let exchanges = exchanges.clone();
        tokio::spawn(serve(exchanges, incoming));
    }
    let (one, two) = tokio::join!(exchanges[0].ask(second.id()), exchanges[1].ask(first.id()));
    let outcomes = [one.expect("it ends"), two.expect("it ends")];
    assert!(
        outcomes.contains(&Outcome::Done { gave: 50, took: 50 }) && outcomes.contains(&Outcome::Done { gave: 0, took: 0 }),
        "{outcomes:?}"
    );
    assert_eq!(shelves[0].all(), shelves[1].all());
    assert_eq!([*shelves[0].handed.lock(), *shelves[1].handed.lock()], [50, 50]);
    // One that is asked for while another one runs waits for its end.
    let (one, again) = tokio::join!(exchanges[0].ask(second.id()), exchanges[0].ask(second.id()));
    assert_eq!([one, again], [Ok(Outcome::Done { gave: 0, took: 0 }), Ok(Outcome::Done { gave: 0, took: 0 })]);
    assert_eq!(exchanges[0].ask(older.id()).await, Ok(Outcome::NotSpoken));
    assert_eq!(exchanges[0].ask(peer(77)).await, Ok(Outcome::Gone));
}
