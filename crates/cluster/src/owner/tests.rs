use super::*;
use crate::testing::{cid, peer};
use types::{Depth, PinKind};

const NOW: UnixMillis = UnixMillis(1_000);

fn claim(number: u64, factors: (i32, i32), end: u64) -> Claim {
    let expires = (end > 0).then(|| UnixMillis::from_seconds(end));
    Claim { cid: cid(number), replicas: Replicas::from_factors(factors.0, factors.1).expect("factors"), expires }
}

fn record(author: u8, owner: &str, name: &str, version: u64, claim: Option<&Claim>) -> SignedRecord {
    let key = RecordKey { kind: RecordKind::Claim, key: register_key(owner, name), author: peer(author) };
    SignedRecord { key, version, written: UnixMillis(0), value: claim.map(Claim::encode), signature: Vec::new() }
}

fn pin(number: u64, options: PinOptions) -> Pin {
    let created = UnixMillis(0);
    Pin { cid: cid(number), kind: PinKind::Data, options, placement: Vec::new(), depth: Depth::Recursive, reference: None, created }
}

fn plain(name: &str, factors: (i32, i32)) -> PinOptions {
    let replicas = Replicas::from_factors(factors.0, factors.1).expect("factors");
    PinOptions { name: name.to_owned(), replicas, ..PinOptions::default() }
}

fn kept(projection: Projection) -> PinOptions {
    match projection {
        Projection::Keep(options) => *options,
        other => panic!("kept, not {other:?}"),
    }
}

/// Claims of anna and bert on one CID; factors and end of the shared pin.
fn check_both(anna: ((i32, i32), u64), bert: ((i32, i32), u64), expected: ((i32, i32), u64)) {
    let mut claims = Claims::default();
    claims.observe(&record(1, "anna", "a", 1, Some(&claim(1, anna.0, anna.1))));
    claims.observe(&record(2, "bert", "b", 1, Some(&claim(1, bert.0, bert.1))));
    let options = kept(claims.project(&cid(1), None, NOW));
    assert_eq!((options.replicas.factors(), options.expires.map_or(0, UnixMillis::seconds)), expected);
    assert_eq!(options.metadata[OWNERS], format!("{}\nanna/a\nbert/b", cid(1)));
}

#[test]
fn the_shared_pin_serves_the_greatest_wish() {
    check_both(((1, 2), 0), ((2, 2), 0), ((2, 2), 0));
    check_both(((1, 5), 10), ((3, 3), 20), ((3, 5), 20));
    check_both(((1, 5), 10), ((0, 0), 0), ((1, 5), 0));
    check_both(((-1, -1), 10), ((3, 3), 5), ((-1, -1), 10));
}

#[test]
fn one_owners_release_keeps_what_the_other_claims() {
    let mut claims = Claims::default();
    claims.observe(&record(1, "anna", "a", 1, Some(&claim(1, (3, 3), 0))));
    claims.observe(&record(1, "bert", "b", 1, Some(&claim(1, (1, 1), 0))));
    let shared = pin(1, kept(claims.project(&cid(1), None, NOW)));
    assert_eq!(claims.observe(&record(2, "anna", "a", 2, None)), [cid(1)].into(), "released through another peer");
    let shared = pin(1, kept(claims.project(&cid(1), Some(&shared), NOW)));
    assert_eq!((shared.options.replicas.factors(), shared.options.name.as_str()), ((1, 1), "b"));
    claims.observe(&record(1, "bert", "b", 2, None));
    assert_eq!(claims.project(&cid(1), Some(&shared), NOW), Projection::Remove);
    assert_eq!(claims.project(&cid(1), None, NOW), Projection::AsIs);
    assert!(claims.observe(&record(1, "bert", "b", 2, None)).is_empty(), "known");
}

#[test]
fn what_the_cluster_wishes_itself_comes_back_when_the_owners_are_gone() {
    let mut claims = Claims::default();
    let before = pin(1, PinOptions { metadata: [("k".to_owned(), "v".to_owned())].into(), ..plain("site", (2, 3)) });
    assert_eq!(claims.project(&cid(1), Some(&before), NOW), Projection::AsIs);
    claims.observe(&record(1, "anna", "a", 1, Some(&claim(1, (5, 5), 0))));
    let shared = pin(1, kept(claims.project(&cid(1), Some(&before), NOW)));
    assert_eq!((shared.options.replicas.factors(), shared.options.name.as_str()), ((5, 5), "site"));
    assert!(has_owners(&shared) && is_wished_by_cluster(&shared));
    assert_eq!(kept(claims.project(&cid(1), Some(&shared), NOW)), shared.options, "nothing to do");
    claims.observe(&record(1, "anna", "a", 2, None));
    assert_eq!(kept(claims.project(&cid(1), Some(&shared), NOW)), before.options);
}

#[test]
fn a_go_client_writes_the_clusters_wish_and_the_owners_come_back() {
    let mut claims = Claims::default();
    claims.observe(&record(1, "anna", "a", 1, Some(&claim(1, (2, 2), 0))));
    let shared = pin(1, kept(claims.project(&cid(1), None, NOW)));
    assert!(!is_wished_by_cluster(&shared));
    // Its re-pin drops the metadata.
    let repinned = pin(1, plain("by Go", (1, 1)));
    let healed = pin(1, kept(claims.project(&cid(1), Some(&repinned), NOW)));
    assert_eq!((healed.options.replicas.factors(), healed.options.name.as_str()), ((2, 2), "by Go"));
    // Its unpin ends the cluster's wish alone.
    assert_eq!(kept(claims.project(&cid(1), None, NOW)), shared.options);
    assert_eq!(kept(claims.project_with(&cid(1), Some(&healed), None, NOW)).metadata.get(OWN), None);
}

#[test]
fn nothing_goes_because_a_claim_is_not_known() {
    let mut knowing = Claims::default();
    knowing.observe(&record(1, "anna", "a", 1, Some(&claim(1, (2, 2), 0))));
    knowing.observe(&record(1, "bert", "b", 1, Some(&claim(1, (3, 3), 0))));
    let shared = pin(1, kept(knowing.project(&cid(1), None, NOW)));
    let mut fresh = Claims::default();
    assert_eq!(fresh.project(&cid(1), Some(&shared), NOW), Projection::AsIs);
    fresh.observe(&record(1, "anna", "a", 2, None));
    assert_eq!(fresh.project(&cid(1), Some(&shared), NOW), Projection::AsIs);
    // A pin update copies the metadata to another CID: there it says nothing.
    let copied = pin(2, shared.options.clone());
    assert!(!has_owners(&copied) && is_wished_by_cluster(&copied));
    knowing.observe(&record(1, "anna", "a", 2, None));
    knowing.observe(&record(1, "bert", "b", 2, None));
    assert_eq!(knowing.project(&cid(2), Some(&copied), NOW), Projection::AsIs);
    assert_eq!(knowing.project(&cid(1), Some(&shared), NOW), Projection::Remove);
}

#[test]
fn a_claim_ends_with_its_time() {
    let mut claims = Claims::default();
    claims.observe(&record(1, "anna", "a", 1, Some(&claim(1, (2, 2), 5))));
    assert!(claims.has(&cid(1), NOW) && !claims.has(&cid(1), UnixMillis(5_000)));
    let shared = pin(1, kept(claims.project(&cid(1), None, NOW)));
    assert_eq!(claims.project(&cid(1), Some(&shared), UnixMillis(5_000)), Projection::Remove);
}

#[test]
fn a_name_that_moves_touches_both_cids() {
    let mut claims = Claims::default();
    claims.observe(&record(1, "anna", "site", 1, Some(&claim(1, (1, 1), 0))));
    let shared = pin(1, kept(claims.project(&cid(1), None, NOW)));
    let moved = record(2, "anna", "site", 2, Some(&claim(2, (1, 1), 0)));
    assert_eq!(claims.observe(&moved), [cid(1), cid(2)].into());
    assert_eq!(claims.project(&cid(1), Some(&shared), NOW), Projection::Remove);
    assert_eq!(claims.get("anna", "site", NOW).map(|claim| claim.cid), Some(cid(2)));
    assert!(claims.observe(&record(1, "anna", "site", 2, Some(&claim(3, (1, 1), 0)))).is_empty(), "of two at once the greater author's");
}

#[test]
fn many_owners_are_counted_and_never_taken_for_gone() {
    let mut claims = Claims::default();
    for number in 0..LISTED_MOST + 1 {
        claims.observe(&record(1, "anna", &format!("{number:04}"), 1, Some(&claim(1, (1, 1), 0))));
    }
    let shared = pin(1, kept(claims.project(&cid(1), None, NOW)));
    assert_eq!(shared.options.metadata[OWNERS].lines().count(), LISTED_MOST + 2);
    let mut partly = Claims::default();
    for number in 0..LISTED_MOST {
        partly.observe(&record(1, "anna", &format!("{number:04}"), 2, None));
    }
    assert_eq!(partly.project(&cid(1), Some(&shared), NOW), Projection::AsIs);
}

#[test]
fn odd_owners_and_values_are_refused() {
    for (owner, name) in [("", "a"), ("a", ""), ("a/b", "c"), ("a\n", "b"), ("a", "b\n"), (&"x".repeat(65), "a"), ("a", &"x".repeat(181))] {
        assert!(check(owner, name).is_err(), "{owner:?} {name:?}");
        // As a key it is another owner's name.
        let is_other = owner == "a/b";
        assert!(is_other || Claims::default().observe(&record(1, owner, name, 1, Some(&claim(1, (1, 1), 0)))).is_empty());
    }
    assert!(check("anna", "a/b c").is_ok());
    for value in ["", "x", "bafy 1 1 0", "1 1 1 1", "\u{ff}"] {
        assert_eq!(Claim::decode(value.as_bytes()), None, "{value:?}");
    }
    let some = claim(1, (2, 3), 7);
    assert_eq!(Claim::decode(&[some.encode(), b" more".to_vec()].concat()), Some(some));
}
