//! The protocol between Pinfold peers: [`PeerMessage`] as bytes.
//!
//! A format byte, then one msgpack array: the kind of the message and its fields. Newer peers may append fields (skipped here) and
//! kinds (read as "no message"); another format byte is a peer too new to talk to, and its messages are none as well. Lists and texts are
//! bounded on both sides: what is too long is cut when writing and refused when reading.

mod because;

use crate::cids::cid_from_bytes;
use crate::msgpack::{MsgpackError, Reader, Writer};
use crate::record::{RecordDecodeError, decode_record, encode_record};
use types::{ByteCount, Cid, CopyState, HoldingReport, Load, Offer, PeerMessage, PinState, Refusal, SignedRecord, UnixMillis};

/// The longest message.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// The most copies in a report or a question.
pub const COPIES_MAX: usize = 1000;
/// The most heads in a question.
pub const HEADS_MAX: usize = crate::heads::HEADS_MAX;
/// The most records in a message.
pub const RECORDS_MAX: usize = 4096;
/// The most addresses in a hello.
pub const ADDRESSES_MAX: usize = 64;
/// The longest text (names, addresses, errors), in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;

const FORMAT: u8 = 1;

const HELLO: u64 = 1;
const ASK_HOLDINGS: u64 = 2;
const ASK_COPIES: u64 = 3;
const HOLDINGS: u64 = 4;
const RESERVE: u64 = 5;
const RESERVED: u64 = 6;
const RELEASE: u64 = 7;
const RECORDS: u64 = 8;
const LEAVING: u64 = 9;
const DELTA: u64 = 10;
const OFFER: u64 = 11;
const TAKE: u64 = 12;

/// Why bytes are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerDecodeError {
    /// Nothing there.
    #[error("peer message: empty")]
    Empty,
    /// Longer than [`MESSAGE_BYTES_MAX`].
    #[error("peer message: {0} bytes are too long")]
    TooLong(usize),
    /// Not msgpack, or not of the expected shape.
    #[error("peer message: {0}")]
    Msgpack(#[from] MsgpackError),
    /// A known message with fewer fields than it has.
    #[error("peer message: {0} fields, too few")]
    Fields(usize),
    /// A text longer than [`TEXT_BYTES_MAX`].
    #[error("peer message: a text is too long")]
    Text,
    /// A record does not read.
    #[error("peer message: {0}")]
    Record(#[from] RecordDecodeError),
}

type Decoded<T> = Result<T, PeerDecodeError>;

/// Writes a message. Over-long texts and lists are cut; a cut report does not claim to be complete.
pub fn encode(message: &PeerMessage) -> Vec<u8> {
    let mut out = Writer::new();
    match message {
        PeerMessage::Hello {
            name,
            node_addresses,
            gateway,
            api,
            space_limit,
            space_used,
            space_reserved,
            is_draining,
            incarnation,
            clock,
            load,
        } => {
            head(&mut out, HELLO, 11);
            put_text(&mut out, name);
            let addresses = first(node_addresses, ADDRESSES_MAX);
            out.array(addresses.len());
            addresses.iter().for_each(|address| put_text(&mut out, address));
            put_text_or_nil(&mut out, gateway.as_deref());
            put_text_or_nil(&mut out, api.as_deref());
            for space in [space_limit, space_used, space_reserved] {
                out.uint(space.0);
            }
            out.bool(*is_draining);
            out.uint(*incarnation);
            out.uint(clock.0);
            put_load(&mut out, load.as_ref());
        }
        PeerMessage::AskHoldings { question, heads } => {
            head(&mut out, ASK_HOLDINGS, 2);
            out.uint(*question);
            put_cids(&mut out, first(heads, HEADS_MAX));
        }
        PeerMessage::AskCopies(cids) => {
            head(&mut out, ASK_COPIES, 1);
            put_cids(&mut out, first(cids, COPIES_MAX));
        }
        PeerMessage::Holdings(report) => {
            head(&mut out, HOLDINGS, 4);
            put_report(&mut out, report);
        }
        PeerMessage::Reserve { lease, bytes } => {
            head(&mut out, RESERVE, 2);
            out.uint(*lease);
            out.uint(bytes.0);
        }
        PeerMessage::Reserved { lease, refused } => {
            head(&mut out, RESERVED, 2);
            out.uint(*lease);
            put_refusal(&mut out, refused.as_ref());
        }
        PeerMessage::Release { lease, is_kept } => {
            head(&mut out, RELEASE, 2);
            out.uint(*lease);
            out.bool(*is_kept);
        }
        PeerMessage::Offer(Offer { shipment, bytes, least, placed, capacity }) => {
            head(&mut out, OFFER, 5);
            out.uint(*shipment);
            for amount in [bytes, least, placed, capacity] {
                out.uint(amount.0);
            }
        }
        PeerMessage::Take { shipment, bytes } => {
            head(&mut out, TAKE, 2);
            out.uint(*shipment);
            out.uint(bytes.0);
        }
        PeerMessage::Records(records) => {
            head(&mut out, RECORDS, 1);
            put_records(&mut out, records);
        }
        PeerMessage::Leaving => head(&mut out, LEAVING, 0),
        PeerMessage::Delta(block) => {
            head(&mut out, DELTA, 1);
            out.raw(block);
        }
    }
    out.into_bytes()
}

/// Reads a message; none for kinds and formats of newer peers.
pub fn decode(bytes: &[u8]) -> Decoded<Option<PeerMessage>> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(PeerDecodeError::TooLong(bytes.len()));
    }
    let (&format, body) = bytes.split_first().ok_or(PeerDecodeError::Empty)?;
    if format != FORMAT {
        return Ok(None);
    }
    let mut reader = Reader::new(body);
    let fields = reader.array()?.and_then(|count| count.checked_sub(1)).ok_or(PeerDecodeError::Fields(0))?;
    let kind = reader.uint()?;
    let Some(least) = fields_of(kind) else { return Ok(None) };
    let message = rest_of_tuple(&mut reader, fields, least, |reader| read_message(kind, reader))?;
    reader.end()?;
    Ok(Some(message))
}

fn fields_of(kind: u64) -> Option<usize> {
    match kind {
        HELLO => Some(11),
        OFFER => Some(5),
        HOLDINGS => Some(4),
        ASK_HOLDINGS | RESERVE | RESERVED | RELEASE | TAKE => Some(2),
        ASK_COPIES | RECORDS | DELTA => Some(1),
        LEAVING => Some(0),
        _ => None,
    }
}

fn read_message(kind: u64, reader: &mut Reader<'_>) -> Decoded<PeerMessage> {
    Ok(match kind {
        HELLO => PeerMessage::Hello {
            name: read_text(reader)?,
            node_addresses: reader.list(ADDRESSES_MAX, read_text)?.unwrap_or_default(),
            gateway: read_or_nil(reader, read_text)?,
            api: read_or_nil(reader, read_text)?,
            space_limit: ByteCount(reader.uint()?),
            space_used: ByteCount(reader.uint()?),
            space_reserved: ByteCount(reader.uint()?),
            is_draining: reader.bool()?,
            incarnation: reader.uint()?,
            clock: UnixMillis(reader.uint()?),
            load: read_or_nil(reader, read_load)?,
        },
        ASK_HOLDINGS => PeerMessage::AskHoldings { question: reader.uint()?, heads: read_cids(reader, HEADS_MAX)? },
        ASK_COPIES => PeerMessage::AskCopies(read_cids(reader, COPIES_MAX)?),
        HOLDINGS => PeerMessage::Holdings(HoldingReport {
            incarnation: reader.uint()?,
            complete: read_or_nil(reader, read_uint)?,
            answer: reader.uint()?,
            copies: reader.list(COPIES_MAX, read_copy)?.unwrap_or_default(),
        }),
        RESERVE => PeerMessage::Reserve { lease: reader.uint()?, bytes: ByteCount(reader.uint()?) },
        RESERVED => PeerMessage::Reserved { lease: reader.uint()?, refused: read_or_nil(reader, read_refusal)? },
        RELEASE => PeerMessage::Release { lease: reader.uint()?, is_kept: reader.bool()? },
        RECORDS => PeerMessage::Records(
            reader.list(RECORDS_MAX, |reader| Ok::<_, PeerDecodeError>(decode_record(reader.bytes()?)?))?.unwrap_or_default(),
        ),
        DELTA => PeerMessage::Delta(reader.bytes()?.to_vec()),
        OFFER => {
            let shipment = reader.uint()?;
            let mut bytes = || Ok::<_, PeerDecodeError>(ByteCount(reader.uint()?));
            PeerMessage::Offer(Offer { shipment, bytes: bytes()?, least: bytes()?, placed: bytes()?, capacity: bytes()? })
        }
        TAKE => PeerMessage::Take { shipment: reader.uint()?, bytes: ByteCount(reader.uint()?) },
        _ => PeerMessage::Leaving,
    })
}

fn head(out: &mut Writer, kind: u64, fields: usize) {
    out.embed(&[FORMAT]);
    out.array(1 + fields);
    out.uint(kind);
}

fn put_load(out: &mut Writer, load: Option<&Load>) {
    let Some(Load { copies, placed, moving, foreign }) = load else { return out.nil() };
    out.array(4);
    for number in [*copies, placed.0, moving.0, foreign.0] {
        out.uint(number);
    }
}

fn read_load(reader: &mut Reader<'_>) -> Decoded<Load> {
    tuple(reader, 4, |reader| {
        let mut bytes = || Ok::<_, PeerDecodeError>(ByteCount(reader.uint()?));
        Ok(Load { copies: bytes()?.0, placed: bytes()?, moving: bytes()?, foreign: bytes()? })
    })
}

fn put_report(out: &mut Writer, report: &HoldingReport) {
    let copies = first(&report.copies, COPIES_MAX);
    let complete = report.complete.filter(|_| copies.len() == report.copies.len());
    out.uint(report.incarnation);
    put_uint_or_nil(out, complete);
    out.uint(report.answer);
    out.array(copies.len());
    for copy in copies {
        out.array(7);
        out.raw(&copy.cid.to_bytes());
        out.uint(copy.version);
        out.uint(state_number(copy.state));
        match &copy.because {
            None => out.nil(),
            Some(because) => because::put(out, because),
        }
        put_uint_or_nil(out, copy.next_try.map(|time| time.0));
        out.uint(copy.tries.into());
        out.uint(copy.since.0);
    }
}

fn read_copy(reader: &mut Reader<'_>) -> Decoded<CopyState> {
    tuple(reader, 7, |reader| {
        Ok(CopyState {
            cid: read_cid(reader)?,
            version: reader.uint()?,
            state: state_of_number(reader.uint()?),
            because: read_or_nil(reader, because::read)?,
            next_try: read_or_nil(reader, read_uint)?.map(UnixMillis),
            tries: read_u32(reader)?,
            since: UnixMillis(reader.uint()?),
        })
    })
}

/// Go's status bits, which are fixed for ever.
fn state_number(state: PinState) -> u64 {
    crate::status::bit(state)
}

/// A state of newer peers is "not known": to skip the copy would say that it is as wished.
fn state_of_number(number: u64) -> PinState {
    crate::status::of_bit(number).unwrap_or(PinState::ClusterError)
}

fn put_refusal(out: &mut Writer, refusal: Option<&Refusal>) {
    match refusal {
        None => out.nil(),
        Some(Refusal::NoRoom { free }) => {
            out.array(2);
            out.uint(0);
            out.uint(free.0);
        }
        Some(Refusal::Draining) => {
            out.array(1);
            out.uint(1);
        }
    }
}

/// A refusal for a reason of newer peers reads as "draining": it takes nothing.
fn read_refusal(reader: &mut Reader<'_>) -> Decoded<Refusal> {
    let count = reader.array()?.unwrap_or(0);
    let fields = count.checked_sub(1).ok_or(PeerDecodeError::Fields(count))?;
    match reader.uint()? {
        0 => rest_of_tuple(reader, fields, 1, |reader| Ok(Refusal::NoRoom { free: ByteCount(reader.uint()?) })),
        _ => rest_of_tuple(reader, fields, 0, |_| Ok(Refusal::Draining)),
    }
}

fn put_records(out: &mut Writer, records: &[SignedRecord]) {
    const ROOM: usize = MESSAGE_BYTES_MAX - 1024;
    let mut size = 0;
    let encoded: Vec<Vec<u8>> = first(records, RECORDS_MAX)
        .iter()
        .map(encode_record)
        .take_while(|record| {
            size += record.len() + 5;
            size <= ROOM
        })
        .collect();
    out.array(encoded.len());
    encoded.iter().for_each(|record| out.raw(record));
}

fn put_cids(out: &mut Writer, cids: &[Cid]) {
    out.array(cids.len());
    cids.iter().for_each(|cid| out.raw(&cid.to_bytes()));
}

fn read_cids(reader: &mut Reader<'_>, most: usize) -> Decoded<Vec<Cid>> {
    Ok(reader.list(most, read_cid)?.unwrap_or_default())
}

fn read_cid(reader: &mut Reader<'_>) -> Decoded<Cid> {
    Ok(cid_from_bytes(reader.bytes()?).ok_or(MsgpackError::Invalid("CID"))?)
}

fn put_text(out: &mut Writer, text: &str) {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.text(&text[..end]);
}

fn read_text(reader: &mut Reader<'_>) -> Decoded<String> {
    let text = reader.text()?;
    if text.len() > TEXT_BYTES_MAX { Err(PeerDecodeError::Text) } else { Ok(text.to_owned()) }
}

fn put_text_or_nil(out: &mut Writer, text: Option<&str>) {
    match text {
        None => out.nil(),
        Some(text) => put_text(out, text),
    }
}

fn put_uint_or_nil(out: &mut Writer, number: Option<u64>) {
    match number {
        None => out.nil(),
        Some(number) => out.uint(number),
    }
}

fn read_uint(reader: &mut Reader<'_>) -> Decoded<u64> {
    Ok(reader.uint()?)
}

fn read_u32(reader: &mut Reader<'_>) -> Decoded<u32> {
    Ok(u32::try_from(reader.uint()?).map_err(|_| MsgpackError::Range)?)
}

fn read_or_nil<'a, T>(reader: &mut Reader<'a>, read: impl FnOnce(&mut Reader<'a>) -> Decoded<T>) -> Decoded<Option<T>> {
    if reader.take_nil() { Ok(None) } else { read(reader).map(Some) }
}

/// Reads an array of at least `least` values, the rest being of newer peers.
fn tuple<'a, T>(reader: &mut Reader<'a>, least: usize, read: impl FnOnce(&mut Reader<'a>) -> Decoded<T>) -> Decoded<T> {
    let count = reader.array()?.unwrap_or(0);
    rest_of_tuple(reader, count, least, read)
}

fn rest_of_tuple<'a, T>(
    reader: &mut Reader<'a>,
    count: usize,
    least: usize,
    read: impl FnOnce(&mut Reader<'a>) -> Decoded<T>,
) -> Decoded<T> {
    let newer = count.checked_sub(least).ok_or(PeerDecodeError::Fields(count))?;
    let value = read(reader)?;
    for _ in 0..newer {
        reader.skip()?;
    }
    Ok(value)
}

fn first<T>(list: &[T], most: usize) -> &[T] {
    &list[..list.len().min(most)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delta::block_cid;
    use types::Because;

    fn copy(error: &str) -> CopyState {
        CopyState {
            cid: block_cid(b"x"),
            version: 1 << 60,
            state: PinState::PinError,
            because: Some(Because::Failed { error: error.to_owned() }),
            next_try: Some(UnixMillis(5)),
            tries: 3,
            since: UnixMillis(4),
        }
    }

    fn report(copies: Vec<CopyState>) -> PeerMessage {
        PeerMessage::Holdings(HoldingReport { incarnation: 2, complete: Some(9), answer: 9, copies })
    }

    #[test]
    fn messages_of_newer_peers_are_none() {
        assert_eq!(decode(&[FORMAT, 0x92, 0x63, 0xc0]), Ok(None));
        assert_eq!(decode(&[FORMAT + 1, 0xc1]), Ok(None));
    }

    #[test]
    fn fields_of_newer_peers_are_skipped() {
        let mut longer = vec![FORMAT, 0x94, RELEASE as u8, 0x07, 0xc3];
        longer.extend([0x81, 0xa1, 0x61, 0x90]);
        assert_eq!(decode(&longer), Ok(Some(PeerMessage::Release { lease: 7, is_kept: true })));
    }

    #[test]
    fn states_and_refusals_of_newer_peers_are_read_with_care() {
        assert_eq!(state_of_number(1 << 20), PinState::ClusterError);
        let unknown = decode(&[FORMAT, 0x93, RESERVED as u8, 0x07, 0x92, 0x09, 0xc0]);
        assert_eq!(unknown, Ok(Some(PeerMessage::Reserved { lease: 7, refused: Some(Refusal::Draining) })));
    }

    #[test]
    fn a_cut_report_does_not_claim_to_be_complete() {
        let message = decode(&encode(&report(vec![copy("x"); COPIES_MAX + 1])));
        let Ok(Some(PeerMessage::Holdings(read))) = message else { panic!("{message:?}") };
        assert_eq!((read.copies.len(), read.complete), (COPIES_MAX, None));
        let whole = report(vec![copy("x"); COPIES_MAX]);
        assert_eq!(decode(&encode(&whole)), Ok(Some(whole)));
    }

    #[test]
    fn long_texts_are_cut_between_letters() {
        let message = decode(&encode(&report(vec![copy(&"é".repeat(TEXT_BYTES_MAX))])));
        let Ok(Some(PeerMessage::Holdings(read))) = message else { panic!("{message:?}") };
        assert_eq!(read.copies, [copy(&"é".repeat(TEXT_BYTES_MAX / 2))]);
    }

    #[test]
    fn damaged_messages_are_named() {
        for (bytes, error) in [
            (&[][..], PeerDecodeError::Empty),
            (&[FORMAT], PeerDecodeError::Msgpack(MsgpackError::Truncated)),
            (&[FORMAT, 0x90], PeerDecodeError::Fields(0)),
            (&[FORMAT, 0x91, RESERVE as u8], PeerDecodeError::Fields(0)),
            (&[FORMAT, 0x91, LEAVING as u8, 0], PeerDecodeError::Msgpack(MsgpackError::Trailing(1))),
            (&[FORMAT, 0x92, ASK_COPIES as u8, 0x91, 0xa0], PeerDecodeError::Msgpack(MsgpackError::Invalid("CID"))),
        ] {
            assert_eq!(decode(bytes), Err(error), "{bytes:02x?}");
        }
        assert_eq!(decode(&vec![FORMAT; MESSAGE_BYTES_MAX + 1]), Err(PeerDecodeError::TooLong(MESSAGE_BYTES_MAX + 1)));
    }
}
