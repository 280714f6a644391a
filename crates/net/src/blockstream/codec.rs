//! The bytes of a lane: frames whose first byte tells what they are.

use super::{BLOCK_MAX, LaneHeader, LaneKind, LaneRefusal};
use crate::direct::Offer;
use bytes::Bytes;
use types::{ByteCount, Cid, PeerId};
use unsigned_varint::{decode, encode};

/// The longest header.
pub(super) const HEADER_MAX: usize = 128;

/// The longest frame of blocks: a block of 2 MiB, or many small ones, and what stands before each.
pub(super) const BATCH_MAX: usize = BLOCK_MAX + (64 << 10);

/// The longest answer.
pub(super) const ANSWER_MAX: usize = 4 << 10;

/// The longest text of a refusal, in characters.
const REASON_MAX: usize = 900;

const VERSION: u8 = 1;

const BATCH: u8 = 1;
const FINISH: u8 = 2;
const DIRECT: u8 = 3;

const ACCEPTED: u8 = 1;
const DURABLE: u8 = 2;
const REFUSED: u8 = 3;

/// What a receiver says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The lane may be used, perhaps by a direct way.
    Accepted(Option<Offer>),
    /// So many blocks are durable, in all.
    Durable(u64),
    /// The lane is over.
    Refused(LaneRefusal),
}

/// What a sender says after its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Batch(Vec<(Cid, Bytes)>),
    Finish,
    /// All that follows comes by the direct way.
    Direct,
}

pub(super) fn encode_header(header: &LaneHeader) -> Vec<u8> {
    let kind = match header.kind {
        LaneKind::Add => 0,
        LaneKind::Copy => 1,
    };
    let mut out = vec![VERSION, kind];
    out.extend_from_slice(&header.lease.to_be_bytes());
    out.extend_from_slice(header.cluster_peer.as_bytes());
    out
}

pub(super) fn decode_header(body: &[u8]) -> Option<LaneHeader> {
    let [VERSION, kind, rest @ ..] = body else { return None };
    let kind = match kind {
        0 => LaneKind::Add,
        1 => LaneKind::Copy,
        _ => return None,
    };
    let (lease, peer) = rest.split_first_chunk()?;
    Some(LaneHeader { lease: u64::from_be_bytes(*lease), cluster_peer: PeerId::from_bytes(peer).ok()?, kind })
}

/// Appends what a sender says.
pub(super) fn encode_said(said: &Said, out: &mut Vec<u8>) {
    let batch = match said {
        Said::Batch(batch) => batch,
        Said::Finish => return out.push(FINISH),
        Said::Direct => return out.push(DIRECT),
    };
    let bytes: usize = batch.iter().map(|(_, data)| data.len() + 80).sum();
    out.reserve(1 + bytes);
    out.push(BATCH);
    for (cid, data) in batch {
        let mut buffer = encode::usize_buffer();
        out.extend_from_slice(encode::usize(cid.encoded_len(), &mut buffer));
        // A vector takes everything.
        let _ = cid.write_bytes(&mut *out);
        out.extend_from_slice(encode::usize(data.len(), &mut buffer));
        out.extend_from_slice(data);
    }
}

/// Reads what a sender says; block data are slices of `body`.
pub(super) fn decode_said(body: &Bytes) -> Option<Said> {
    match body.split_first()? {
        (&FINISH, []) => Some(Said::Finish),
        (&DIRECT, []) => Some(Said::Direct),
        (&BATCH, mut rest) => {
            let mut batch = Vec::new();
            while !rest.is_empty() {
                let (cid, after) = take_part(rest)?;
                let (data, after) = take_part(after)?;
                rest = after;
                let data = if data.is_empty() { Bytes::new() } else { body.slice_ref(data) };
                batch.push((Cid::try_from(cid).ok()?, data));
            }
            (!batch.is_empty()).then_some(Said::Batch(batch))
        }
        _ => None,
    }
}

/// A length and so many bytes; then the rest.
fn take_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = decode::usize(bytes).ok()?;
    rest.split_at_checked(length)
}

pub(super) fn encode_answer(answer: &Answer) -> Vec<u8> {
    match answer {
        Answer::Accepted(None) => vec![ACCEPTED],
        Answer::Accepted(Some(offer)) => [&[ACCEPTED][..], &offer.encode()].concat(),
        Answer::Durable(count) => [&[DURABLE][..], &count.to_be_bytes()].concat(),
        Answer::Refused(refusal) => {
            let (kind, free, reason) = match refusal {
                LaneRefusal::NoRoom { free } => (1, free.get(), ""),
                LaneRefusal::NotTrusted => (2, 0, ""),
                LaneRefusal::Closed => (3, 0, ""),
                LaneRefusal::Busy => (4, 0, ""),
                LaneRefusal::NotYet => (5, 0, ""),
                LaneRefusal::Failed(reason) => (0, 0, reason.as_str()),
            };
            let reason: String = reason.chars().take(REASON_MAX).collect();
            [&[REFUSED, kind][..], &free.to_be_bytes(), reason.as_bytes()].concat()
        }
    }
}

pub(super) fn decode_answer(body: &[u8]) -> Option<Answer> {
    match body {
        [ACCEPTED] => Some(Answer::Accepted(None)),
        [ACCEPTED, offer @ ..] => Some(Answer::Accepted(Some(Offer::decode(offer)?))),
        [DURABLE, count @ ..] => Some(Answer::Durable(u64::from_be_bytes(count.try_into().ok()?))),
        [REFUSED, kind, rest @ ..] => {
            let (free, reason) = rest.split_first_chunk()?;
            Some(Answer::Refused(match kind {
                1 => LaneRefusal::NoRoom { free: ByteCount(u64::from_be_bytes(*free)) },
                2 => LaneRefusal::NotTrusted,
                3 => LaneRefusal::Closed,
                4 => LaneRefusal::Busy,
                5 => LaneRefusal::NotYet,
                // A kind of a later version is a failure too.
                _ => LaneRefusal::Failed(String::from_utf8_lossy(reason).into_owned()),
            }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direct::KEY;

    #[test]
    fn headers_read_back() {
        for kind in [LaneKind::Add, LaneKind::Copy] {
            let header = LaneHeader { lease: u64::MAX - 1, cluster_peer: PeerId::from_ed25519(&[5; 32]), kind };
            let bytes = encode_header(&header);
            assert!(bytes.len() <= HEADER_MAX);
            assert_eq!(decode_header(&bytes), Some(header));
            for cut in 0..bytes.len() {
                assert_eq!(decode_header(&bytes[..cut]), None);
            }
        }
    }

    #[test]
    fn answers_read_back() {
        let refusals = [
            LaneRefusal::NoRoom { free: ByteCount(77) },
            LaneRefusal::NotTrusted,
            LaneRefusal::Closed,
            LaneRefusal::Busy,
            LaneRefusal::NotYet,
            LaneRefusal::Failed("disk gone".to_owned()),
        ];
        let offer = Offer { ticket: [7; 16], key: [8; KEY] };
        assert_eq!(format!("{offer:?}"), "Offer(***)");
        let others = [Answer::Accepted(None), Answer::Accepted(Some(offer)), Answer::Durable(9)];
        for answer in refusals.map(Answer::Refused).into_iter().chain(others) {
            assert_eq!(decode_answer(&encode_answer(&answer)), Some(answer));
        }
        let long = encode_answer(&Answer::Refused(LaneRefusal::Failed("ä".repeat(5000))));
        assert!(long.len() <= ANSWER_MAX && decode_answer(&long).is_some());
    }

    #[test]
    fn what_strangers_say_in_a_lane_reads_back_or_not_at_all() {
        fn read(input: &[u8]) -> bool {
            let header = decode_header(input);
            if let Some(header) = &header {
                assert_eq!(encode_header(header), input);
            }
            let answer = decode_answer(input);
            // What is cut when it is written, and kinds of later versions, are the only ones with two forms.
            if let Some(answer) = &answer
                && input.len() <= REASON_MAX
            {
                fuzz::same(decode_answer(&encode_answer(answer)).as_ref(), Some(answer));
            }
            let said = decode_said(&Bytes::copy_from_slice(input));
            if let Some(said) = &said {
                let mut written = Vec::new();
                encode_said(said, &mut written);
                fuzz::same(decode_said(&written.into()).as_ref(), Some(said));
            }
            header.is_some() || answer.is_some() || said.is_some()
        }
        let cid = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0x12, &[1; 32]).unwrap());
        let mut batch = Vec::new();
        encode_said(&Said::Batch(vec![(cid, Bytes::from_static(b"abc")), (cid, Bytes::new())]), &mut batch);
        let header = LaneHeader { lease: 9, cluster_peer: PeerId::from_ed25519(&[5; 32]), kind: LaneKind::Copy };
        let failed = Answer::Refused(LaneRefusal::Failed("disk gone".to_owned()));
        let accepted = Answer::Accepted(Some(Offer { ticket: [7; 16], key: [8; KEY] }));
        let answers = [failed, accepted, Answer::Durable(7)];
        let seeds = answers.iter().map(encode_answer).chain([batch, encode_header(&header), vec![FINISH]]).collect();
        fuzz::check(fuzz::Target { name: "lane", decode: read }, seeds, fuzz::Plan::of_environment(20_000, 1));
    }

    #[test]
    fn batches_read_back_and_cut_ones_do_not() {
        let cid = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0x12, &[1; 32]).unwrap());
        let batch = vec![(cid, Bytes::from_static(b"abc")), (cid, Bytes::new()), (cid, Bytes::from(vec![7; 300]))];
        let encoded = |said: &Said| {
            let mut bytes = Vec::new();
            encode_said(said, &mut bytes);
            Bytes::from(bytes)
        };
        let bytes = encoded(&Said::Batch(batch.clone()));
        assert_eq!(decode_said(&bytes), Some(Said::Batch(batch)));
        let whole_blocks = [1 + 37 + 4, 1 + 37 + 4 + 37 + 1];
        for cut in (0..bytes.len()).filter(|cut| !whole_blocks.contains(cut)) {
            assert_eq!(decode_said(&bytes.slice(..cut)), None, "{cut}");
        }
        assert_eq!(decode_said(&Bytes::from_static(&[BATCH, 0xff, 0xff, 0xff, 0xff, 0x0f])), None);
        for said in [Said::Finish, Said::Direct] {
            assert_eq!(decode_said(&encoded(&said)), Some(said));
        }
    }
}
