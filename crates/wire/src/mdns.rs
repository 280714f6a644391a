//! How libp2p peers find each other on a local net: multicast DNS with addresses in TXT records (`dnsaddr=/ip4/…/p2p/ID`).
//!
//! The few forms of it that Go's peers send and understand (their library wants PTR, SRV, TXT and A records in one answer); a service has the
//! name that its peers agreed on. Names are compared in lower case.

use std::net::Ipv4Addr;

/// A datagram is at most so long: no fragments on any usual net.
pub const PACKET_BYTES_MAX: usize = 1400;

/// Addresses that are taken out of one datagram.
const ADDRESSES_MAX: usize = 64;

/// Records that one datagram may have.
const RECORDS_MAX: usize = 256;

/// For how long an answer is good, in seconds: Go tells an address that it heard before again after this.
const TTL: u32 = 120;

const PREFIX: &str = "dnsaddr=";
const PTR: u16 = 12;
const TXT: u16 = 16;
const SRV: u16 = 33;
const A: u16 = 1;
const ANY: u16 = 255;
const INTERNET: u16 = 1;

/// What a datagram says about a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Somebody asks who is there.
    Question,
    /// Somebody says where it is: multiaddrs, as they came.
    Addresses(Vec<String>),
    /// Nothing about it.
    Nothing,
}

/// Asks who serves `service` (as `_p2p._udp.local`).
pub fn question(service: &str) -> Vec<u8> {
    let mut packet = header(0, [1, 0, 0]);
    put_name(&mut packet, service);
    packet.extend_from_slice(&[PTR.to_be_bytes(), INTERNET.to_be_bytes()].concat());
    packet
}

/// Says that `instance` (one label) serves `service` at `addresses`; as many as have room.
pub fn answer(service: &str, instance: &str, interface: Ipv4Addr, addresses: &[String]) -> Vec<u8> {
    let owner = format!("{instance}.{service}");
    let host = format!("{instance}.local");
    let mut packet = header(0x8400, [0, 1, 3]);
    record(&mut packet, service, PTR, |data| put_name(data, &owner));
    record(&mut packet, &owner, SRV, |data| {
        data.extend_from_slice(&[0, 0, 0, 0]);
        // Nobody asks for the port: the addresses have theirs. Go's peers say this one.
        data.extend_from_slice(&4001_u16.to_be_bytes());
        put_name(data, &host);
    });
    record(&mut packet, &host, A, |data| data.extend_from_slice(&interface.octets()));
    let room = PACKET_BYTES_MAX.saturating_sub(packet.len() + owner.len() + 16);
    record(&mut packet, &owner, TXT, |data| {
        for text in addresses.iter().map(|address| format!("{PREFIX}{address}")) {
            let Ok(length) = u8::try_from(text.len()) else { continue };
            if data.len() + 1 + text.len() <= room {
                data.push(length);
                data.extend_from_slice(text.as_bytes());
            }
        }
    });
    packet
}

/// Reads a datagram. None when it is no DNS message.
pub fn hear(packet: &[u8], service: &str) -> Option<Heard> {
    let mut reader = Reader { packet, at: 0 };
    reader.number()?;
    let is_answer = reader.number()? & 0x8000 != 0;
    let counts = [reader.number()?, reader.number()?, reader.number()?, reader.number()?].map(usize::from);
    let records = counts[1] + counts[2] + counts[3];
    if counts[0] > RECORDS_MAX || records > RECORDS_MAX {
        return None;
    }
    let mut is_asked = false;
    for _ in 0..counts[0] {
        let name = reader.name()?;
        let (kind, class) = (reader.number()?, reader.number()?);
        // The highest bit asks for an answer to the asker alone; everybody hears ours.
        is_asked |= name == service && (kind == PTR || kind == ANY) && class & 0x7fff == INTERNET;
    }
    if !is_answer {
        return Some(if is_asked { Heard::Question } else { Heard::Nothing });
    }
    let mut addresses = Vec::new();
    for _ in 0..records {
        let name = reader.name()?;
        let (kind, _, ttl) = (reader.number()?, reader.number()?, (reader.number()?, reader.number()?));
        let length = usize::from(reader.number()?);
        let data = reader.take(length)?;
        let is_ours = name.strip_suffix(service).is_some_and(|instance| instance.ends_with('.'));
        // A lifetime of nothing is a farewell.
        if kind == TXT && is_ours && ttl != (0, 0) {
            addresses.extend(texts(data).filter_map(|text| std::str::from_utf8(text).ok()?.strip_prefix(PREFIX).map(str::to_owned)));
        }
        addresses.truncate(ADDRESSES_MAX);
    }
    Some(if addresses.is_empty() { Heard::Nothing } else { Heard::Addresses(addresses) })
}

/// The strings of a TXT record; a damaged end is left out.
fn texts(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first()?;
        let (text, rest) = rest.split_at_checked(usize::from(*length))?;
        data = rest;
        Some(text)
    })
}

fn header(flags: u16, [questions, answers, additional]: [u16; 3]) -> Vec<u8> {
    [0, flags, questions, answers, 0, additional].map(u16::to_be_bytes).concat()
}

fn record(packet: &mut Vec<u8>, name: &str, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    put_name(packet, name);
    packet.extend_from_slice(&[kind.to_be_bytes(), INTERNET.to_be_bytes()].concat());
    packet.extend_from_slice(&TTL.to_be_bytes());
    let mut data = Vec::new();
    fill(&mut data);
    packet.extend_from_slice(&(data.len() as u16).to_be_bytes());
    packet.extend_from_slice(&data);
}

/// Labels of 1 to 63 bytes, as the names of services and instances have.
fn put_name(out: &mut Vec<u8>, name: &str) {
    for label in name.split('.').filter(|label| !label.is_empty() && label.len() < 64) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
}

struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.packet.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn number(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// A name in lower case. Its end may be a pointer to an earlier place: each goes further back, so it ends.
    fn name(&mut self) -> Option<String> {
        let mut name = Vec::new();
        let mut at = self.at;
        let mut earliest = at;
        let mut end = None;
        loop {
            let length = *self.packet.get(at)?;
            match length {
                0 => {
                    self.at = end.unwrap_or(at + 1);
                    return Some(String::from_utf8_lossy(&name).into_owned());
                }
                1..=63 => {
                    let label = self.packet.get(at + 1..at + 1 + usize::from(length))?;
                    if !name.is_empty() {
                        name.push(b'.');
                    }
                    name.extend(label.iter().map(u8::to_ascii_lowercase));
                    if name.len() > 255 {
                        return None;
                    }
                    at += 1 + usize::from(length);
                }
                192.. => {
                    let target = usize::from(length & 0x3f) << 8 | usize::from(*self.packet.get(at + 1)?);
                    end = end.or(Some(at + 2));
                    if target >= earliest {
                        return None;
                    }
                    (at, earliest) = (target, target);
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "_ipfs-cluster-discovery._udp.local";

    #[test]
    fn what_is_said_is_heard_under_the_same_service_alone() {
        let addresses = ["/ip4/10.0.0.1/tcp/9096/p2p/12D3KooW".to_owned(), "/ip4/10.0.0.1/udp/1/quic-v1/p2p/12D3KooW".to_owned()];
        let said = answer(SERVICE, "somebody", Ipv4Addr::new(10, 0, 0, 1), &addresses);
        assert!(said.len() <= PACKET_BYTES_MAX);
        assert_eq!(hear(&said, SERVICE), Some(Heard::Addresses(addresses.to_vec())));
        assert_eq!(hear(&said, "_p2p._udp.local"), Some(Heard::Nothing));
        assert_eq!(hear(&question(SERVICE), SERVICE), Some(Heard::Question));
        assert_eq!(hear(&question(SERVICE), "_p2p._udp.local"), Some(Heard::Nothing));
    }

    #[test]
    fn more_addresses_than_have_room_are_left_out() {
        let addresses: Vec<String> = (0..200).map(|number| format!("/ip4/10.0.0.{number}/tcp/9096/p2p/{}", "x".repeat(52))).collect();
        let said = answer(SERVICE, "somebody", Ipv4Addr::LOCALHOST, &addresses);
        let Some(Heard::Addresses(heard)) = hear(&said, SERVICE) else { panic!("nothing heard") };
        assert!(said.len() <= PACKET_BYTES_MAX && heard.len() > 8 && addresses.starts_with(&heard), "{} of {}", heard.len(), said.len());
    }

    /// The shape in which Go's library (miekg/dns) writes: names cut short by pointers.
    #[test]
    fn names_that_point_back_are_followed_and_never_in_circles() {
        let mut packet = header(0x8400, [0, 1, 0]);
        put_name(&mut packet, SERVICE);
        let rest = [&[0, 16, 0, 1, 0, 0, 0, 120, 0, 0][..]].concat();
        packet.extend_from_slice(&rest);
        packet[7] = 2;
        packet.extend_from_slice(&[1, b'X', 192, 12, 0, 16, 128, 1, 0, 0, 0, 120, 0, 12]);
        packet.extend_from_slice(b"\x0bdnsaddr=/ab");
        assert_eq!(hear(&packet, SERVICE), Some(Heard::Addresses(vec!["/ab".to_owned()])));
        let circle = [&header(0x8400, [0, 1, 0])[..], &[192, 12]].concat();
        assert_eq!(hear(&circle, SERVICE), None);
        let forward = [&header(0x8400, [0, 1, 0])[..], &[192, 14, 0]].concat();
        assert_eq!(hear(&forward, SERVICE), None);
    }

    #[test]
    fn a_farewell_is_no_address() {
        let mut said = answer(SERVICE, "somebody", Ipv4Addr::LOCALHOST, &["/ip4/10.0.0.1/tcp/1".to_owned()]);
        let ttl = TTL.to_be_bytes();
        while let Some(at) = said.windows(4).position(|window| window == ttl) {
            said[at..at + 4].fill(0);
        }
        assert_eq!(hear(&said, SERVICE), Some(Heard::Nothing));
    }
}
