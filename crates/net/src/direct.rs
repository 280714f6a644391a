//! The direct way: bulk bytes over a TCP connection of their own, beside libp2p's.
//!
//! Through libp2p a byte is copied, cut into 16 KiB and looked at by three layers on each side, which costs several times what
//! sealing and sending it costs; and on a long line a stream brings no more than its window in a round trip. So the receiver gives, over a
//! stream (encrypted, and proof of who both are), a ticket for one connection to the same port and a fresh key for it. Frames there are
//! sealed with AES-256-GCM: the key serves one direction of one way, and its nonces count, so none comes twice. Answers go over
//! the stream, which also tells when the other side is gone. Where the connection cannot be made (another transport, a firewall), or
//! bandwidth is limited, everything takes streams.
//!
//! ```text
//! offer:      ticket:16 key:32                  over the stream
//! connection: "\0pinfold" ticket:16 frame*
//! frame:      length:4 ciphertext tag:16        length covers ciphertext and tag, and is sealed along
//! ```
//!
//! Block lanes (`blockstream`) and replies of bitswap go this way.

use crate::host::{Expected, Host, MAGIC, SideDoor, Ticket};
use crate::throttle::Throttle;
use bytes::{Bytes, BytesMut};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use types::PeerId;

/// How long one address may take; on the networks where this way is worth it, it answers at once.
const DIAL: Duration = Duration::from_secs(1);

/// Addresses that are tried.
const ADDRESSES_MAX: usize = 4;

/// A connection that takes no byte for so long is broken.
const STALL: Duration = Duration::from_secs(15);

/// When the stream has ended, the connection's last frames come within this.
const AFTER_END: Duration = Duration::from_secs(15);

/// Bytes of a key.
pub(crate) const KEY: usize = 32;

const LENGTH: usize = 4;
const TAG: usize = 16;

/// A connection that the receiver waits for.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) ticket: Ticket,
    pub(crate) key: [u8; KEY],
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Offer(***)")
    }
}

impl Offer {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [&self.ticket[..], &self.key].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Offer> {
        let (ticket, key) = bytes.split_first_chunk()?;
        Some(Offer { ticket: *ticket, key: key.try_into().ok()? })
    }
}

/// What was offered, at the receiver.
pub(crate) struct Offered {
    expected: Expected,
    key: [u8; KEY],
}

impl Offered {
    /// None where no connection comes in beside libp2p's, or too many are waited for.
    pub(crate) fn new(door: Option<&Arc<SideDoor>>, throttle: &Throttle) -> Option<Offered> {
        // Only libp2p's connections are throttled.
        let door = door.filter(|_| !throttle.is_limiting())?;
        Some(Offered { expected: door.expect()?, key: rand::random() })
    }

    pub(crate) fn offer(&self) -> Offer {
        Offer { ticket: self.expected.ticket(), key: self.key }
    }

    /// Waits for the connection. Its frames have at most `frame_most` bytes.
    pub(crate) async fn arrived(self, frame_most: usize) -> io::Result<DirectReader> {
        let socket = self.expected.arrived().await?;
        Ok(DirectReader { socket, sealing: Sealing::new(&self.key)?, frame_most })
    }
}

/// One direction's key and count.
struct Sealing {
    key: LessSafeKey,
    frames: u64,
}

impl Sealing {
    fn new(key: &[u8; KEY]) -> io::Result<Sealing> {
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| io::Error::other("no key for a direct way"))?;
        Ok(Sealing { key: LessSafeKey::new(key), frames: 0 })
    }

    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 8..].copy_from_slice(&self.frames.to_be_bytes());
        // 2^64 frames are never sent.
        self.frames += 1;
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals `frame`, whose first [`LENGTH`] bytes are kept for the length.
    fn seal(&mut self, frame: &mut Vec<u8>) -> io::Result<()> {
        let length = ((frame.len() - LENGTH + TAG) as u32).to_be_bytes();
        let nonce = self.nonce();
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(length), &mut frame[LENGTH..]);
        let tag = tag.map_err(|_| io::Error::other("a frame cannot be sealed"))?;
        frame[..LENGTH].copy_from_slice(&length);
        frame.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens what came behind `length`.
    fn open(&mut self, length: [u8; LENGTH], mut sealed: BytesMut) -> io::Result<Bytes> {
        let nonce = self.nonce();
        let plain = self.key.open_in_place(nonce, Aad::from(length), &mut sealed).map(|plain| plain.len());
        let plain = plain.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "a frame of a direct way was changed on its way"))?;
        sealed.truncate(plain);
        Ok(sealed.freeze())
    }
}

/// The sender's end.
pub(crate) struct DirectWriter {
    socket: TcpStream,
    sealing: Sealing,
    /// Used again for every frame.
    frame: Vec<u8>,
}

impl DirectWriter {
    /// Connects to where the peer of a live connection listens; none when there is no way.
    pub(crate) async fn open(host: &Host, peer: PeerId, offer: &Offer) -> Option<DirectWriter> {
        // Only libp2p's connections are throttled.
        if host.throttle().is_limiting() {
            return None;
        }
        for address in candidates(host, peer) {
            match tokio::time::timeout(DIAL, connect(address, offer)).await {
                Ok(Ok(writer)) => return Some(writer),
                Ok(Err(error)) => tracing::debug!(%peer, %address, %error, "no direct way"),
                Err(_) => tracing::debug!(%peer, %address, "no direct way in time"),
            }
        }
        None
    }

    /// Sends one frame, which `fill` writes.
    pub(crate) async fn send(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> io::Result<usize> {
        self.frame.clear();
        self.frame.extend_from_slice(&[0; LENGTH]);
        fill(&mut self.frame);
        self.sealing.seal(&mut self.frame)?;
        let mut left = &self.frame[..];
        while !left.is_empty() {
            let written =
                tokio::time::timeout(STALL, self.socket.write(left)).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            left = &left[written..];
        }
        Ok(self.frame.len())
    }

    pub(crate) async fn shutdown(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
    }
}

async fn connect(address: SocketAddr, offer: &Offer) -> io::Result<DirectWriter> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    socket.write_all(&[&MAGIC[..], &offer.ticket].concat()).await?;
    Ok(DirectWriter { socket, sealing: Sealing::new(&offer.key)?, frame: Vec::new() })
}

/// TCP addresses at which the peer listens, on the machine to which its connection leads: what it says of other machines is not dialled.
fn candidates(host: &Host, peer: PeerId) -> Vec<SocketAddr> {
    let Some(info) = host.peer_info(&peer) else { return Vec::new() };
    let Some(ip) = ip_of(&info.address) else { return Vec::new() };
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in info.listens.iter().chain([&info.address]).filter_map(|address| tcp_address(address)) {
        if address.ip() == ip && !found.contains(&address) && found.len() < ADDRESSES_MAX {
            found.push(address);
        }
    }
    found
}

/// The address of `/ip4/1.2.3.4/tcp/5` (and `/p2p/...` behind it).
fn tcp_address(address: &str) -> Option<SocketAddr> {
    let mut parts = address.split('/').skip(3);
    let port = parts.next().filter(|name| *name == "tcp").and_then(|_| parts.next())?.parse().ok()?;
    // Anything else behind the port (a WebSocket, a relay) is not plain TCP.
    parts.next().is_none_or(|name| name == "p2p").then_some(())?;
    parts.nth(1).is_none().then_some(())?;
    Some(SocketAddr::new(ip_of(address)?, port))
}

fn ip_of(address: &str) -> Option<IpAddr> {
    let mut parts = address.split('/').skip(1);
    match (parts.next()?, parts.next()?) {
        ("ip4", ip) => ip.parse().ok().map(IpAddr::V4),
        ("ip6", ip) => ip.parse().ok().map(IpAddr::V6),
        _ => None,
    }
}

/// The receiver's end.
pub(crate) struct DirectReader {
    socket: TcpStream,
    sealing: Sealing,
    frame_most: usize,
}

impl DirectReader {
    /// Waits for a frame and reads its head. An error at the end of the connection too: the last frame says that it is the last.
    pub(crate) async fn head(&mut self) -> io::Result<Head> {
        let mut head = [0; LENGTH];
        self.socket.read_exact(&mut head).await?;
        let length = u32::from_be_bytes(head) as usize;
        if !(TAG..=self.frame_most + TAG).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame of a direct way has an impossible length"));
        }
        Ok(Head(head))
    }

    /// The frame behind `head`, as it was before it was sealed. Tells how many more bytes of it have come, each time.
    pub(crate) async fn body(&mut self, head: Head, mut arrived: impl FnMut(usize)) -> io::Result<Bytes> {
        let length = u32::from_be_bytes(head.0) as usize;
        let mut sealed = BytesMut::with_capacity(length);
        while sealed.len() < length {
            let missing = (length - sealed.len()) as u64;
            match (&mut self.socket).take(missing).read_buf(&mut sealed).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => arrived(bytes),
            }
        }
        self.sealing.open(head.0, sealed)
    }
}

/// The length of the next frame.
pub(crate) struct Head([u8; LENGTH]);

/// Waits for `reading`, from the direct connection. The end of `stream` tells that the sender is gone, where the connection itself says
/// nothing: what it has written comes soon then or never.
pub(crate) async fn while_sender_is_there<T, S: AsyncRead + Unpin>(
    reading: impl Future<Output = io::Result<T>>,
    stream: &mut S,
    is_ended: &mut bool,
) -> io::Result<T> {
    let mut reading = std::pin::pin!(reading);
    let mut nothing_comes = [0];
    if !*is_ended {
        tokio::select! {
            biased;
            read = reading.as_mut() => return read,
            _ = stream.read(&mut nothing_comes) => *is_ended = true,
        }
    }
    tokio::time::timeout(AFTER_END, reading).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(sealing: &mut Sealing, plain: &[u8]) -> Vec<u8> {
        let mut frame = [&[0; LENGTH][..], plain].concat();
        sealing.seal(&mut frame).unwrap();
        frame
    }

    fn open(sealing: &mut Sealing, frame: &[u8]) -> Option<Vec<u8>> {
        let (length, rest) = frame.split_first_chunk().unwrap();
        sealing.open(*length, BytesMut::from(rest)).ok().map(|plain| plain.to_vec())
    }

    #[test]
    fn frames_open_in_their_order_and_only_unchanged() {
        let ends = |key| (Sealing::new(&[key; KEY]).unwrap(), Sealing::new(&[key; KEY]).unwrap());
        let (mut from, mut to) = ends(1);
        let frames: Vec<Vec<u8>> = [&b""[..], b"one", b"one", &[7; 70_000]].iter().map(|plain| sealed(&mut from, plain)).collect();
        assert_ne!(frames[1], frames[2], "the same twice looks different");
        assert_eq!(open(&mut to, &frames[0]).unwrap(), b"");
        assert_eq!(open(&mut to, &frames[1]).unwrap(), b"one");
        assert_eq!(open(&mut to, &frames[1]), None, "a frame sent again");
        let (mut from, _) = ends(2);
        let frame = sealed(&mut from, b"some bytes");
        for bit in 0..frame.len() * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&mut ends(2).1, &changed), None, "bit {bit}");
        }
        assert_eq!(open(&mut ends(3).1, &frame), None, "another key");
        assert_eq!(open(&mut ends(2).1, &frame).unwrap(), b"some bytes");
    }

    #[test]
    fn only_plain_tcp_addresses_are_dialled() {
        for (address, expected) in [
            ("/ip4/127.0.0.1/tcp/4001", Some("127.0.0.1:4001")),
            ("/ip4/10.0.0.1/tcp/1/p2p/12D3KooW", Some("10.0.0.1:1")),
            ("/ip6/::1/tcp/9", Some("[::1]:9")),
            ("/ip4/127.0.0.1/tcp/4001/ws", None),
            ("/ip4/10.0.0.1/tcp/1/p2p/12D3KooW/p2p-circuit/p2p/12D3KooX", None),
            ("/ip4/127.0.0.1/udp/4001/quic-v1", None),
            ("/dns4/example.org/tcp/1", None),
            ("/ip4/127.0.0.1/tcp/x", None),
            ("", None),
        ] {
            assert_eq!(tcp_address(address).map(|address| address.to_string()).as_deref(), expected, "{address}");
        }
    }
}
