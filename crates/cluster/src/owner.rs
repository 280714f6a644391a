//! Who wants a pin kept: several owners of one CID, and the one pin that Go's state knows.
//!
//! A claim is `(owner, name) -> CID` with its wish: a signed register, whoever of the members wrote it last. The cluster itself is an owner
//! without a claim: its wish is the pin as Go's clients and commands without an owner write it. The shared pin is the projection of all: the most
//! copies, the latest end, all names in its metadata. One owner's release keeps what the others claim.
//!
//! Go peers see an ordinary pin. What a Go client writes over it (its re-pin drops the metadata) is the cluster's wish, and what it removes is only
//! that: a pin with claims is put back. Nothing is removed because a claim is not known: only when every owner that the pin names
//! is known to have released it.

use std::collections::{BTreeMap, BTreeSet};
use types::{Cid, PeerId, Pin, PinOptions, RecordKey, RecordKind, Replicas, SignedRecord, UnixMillis};

/// Bytes of an owner, and of its name for a pin: together they are the key of a register.
const OWNER_MOST: usize = 64;
const NAME_MOST: usize = 180;
/// Owners that a pin's metadata names; with more it is never removed by anybody but whoever is asked to.
const LISTED_MOST: usize = 256;
/// In the pin's metadata: the CID, then its owners as `owner/name`, one a line. Bound to the CID, since a pin update copies metadata.
const OWNERS: &str = "pinfold-owners";
/// In the pin's metadata: what the cluster itself wishes beside them.
const OWN: &str = "pinfold-own";
/// Stands in the list for those that have no room.
const MORE: &str = "/more";

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

/// Why an owner or a name is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOwner {
    /// Missing, too long, or with a `/` or a control character.
    #[error("owner {0:?}: use 1 to {OWNER_MOST} bytes without / and control characters")]
    Owner(String),
    /// The same of a name, which may have a `/`.
    #[error("name {0:?}: use 1 to {NAME_MOST} bytes without control characters")]
    Name(String),
}

/// Checks who claims, and under which name.
pub fn check(owner: &str, name: &str) -> Result<(), BadOwner> {
    let is_plain = |text: &str, most: usize| !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control);
    if !is_plain(owner, OWNER_MOST) || owner.contains('/') {
        return Err(BadOwner::Owner(owner.chars().take(80).collect()));
    }
    if !is_plain(name, NAME_MOST) {
        return Err(BadOwner::Name(name.chars().take(200).collect()));
    }
    Ok(())
}

/// The key of a claim's register.
pub fn register_key(owner: &str, name: &str) -> Vec<u8> {
    format!("{owner}/{name}").into_bytes()
}

impl Claim {
    /// The value of its register.
    pub fn encode(&self) -> Vec<u8> {
        let (least, most) = self.replicas.factors();
        format!("{} {least} {most} {}", self.cid, self.expires.map_or(0, |end| end.0)).into_bytes()
    }

    /// Reads it; words after the last are left for later versions.
    pub fn decode(value: &[u8]) -> Option<Claim> {
        let mut words = std::str::from_utf8(value).ok()?.split(' ');
        let cid = words.next()?.parse().ok()?;
        let replicas = Replicas::from_factors(words.next()?.parse().ok()?, words.next()?.parse().ok()?).ok()?;
        let end: u64 = words.next()?.parse().ok()?;
        Some(Claim { cid, replicas, expires: (end > 0).then_some(UnixMillis(end)) })
    }

    fn is_live(&self, wall: UnixMillis) -> bool {
        self.expires.is_none_or(|end| end > wall)
    }
}

/// An owner and its name for what it keeps.
pub type Named = (String, String);

/// A register's last value.
#[derive(Clone, Debug)]
struct Register {
    version: u64,
    author: PeerId,
    claim: Option<Claim>,
}

/// All claims, by owner and name.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    registers: BTreeMap<Named, Register>,
    by_cid: BTreeMap<Cid, BTreeSet<Named>>,
}

/// What the shared pin of a CID should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Projection {
    /// As it is; none where there is none.
    AsIs,
    /// With these options.
    Keep(Box<PinOptions>),
    /// Nobody wishes it any more.
    Remove,
}

/// What the cluster itself wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    replicas: Replicas,
    expires: Option<UnixMillis>,
    name: String,
}

impl Claims {
    /// Takes an accepted record; the CIDs whose pin is to be looked at.
    pub fn observe(&mut self, record: &SignedRecord) -> BTreeSet<Cid> {
        let Some(named) = named_of(&record.key) else { return BTreeSet::new() };
        if self.registers.get(&named).is_some_and(|known| (known.version, known.author) >= (record.version, record.key.author)) {
            return BTreeSet::new();
        }
        let claim = record.value.as_deref().map(Claim::decode);
        // A later version wrote something that this one cannot read: that releases nothing.
        let Some(claim) = claim.map_or(Some(None), |read| read.map(Some)) else { return BTreeSet::new() };
        let mut touched: BTreeSet<Cid> = claim.iter().map(|claim| claim.cid).collect();
        if let Some(claim) = &claim {
            self.by_cid.entry(claim.cid).or_default().insert(named.clone());
        }
        let register = Register { version: record.version, author: record.key.author, claim };
        if let Some(before) = self.registers.insert(named.clone(), register).and_then(|before| before.claim)
            && touched.insert(before.cid)
            && let Some(all) = self.by_cid.get_mut(&before.cid)
        {
            all.remove(&named);
            if all.is_empty() {
                self.by_cid.remove(&before.cid);
            }
        }
        touched
    }

    /// CIDs that are claimed.
    pub fn cids(&self) -> impl Iterator<Item = &Cid> {
        self.by_cid.keys()
    }

    /// Whether anybody claims it.
    pub fn has(&self, cid: &Cid, wall: UnixMillis) -> bool {
        self.of(cid, wall).next().is_some()
    }

    /// Who claims a CID.
    pub fn of<'a>(&'a self, cid: &Cid, wall: UnixMillis) -> impl Iterator<Item = (&'a Named, &'a Claim)> {
        let named = self.by_cid.get(cid).into_iter().flatten();
        let claims = named.filter_map(|named| Some((named, self.registers.get(named)?.claim.as_ref()?)));
        claims.filter(move |(_, claim)| claim.is_live(wall))
    }

    /// Everything that is claimed.
    pub fn all(&self, wall: UnixMillis) -> impl Iterator<Item = (&Named, &Claim)> {
        let claims = self.registers.iter().filter_map(|(named, register)| Some((named, register.claim.as_ref()?)));
        claims.filter(move |(_, claim)| claim.is_live(wall))
    }

    /// What a claim says now.
    pub fn get(&self, owner: &str, name: &str, wall: UnixMillis) -> Option<&Claim> {
        self.registers.get(&(owner.to_owned(), name.to_owned()))?.claim.as_ref().filter(|claim| claim.is_live(wall))
    }

    /// The one pin that serves the claims of a CID and the cluster's own wish.
    pub fn project(&self, cid: &Cid, pin: Option<&Pin>, wall: UnixMillis) -> Projection {
        let listed = pin.and_then(|pin| listed(cid, &pin.options));
        let own = pin.and_then(|pin| own(&pin.options, listed.is_some())).filter(|own| own.expires.is_none_or(|end| end > wall));
        let base = pin.map(|pin| pin.options.clone()).unwrap_or_default();
        self.projected(cid, listed.unwrap_or_default(), own, base, wall)
    }

    /// The same when the cluster wishes something else from here on: these options, or nothing.
    pub fn project_with(&self, cid: &Cid, pin: Option<&Pin>, own: Option<PinOptions>, wall: UnixMillis) -> Projection {
        let listed = pin.and_then(|pin| listed(cid, &pin.options)).unwrap_or_default();
        let base = own.clone().or_else(|| pin.map(|pin| pin.options.clone())).unwrap_or_default();
        let own = own.map(|options| Own { replicas: options.replicas, expires: options.expires, name: options.name });
        self.projected(cid, listed, own, base, wall)
    }

    fn projected(&self, cid: &Cid, listed: BTreeSet<String>, own: Option<Own>, base: PinOptions, wall: UnixMillis) -> Projection {
        let claims: Vec<(&Named, &Claim)> = self.of(cid, wall).collect();
        // Of owners that are named and not known to have let go, the claim is on its way: what the pin grants them is kept.
        let unknown: Vec<&String> = listed.iter().filter(|entry| !self.is_known(entry)).collect();
        if claims.is_empty() && !unknown.is_empty() {
            return Projection::AsIs;
        }
        if claims.is_empty() {
            return match own {
                _ if listed.is_empty() => Projection::AsIs,
                None => Projection::Remove,
                Some(own) => Projection::Keep(Box::new(bare(base, own))),
            };
        }
        let mut replicas: Vec<Replicas> = claims.iter().map(|(_, claim)| claim.replicas).collect();
        let mut ends: Vec<Option<UnixMillis>> = claims.iter().map(|(_, claim)| claim.expires).collect();
        if let Some(own) = &own {
            replicas.push(own.replicas);
            ends.push(own.expires);
        }
        if !unknown.is_empty() {
            replicas.push(base.replicas);
            ends.push(base.expires);
        }
        let mut entries: BTreeSet<String> = claims.iter().map(|((owner, name), _)| format!("{owner}/{name}")).collect();
        entries.extend(unknown.into_iter().cloned());
        let mut lines = vec![cid.to_string()];
        let is_too_long = entries.len() > LISTED_MOST;
        lines.extend(entries.into_iter().take(LISTED_MOST));
        if is_too_long {
            lines.push(MORE.to_owned());
        }
        let first = claims.first().map(|((_, name), _)| name.clone()).unwrap_or_default();
        let mut options = PinOptions {
            replicas: replicas.into_iter().reduce(most_copies).unwrap_or_default(),
            expires: if ends.contains(&None) { None } else { ends.into_iter().flatten().max() },
            name: own.as_ref().map(|own| own.name.clone()).filter(|name| !name.is_empty()).unwrap_or(first),
            ..base
        };
        options.metadata.insert(OWNERS.to_owned(), lines.join("\n"));
        match own {
            Some(own) => options.metadata.insert(OWN.to_owned(), own.encode()),
            None => options.metadata.remove(OWN),
        };
        Projection::Keep(Box::new(options))
    }

    /// Whether it is known what became of an owner's claim that a pin names.
    fn is_known(&self, entry: &str) -> bool {
        entry.split_once('/').is_some_and(|(owner, name)| self.registers.contains_key(&(owner.to_owned(), name.to_owned())))
    }
}

/// Without what is said of owners: for a pin of another CID, and for people.
pub fn without_owners(mut options: PinOptions) -> PinOptions {
    options.metadata.remove(OWNERS);
    options.metadata.remove(OWN);
    options
}

/// Whether the pin says that it has owners beside the cluster.
pub fn has_owners(pin: &Pin) -> bool {
    listed(&pin.cid, &pin.options).is_some()
}

/// Whether the cluster itself wishes the pin.
pub fn is_wished_by_cluster(pin: &Pin) -> bool {
    own(&pin.options, has_owners(pin)).is_some()
}

fn bare(base: PinOptions, own: Own) -> PinOptions {
    PinOptions { replicas: own.replicas, expires: own.expires, name: own.name, ..without_owners(base) }
}

/// The owners that a pin names; none where it names none, or those of another CID.
fn listed(cid: &Cid, options: &PinOptions) -> Option<BTreeSet<String>> {
    let mut lines = options.metadata.get(OWNERS)?.lines();
    (lines.next() == Some(cid.to_string().as_str())).then(|| lines.map(str::to_owned).collect())
}

fn own(options: &PinOptions, has_owners: bool) -> Option<Own> {
    if has_owners {
        return options.metadata.get(OWN).and_then(|text| Own::decode(text));
    }
    Some(Own { replicas: options.replicas, expires: options.expires, name: options.name.clone() })
}

impl Own {
    fn encode(&self) -> String {
        let (least, most) = self.replicas.factors();
        format!("{least} {most} {} {}", self.expires.map_or(0, |end| end.0), self.name)
    }

    fn decode(text: &str) -> Option<Own> {
        let mut words = text.splitn(4, ' ');
        let replicas = Replicas::from_factors(words.next()?.parse().ok()?, words.next()?.parse().ok()?).ok()?;
        let end: u64 = words.next()?.parse().ok()?;
        Some(Own { replicas, expires: (end > 0).then_some(UnixMillis(end)), name: words.next().unwrap_or_default().to_owned() })
    }
}

fn named_of(key: &RecordKey) -> Option<Named> {
    if key.kind != RecordKind::Claim {
        return None;
    }
    let (owner, name) = std::str::from_utf8(&key.key).ok()?.split_once('/')?;
    check(owner, name).ok()?;
    Some((owner.to_owned(), name.to_owned()))
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
mod tests;
