//! A pin as a line of JSON, written straight into a buffer: lists of a million pins are made of these.
//!
//! The bytes are those of [`to_go_json`] over [`super::Pin`], which the tests hold them to.

use super::{address_texts, kind_text, to_go_json};
use crate::gotime::GoTime;
use crate::pin::depth_number;
use data_encoding::BASE32_NOPAD;
use std::collections::BTreeMap;
use types::{Cid, Depth, PeerId, Pin};

/// Texts of peer ids kept; base58 is slow to make, and a cluster has few peers.
const PEERS_MAX: usize = 1024;

/// Writes lines.
#[derive(Clone, Debug, Default)]
pub struct LineWriter {
    peers: BTreeMap<PeerId, Box<str>>,
}

impl LineWriter {
    /// Appends Go's `Pin` and a newline.
    pub fn push_pin(&mut self, out: &mut Vec<u8>, pin: &Pin) {
        let options = &pin.options;
        let (least, most) = options.replicas.factors();
        out.extend_from_slice(b"{\"replication_factor_min\":");
        push_number(out, i64::from(least));
        out.extend_from_slice(b",\"replication_factor_max\":");
        push_number(out, i64::from(most));
        out.extend_from_slice(b",\"name\":");
        push_text(out, &options.name);
        out.extend_from_slice(match pin.depth {
            Depth::DIRECT => b",\"mode\":\"direct\",\"shard_size\":",
            _ => b",\"mode\":\"recursive\",\"shard_size\":",
        });
        push_unsigned(out, options.shard_size);
        out.extend_from_slice(b",\"user_allocations\":");
        match options.prefer.as_slice() {
            [] => out.extend_from_slice(b"null"),
            peers => self.push_peers(out, peers),
        }
        out.extend_from_slice(b",\"expire_at\":");
        push_time(out, options.expires.into());
        out.extend_from_slice(b",\"metadata\":");
        push_metadata(out, &options.metadata);
        out.extend_from_slice(b",\"pin_update\":");
        push_cid(out, options.update.as_ref());
        out.extend_from_slice(b",\"origins\":");
        push_origins(out, &options.origins);
        out.extend_from_slice(b",\"cid\":");
        push_cid(out, Some(&pin.cid));
        out.extend_from_slice(b",\"type\":\"");
        out.extend_from_slice(kind_text(pin.kind).as_bytes());
        out.extend_from_slice(b"\",\"allocations\":");
        self.push_peers(out, &pin.placement);
        out.extend_from_slice(b",\"max_depth\":");
        push_number(out, i64::from(depth_number(pin.depth)));
        out.extend_from_slice(b",\"reference\":");
        push_cid(out, pin.reference.as_ref());
        out.extend_from_slice(b",\"timestamp\":");
        push_time(out, pin.created.into());
        out.extend_from_slice(b"}\n");
    }

    /// Appends what Go's `GlobalPinInfo` takes from the pin itself, up to the colon before the map of peers.
    pub fn push_status_head(&mut self, out: &mut Vec<u8>, pin: &Pin) {
        out.extend_from_slice(b"{\"cid\":");
        push_cid(out, Some(&pin.cid));
        out.extend_from_slice(b",\"name\":");
        push_text(out, &pin.options.name);
        out.extend_from_slice(b",\"allocations\":");
        self.push_peers(out, &pin.placement);
        out.extend_from_slice(b",\"origins\":");
        push_origins(out, &pin.options.origins);
        out.extend_from_slice(b",\"created\":");
        push_time(out, pin.created.into());
        out.extend_from_slice(b",\"metadata\":");
        push_metadata(out, &pin.options.metadata);
        out.extend_from_slice(b",\"peer_map\":");
    }

    fn push_peers(&mut self, out: &mut Vec<u8>, peers: &[PeerId]) {
        out.push(b'[');
        for (at, peer) in peers.iter().enumerate() {
            out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
            if self.peers.len() >= PEERS_MAX {
                self.peers.clear();
            }
            let text = self.peers.entry(*peer).or_insert_with(|| peer.to_string().into());
            out.extend_from_slice(text.as_bytes());
            out.push(b'"');
        }
        out.push(b']');
    }
}

fn push_origins(out: &mut Vec<u8>, origins: &[Vec<u8>]) {
    match origins {
        [] => out.extend_from_slice(b"[]"),
        origins => out.extend_from_slice(to_go_json(&address_texts(origins)).as_bytes()),
    }
}

fn push_metadata(out: &mut Vec<u8>, metadata: &BTreeMap<String, String>) {
    if metadata.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        out.extend_from_slice(to_go_json(metadata).as_bytes());
    }
}

/// A quoted text; what needs no escape is copied as it is.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    let is_plain = text.bytes().all(|byte| matches!(byte, 0x20..0x7f) && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&'));
    if is_plain {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        out.extend_from_slice(to_go_json(text).as_bytes());
    }
}

/// A quoted CID, or null.
pub fn push_cid(out: &mut Vec<u8>, cid: Option<&Cid>) {
    let Some(cid) = cid else { return out.extend_from_slice(b"null") };
    out.push(b'"');
    push_bare_cid(out, cid);
    out.push(b'"');
}

fn push_bare_cid(out: &mut Vec<u8>, cid: &Cid) {
    // The longest CID has three numbers of up to ten bytes before 64 bytes of digest.
    let mut raw = [0; 128];
    let mut rest = &mut raw[..];
    let is_v1 = cid.version() == cid::Version::V1;
    if !is_v1 || cid.write_bytes(&mut rest).is_err() {
        return out.extend_from_slice(cid.to_string().as_bytes());
    }
    let length = 128 - rest.len();
    let begin = out.len() + 1;
    out.push(b'b');
    out.resize(begin + BASE32_NOPAD.encode_len(length), 0);
    BASE32_NOPAD.encode_mut(&raw[..length], &mut out[begin..]);
    out[begin..].make_ascii_lowercase();
}

/// A quoted time as Go prints it.
pub fn push_time(out: &mut Vec<u8>, time: GoTime) {
    out.push(b'"');
    if time.is_zero() {
        out.extend_from_slice(b"0001-01-01T00:00:00Z");
    } else {
        time.push(out);
    }
    out.push(b'"');
}

fn push_number(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    push_unsigned(out, number.unsigned_abs());
}

/// Decimal digits.
pub fn push_unsigned(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut begin = digits.len();
    loop {
        begin -= 1;
        digits[begin] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[begin..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::{self, GlobalPinInfo};
    use std::num::NonZeroU32;
    use types::{PinKind, PinOptions, Replicas, UnixMillis};

    fn cid(text: &str) -> Cid {
        crate::cids::cid_from_text(text).expect("a CID")
    }

    fn pins() -> Vec<Pin> {
        let v1 = cid("bafkreiflkkb6fotir5lny4ep4jgzn7emkbaurq4bnlnnbg7hpdfs622j4y");
        let v0 = cid("QmUXe7pRRhqJ13oqpAUVve9vAfViZzpbPsnhrXojfEePwW");
        let inline = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0, &[7; 64]).expect("fits"));
        let (one, two) = (PeerId::from_ed25519(&[1; 32]), PeerId::from_ed25519(&[2; 32]));
        let plain = Pin {
            cid: v1,
            kind: PinKind::Data,
            options: PinOptions { replicas: Replicas::Everywhere, name: "plain name".into(), ..PinOptions::default() },
            placement: Vec::new(),
            depth: Depth::Recursive,
            reference: None,
            created: UnixMillis::from_seconds(1_700_000_000),
        };
        let least = NonZeroU32::new(2).expect("two");
        let full = PinOptions {
            replicas: Replicas::Between { least, most: NonZeroU32::new(30).expect("thirty") },
            name: "é <&> \"\\ \u{2028}\n".into(),
            shard_size: u64::MAX,
            prefer: vec![two],
            expires: Some(UnixMillis(1_893_553_445_120)),
            metadata: [("a", "<1>"), ("z", "")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            update: Some(v0),
            origins: vec![vec![4, 127, 0, 0, 1, 6, 0x10, 0x92], vec![0xff]],
        };
        let rich =
            Pin { cid: v0, kind: PinKind::Shard, options: full, placement: vec![one, two, one], reference: Some(v1), ..plain.clone() };
        let direct = Pin { cid: inline, kind: PinKind::Meta, depth: Depth::DIRECT, created: UnixMillis(0), ..plain.clone() };
        let levels = Pin { kind: PinKind::ClusterDag, depth: Depth::Levels(1), ..plain.clone() };
        vec![plain.clone(), rich, direct, levels, Pin { kind: PinKind::Bad, ..plain }]
    }

    #[test]
    fn lines_are_those_of_the_slow_writer() {
        let mut writer = LineWriter::default();
        for pin in pins() {
            let mut line = Vec::new();
            writer.push_pin(&mut line, &pin);
            assert_eq!(String::from_utf8(line).expect("text"), to_go_json(&rest::Pin::from(&pin)) + "\n");
            let mut head = Vec::new();
            writer.push_status_head(&mut head, &pin);
            assert_eq!(String::from_utf8(head).expect("text") + "{}}", to_go_json(&GlobalPinInfo::of_pin(&pin)));
        }
    }

    #[test]
    fn numbers_have_their_digits() {
        for number in [0, 7, 10, u64::MAX] {
            let mut out = Vec::new();
            push_unsigned(&mut out, number);
            assert_eq!(String::from_utf8(out).expect("text"), number.to_string());
        }
    }

    #[test]
    fn many_peers_do_not_fill_the_memory() {
        let mut writer = LineWriter::default();
        let mut pin = pins().swap_remove(0);
        for number in 0..3 * PEERS_MAX as u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_le_bytes());
            pin.placement = vec![PeerId::from_ed25519(&key)];
            writer.push_pin(&mut Vec::new(), &pin);
        }
        assert!(writer.peers.len() <= PEERS_MAX);
    }
}
