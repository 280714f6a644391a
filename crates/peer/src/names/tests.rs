//! Names without a network: registers, routing and DNS in memory.

use super::*;
use async_trait::async_trait;
use ipfs::values::RoutingError;
use net::dns::{DnsError, Texts};
use std::collections::{BTreeMap, HashMap};
use wire::ipns::{Entry, name_text};

const CID: &str = "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am";

/// Routing that keeps what it is given, or answers as it is told.
#[derive(Default)]
struct Router(parking_lot::Mutex<HashMap<Vec<u8>, Vec<u8>>>, parking_lot::Mutex<u32>);

#[async_trait]
impl ValueRouting for Router {
    fn label(&self) -> String {
        "the test's router".to_owned()
    }
    async fn get_value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, RoutingError> {
        *self.1.lock() += 1;
        Ok(self.0.lock().get(key).cloned())
    }
    async fn put_value(&self, key: &[u8], value: &[u8]) -> Result<(), RoutingError> {
        self.0.lock().insert(key.to_vec(), value.to_vec());
        Ok(())
    }
}

struct Zone(BTreeMap<&'static str, Vec<&'static str>>);

#[async_trait]
impl TxtLookup for Zone {
    async fn texts(&self, name: &str) -> Result<Texts, DnsError> {
        let texts = self.0.get(name).into_iter().flatten().map(ToString::to_string).collect();
        Ok(Texts { texts, ttl: Duration::from_secs(30) })
    }
}

struct World {
    names: Arc<Names>,
    registers: Arc<MemoryRegisters>,
    _folder: tempfile::TempDir,
}

fn world(routing: Option<Arc<Router>>, table: &[(&str, &str)], dns: &[(&'static str, &[&'static str])]) -> World {
    let folder = tempfile::tempdir().expect("a folder");
    let table = table.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let dns = dns.iter().map(|(name, texts)| (*name, texts.to_vec())).collect();
    let registers = Arc::new(MemoryRegisters::default());
    let options = NamesOptions {
        keys: Keystore::new(folder.path().join("keys"), Some([7; 32])),
        links: DnsLink::new(table, Arc::new(Zone(dns))),
        routing: routing.map(|router| router as Arc<dyn ValueRouting>).into_iter().collect(),
        renew_every: Duration::from_secs(4 * 3600),
    };
    World { names: Names::new(options, registers.clone()), registers, _folder: folder }
}

fn to(value: &str) -> Publish {
    Publish { key: SELF.to_owned(), value: value.to_owned(), lifetime: LIFETIME, ttl: None, sequence: None }
}

fn own_name(world: &World) -> String {
    name_text(&world.names.keys().find(SELF).expect("self").name())
}

/// A record of `self` with another end, as if time had gone by.
fn made(world: &World, sequence: u64, validity: &str) -> Vec<u8> {
    let key = world.names.keys().find(SELF).expect("self");
    let validity = GoTime::parse(validity).expect("a time");
    let entry = Entry { value: format!("/ipfs/{CID}").into_bytes(), validity, sequence, ttl: TTL };
    publish::sign(&key, &entry).expect("signed").bytes().to_vec()
}

#[tokio::test]
async fn what_is_published_is_found_and_an_update_counts() {
    let world = world(None, &[], &[]);
    let first = world.names.publish(&to(CID)).await.expect("published");
    assert_eq!((first.entry.sequence, first.told.len()), (0, 0));
    let name = own_name(&world);
    let found = world.names.resolve(&name, How::default()).await.expect("found");
    assert_eq!((found.root.to_string().as_str(), found.below.as_str(), found.steps[0].from), (CID, "", From::Own));
    assert_eq!(found.ttl, TTL);
    let second = world.names.publish(&to(&format!("/ipfs/{CID}/a b/c/"))).await.expect("published");
    assert_eq!(second.entry.sequence, 1);
    assert_eq!(world.names.resolve(&name, How::default()).await.expect("found").below, "a b/c");
    // The same value again: the sequence stays while the end grows, and grows when the end comes nearer.
    let longer = Publish { lifetime: LIFETIME * 2, ..to(&format!("/ipfs/{CID}/a b/c")) };
    assert_eq!(world.names.publish(&longer).await.expect("published").entry.sequence, 1);
    let shorter = Publish { lifetime: Duration::from_secs(60), ..longer };
    let published = world.names.publish(&shorter).await.expect("published");
    assert_eq!((published.entry.sequence, published.entry.ttl), (2, Duration::from_secs(60)));
    let given = Publish { sequence: Some(10), ..to(CID) };
    assert_eq!(world.names.publish(&given).await.expect("published").entry.sequence, 10);
    assert!(matches!(world.names.publish(&given).await, Err(PublishError::Sequence { wanted: 10, last: 10 })));
}

#[tokio::test]
async fn what_makes_no_sense_is_not_published() {
    let world = world(None, &[], &[]);
    for value in ["", "/", "/ipfs/", "/ipfs/nonsense", "nonsense", "/dns/x", &format!("/ipfs/{CID}/{}", "x".repeat(5000))] {
        assert!(matches!(world.names.publish(&to(value)).await, Err(PublishError::Value { .. })), "{value}");
    }
    let unknown = Publish { key: "nobody".to_owned(), ..to(CID) };
    assert!(matches!(world.names.publish(&unknown).await, Err(PublishError::Keystore(KeystoreError::Unknown(_)))));
    let long = Publish { ttl: Some(LIFETIME * 2), ..to(CID) };
    assert!(matches!(world.names.publish(&long).await, Err(PublishError::Times(_))));
    assert!(matches!(world.names.publish(&Publish { lifetime: Duration::ZERO, ..to(CID) }).await, Err(PublishError::Times(_))));
    assert!(world.names.published().expect("read").is_empty());
}

#[tokio::test]
async fn names_lead_through_names_and_links_to_content() {
    let own = name_text(&net::keys::NameKey::from_seed([7; 32]).expect("a key").name());
    let behind = format!("/ipns/{own}/below");
    let world = world(
        None,
        &[("Docs.example.org", "/ipns/www.example.org/docs"), ("b.example.org", &behind)],
        &[("_dnslink.www.example.org", &["other", "dnslink=/ipns/z.example.org", "dnslink=/ipns/b.example.org/site"])],
    );
    world.names.publish(&to(&format!("/ipfs/{CID}/root"))).await.expect("published");
    let found = world.names.resolve("docs.EXAMPLE.org.", How::default()).await.expect("found");
    assert_eq!((found.root.to_string().as_str(), found.below.as_str()), (CID, "root/below/site/docs"));
    let from: Vec<From> = found.steps.iter().map(|step| step.from).collect();
    assert_eq!(from, [From::Table, From::Dns, From::Table, From::Own]);
    assert_eq!(found.ttl, Duration::from_secs(30), "the shortest on the way");
    let step = world.names.step("docs.example.org", How::default()).await.expect("found");
    assert_eq!(step.value, "/ipns/www.example.org/docs");
    let local = world.names.resolve("docs.example.org", How { is_local: true, ..How::default() }).await;
    assert!(matches!(local, Err(NameError::DnsLink(DnsLinkError::None(_)))), "DNS is not asked");
}

#[tokio::test]
async fn circles_and_endless_chains_are_named() {
    let chain: Vec<(String, String)> = (0..40).map(|n| (format!("n{n}.org"), format!("/ipns/n{}.org", n + 1))).collect();
    let chain: Vec<(&str, &str)> = chain.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut table = vec![("a.org", "/ipns/b.org/x"), ("b.org", "/ipns/a.org/y"), ("odd.org", "/ipld/x"), ("bad.org", "/ipfs/nonsense")];
    table.extend(chain);
    let world = world(None, &table, &[]);
    let fault = |name: &'static str| {
        let names = world.names.clone();
        async move { names.resolve(name, How::default()).await.expect_err("no way").to_string() }
    };
    assert_eq!(fault("a.org").await, "the names lead in a circle: a.org -> b.org -> a.org");
    assert!(fault("n0.org").await.starts_with("more than 32 names"));
    assert!(fault("odd.org").await.contains("no path like"));
    assert!(fault("bad.org").await.contains("invalid cid"));
    assert!(fault("nothing.org").await.contains("TXT record _dnslink.nothing.org"));
    assert!(fault("nonsense").await.contains("neither an IPNS name nor a domain name"));
    assert!(fault("k51qzi5uqu5dh8l6sz5pr1l9kn7ud9wj2g2rum86w1gdc72vmpgtiuuzg13jme").await.contains("no routing set up"));
}

#[tokio::test]
async fn records_of_others_come_from_routing_and_are_checked() {
    let router = Arc::new(Router::default());
    let ours = world(Some(router.clone()), &[], &[]);
    let theirs = world(Some(router.clone()), &[], &[]);
    let made_there = theirs.names.keys().generate("site").expect("made");
    let asked = Publish { key: "site".to_owned(), ..to(CID) };
    let told = theirs.names.publish(&asked).await.expect("published").told;
    assert_eq!(told, [("the test's router".to_owned(), Ok(()))]);
    let name = name_text(&made_there.name);
    let found = ours.names.resolve(&name, How::default()).await.expect("found");
    assert_eq!((found.root.to_string().as_str(), found.steps[0].from), (CID, From::Routing));
    let looked = *router.1.lock();
    ours.names.resolve(&name, How::default()).await.expect("found");
    assert_eq!(*router.1.lock(), looked, "still fresh");
    ours.names.resolve(&name, How { refresh: true, ..How::default() }).await.expect("found");
    assert_eq!(*router.1.lock(), looked + 1);
    assert!(matches!(theirs.names.record(&made_there.name, How::default()).await, Ok((_, From::Own))));

    // What routing brings is not believed: a record of another name, and one that ended.
    let other = theirs.names.keys().generate("other").expect("made");
    router.0.lock().insert(routing_key(&other.name), made(&theirs, 1, "2100-01-01T00:00:00Z"));
    let said = ours.names.resolve(&name_text(&other.name), How::default()).await.expect_err("refused").to_string();
    assert!(said.contains("refused") && said.contains("signature"), "{said}");
    let own = theirs.names.keys().find(SELF).expect("self").name();
    router.0.lock().insert(routing_key(&own), made(&theirs, 1, "2020-01-01T00:00:00Z"));
    let said = ours.names.resolve(&name_text(&own), How::default()).await.expect_err("ended").to_string();
    assert!(said.contains("ended at 2020-01-01T00:00:00Z"), "{said}");
    let said = ours.names.resolve(&name_text(&own), How { is_local: true, ..How::default() }).await.expect_err("none").to_string();
    assert!(said.contains("only the cluster"), "{said}");
}

#[tokio::test]
async fn a_version_published_elsewhere_is_counted_on_from() {
    let router = Arc::new(Router::default());
    let world = world(Some(router.clone()), &[], &[]);
    let own = world.names.keys().find(SELF).expect("self").name();
    router.0.lock().insert(routing_key(&own), made(&world, 41, "2100-01-01T00:00:00Z"));
    let published = world.names.publish(&to(&format!("/ipfs/{CID}/newer"))).await.expect("published");
    assert_eq!(published.entry.sequence, 42);
}

#[tokio::test]
async fn a_record_from_elsewhere_is_taken_when_it_is_right_and_better() {
    let world = world(None, &[], &[]);
    let name = own_name(&world);
    let good = made(&world, 5, "2100-01-01T00:00:00Z");
    world.names.put(&name, &good).await.expect("taken");
    assert_eq!(world.names.resolve(&name, How::default()).await.expect("found").steps[0].sequence, Some(5));
    let refused = |bytes: Vec<u8>| {
        let (names, name) = (world.names.clone(), name.clone());
        async move { names.put(&name, &bytes).await.expect_err("refused").to_string() }
    };
    assert!(refused(made(&world, 4, "2100-01-01T00:00:00Z")).await.contains("better record is known: sequence 5"));
    assert!(refused(made(&world, 6, "2020-01-01T00:00:00Z")).await.contains("ended at"));
    let mut changed = good.clone();
    *changed.last_mut().expect("bytes") ^= 1;
    assert!(refused(changed).await.contains("ipns record"));
    let other = world.names.keys().generate("other").expect("made");
    let said = world.names.put(&name_text(&other.name), &good).await.expect_err("refused").to_string();
    assert!(said.contains("signature is wrong"), "{said}");
}

#[tokio::test]
async fn own_records_are_renewed_in_time_with_their_lifetime() {
    let router = Arc::new(Router::default());
    let world = world(Some(router.clone()), &[], &[]);
    world.names.publish(&to(CID)).await.expect("published");
    let own = world.names.keys().find(SELF).expect("self").name();
    assert!(world.names.renew_due().await > Duration::from_secs(60), "nothing is due");

    // Written long ago, at its end: as after days of being switched off.
    let ended = made(&world, 3, "2020-01-03T00:00:00Z");
    let begun = GoTime::parse("2020-01-01T00:00:00Z").expect("a time").to_millis();
    world.registers.set(Written { name: own, is_mine: true, at: begun, record: ended });
    assert!(matches!(world.names.record(&own, How { is_local: true, ..How::default() }).await, Err(NameError::Expired { .. })));
    world.names.renew_due().await;
    let (record, _) = world.names.record(&own, How::default()).await.expect("renewed");
    assert_eq!(record.entry.sequence, 3);
    let left = record.entry.validity.to_millis().0 - crate::clock::wall().0;
    assert!(left > 47 * 3600 * 1000 && left <= 48 * 3600 * 1000, "{left}");
    assert_eq!(router.0.lock().get(&routing_key(&own)).map(Vec::as_slice), Some(record.bytes()), "routing is told too");
}

#[tokio::test]
async fn what_cannot_be_renewed_is_kept_until_its_end() {
    let world = world(None, &[], &[]);
    let key = world.names.keys().generate("site").expect("made");
    world.names.publish(&Publish { key: "site".to_owned(), ..to(CID) }).await.expect("published");
    let written = world.registers.of(&key.name).expect("read").remove(0);
    world.names.keys().remove("site").expect("removed");
    let early = UnixMillis(written.at.0 - 47 * 3600 * 1000);
    world.registers.set(Written { at: early, ..written.clone() });
    world.names.renew_due().await;
    assert_eq!(world.registers.of(&key.name).expect("read")[0].record, written.record, "still good, so still there");
}

#[test]
fn renewals_come_in_good_time() {
    let hours = |hours: u64| UnixMillis(hours * 3_600_000);
    let most = Duration::from_secs(4 * 3600);
    assert_eq!(renew::due(hours(100), hours(148), most), hours(104));
    assert_eq!(renew::due(hours(100), hours(103), most), hours(102));
    assert_eq!(renew::due(hours(100), hours(100), most), hours(100));
}
