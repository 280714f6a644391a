//! Who wants a pin kept: several owners of one CID, and the one pin that Go's state knows.
//!
//! A claim is `(owner, name) -> CID` with its wish; claims are records of their owners. The shared pin is their projection: the
//! most copies, the latest end, all names. One owner's release keeps what the others claim. Used by homes and doors with
//! users of their own; Go's interface claims as one owner.

use std::collections::{BTreeMap, BTreeSet};
use types::{Cid, PinOptions, Replicas, UnixMillis};

/// Names that fit into a pin's metadata; more are counted only.
const NAMES_MOST: usize = 32;
/// Where the names of all claims stand in the pin's metadata.
const NAMES: &str = "pinfold-names";

/// One owner's wish for one CID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What is to be kept.
    pub cid: Cid,
    /// How many copies.
    pub replicas: Replicas,
    /// Until when.
    pub expires: Option<UnixMillis>,
}

/// All claims, by owner and name.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    claims: BTreeMap<(String, String), Claim>,
    by_cid: BTreeMap<Cid, BTreeSet<(String, String)>>,
}

impl Claims {
    /// Puts a claim in the place of the owner's earlier one of this name; the CIDs whose pin is to be written anew.
    pub fn claim(&mut self, owner: &str, name: &str, claim: Claim) -> BTreeSet<Cid> {
        let key = (owner.to_owned(), name.to_owned());
        let mut touched = self.release(owner, name);
        touched.insert(claim.cid);
        self.by_cid.entry(claim.cid).or_default().insert(key.clone());
        self.claims.insert(key, claim);
        touched
    }

    /// Ends a claim; the CID whose pin is to be written anew, or removed when [`Claims::project`] gives none.
    pub fn release(&mut self, owner: &str, name: &str) -> BTreeSet<Cid> {
        let key = (owner.to_owned(), name.to_owned());
        let Some(claim) = self.claims.remove(&key) else { return BTreeSet::new() };
        if let Some(keys) = self.by_cid.get_mut(&claim.cid) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_cid.remove(&claim.cid);
            }
        }
        BTreeSet::from([claim.cid])
    }

    /// The one pin that serves all claims of a CID; none when nobody claims it.
    pub fn project(&self, cid: &Cid) -> Option<PinOptions> {
        let keys = self.by_cid.get(cid)?;
        let claims = keys.iter().filter_map(|key| self.claims.get(key));
        let replicas = claims.clone().map(|claim| claim.replicas).reduce(most_copies)?;
        let ends: Vec<Option<UnixMillis>> = claims.map(|claim| claim.expires).collect();
        let expires = if ends.contains(&None) { None } else { ends.into_iter().flatten().max() };
        let names: BTreeSet<&str> = keys.iter().map(|(_, name)| name.as_str()).collect();
        let listed: Vec<&str> = names.iter().take(NAMES_MOST).copied().collect();
        let mut options =
            PinOptions { replicas, expires, name: listed.first().copied().unwrap_or_default().to_owned(), ..PinOptions::default() };
        if names.len() > 1 {
            options.metadata.insert(NAMES.to_owned(), listed.join("\n"));
        }
        Some(options)
    }
}

/// Everywhere beats numbers, numbers beat what is not said; of two numbers each side's maximum.
pub(crate) fn most_copies(a: Replicas, b: Replicas) -> Replicas {
    match (a, b) {
        (Replicas::Everywhere, _) | (_, Replicas::Everywhere) => Replicas::Everywhere,
        (Replicas::Unset, other) | (other, Replicas::Unset) => other,
        (Replicas::Between { least, most }, Replicas::Between { least: other_least, most: other_most }) => {
            Replicas::Between { least: least.max(other_least), most: most.max(other_most) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cid;

    fn claim(number: u64, factors: (i32, i32), end: u64) -> Claim {
        let expires = (end > 0).then(|| UnixMillis::from_seconds(end));
        Claim { cid: cid(number), replicas: Replicas::from_factors(factors.0, factors.1).expect("factors"), expires }
    }

    /// Claims of anna and bert on one CID; factors and end of the shared pin.
    fn check(anna: ((i32, i32), u64), bert: ((i32, i32), u64), expected: ((i32, i32), u64)) {
        let mut claims = Claims::default();
        claims.claim("anna", "a", claim(1, anna.0, anna.1));
        claims.claim("bert", "b", claim(1, bert.0, bert.1));
        let pin = claims.project(&cid(1)).expect("claimed");
        assert_eq!((pin.replicas.factors(), pin.expires.map_or(0, UnixMillis::seconds)), expected);
        assert_eq!(pin.metadata.get(NAMES).map(String::as_str), Some("a\nb"));
    }

    #[test]
    fn the_shared_pin_serves_the_greatest_wish() {
        check(((1, 2), 0), ((2, 2), 0), ((2, 2), 0));
        check(((1, 5), 10), ((3, 3), 20), ((3, 5), 20));
        check(((1, 5), 10), ((0, 0), 0), ((1, 5), 0));
        check(((-1, -1), 10), ((3, 3), 5), ((-1, -1), 10));
    }

    #[test]
    fn one_owners_release_keeps_what_the_other_claims() {
        let mut claims = Claims::default();
        claims.claim("anna", "a", claim(1, (3, 3), 0));
        claims.claim("bert", "b", claim(1, (1, 1), 0));
        assert_eq!(claims.release("anna", "a"), BTreeSet::from([cid(1)]));
        assert_eq!(claims.project(&cid(1)).expect("bert's").replicas.factors(), (1, 1));
        claims.release("bert", "b");
        assert_eq!(claims.project(&cid(1)), None);
        assert!(claims.release("bert", "b").is_empty());
    }

    #[test]
    fn a_name_that_moves_touches_both_cids() {
        let mut claims = Claims::default();
        claims.claim("anna", "site", claim(1, (1, 1), 0));
        assert_eq!(claims.claim("anna", "site", claim(2, (1, 1), 0)), BTreeSet::from([cid(1), cid(2)]));
        assert_eq!(claims.project(&cid(1)), None);
    }
}
