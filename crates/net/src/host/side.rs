//! Plain TCP connections that come in beside libp2p's, on the same port.
//!
//! Whoever was given a *ticket* (over an encrypted stream of a connection that proves who it is) may open a TCP connection whose first
//! bytes are [`MAGIC`] and the ticket; it is handed to whoever gave the ticket out. Everything else on the port is libp2p's, which
//! begins with another byte. A ticket is good once, and only while its giver waits.

use libp2p::tcp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// What such a connection says first; multistream says `\x13` first.
pub(crate) const MAGIC: &[u8; 8] = b"\x00pinfold";

/// Tickets that may be out at once: more lanes than a host ever has.
const TICKETS_MAX: usize = 4096;

pub(crate) type Ticket = [u8; 16];

/// The connections that are waited for.
#[derive(Default)]
pub(crate) struct SideDoor {
    expected: Mutex<HashMap<Ticket, oneshot::Sender<TcpStream>>>,
}

/// A ticket that was given out. Dropped, it is worth nothing.
pub(crate) struct Expected {
    door: Arc<SideDoor>,
    ticket: Ticket,
    arrival: oneshot::Receiver<TcpStream>,
}

impl SideDoor {
    /// A fresh ticket; none when too many are out.
    pub(crate) fn expect(self: &Arc<Self>) -> Option<Expected> {
        let ticket: Ticket = rand::random();
        let (sender, arrival) = oneshot::channel();
        let mut expected = self.expected.lock();
        if expected.len() >= TICKETS_MAX {
            return None;
        }
        expected.insert(ticket, sender);
        Some(Expected { door: self.clone(), ticket, arrival })
    }

    /// Lets a connection of libp2p pass; one with a ticket goes to its giver, and an error says so.
    pub(super) async fn pass(self: Arc<Self>, socket: tcp::tokio::TcpStream) -> io::Result<tcp::tokio::TcpStream> {
        let mut first = [0];
        // The handshake's time limit covers a peer that says nothing.
        if socket.0.peek(&mut first).await? == 0 || first[0] != MAGIC[0] {
            return Ok(socket);
        }
        let mut socket = socket.0;
        let (mut magic, mut ticket) = ([0; MAGIC.len()], Ticket::default());
        socket.read_exact(&mut magic).await?;
        socket.read_exact(&mut ticket).await?;
        if magic != *MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "neither libp2p nor a block lane"));
        }
        let giver = self.expected.lock().remove(&ticket);
        match giver {
            Some(giver) => {
                // Fails when the lane has ended meanwhile.
                let _ = giver.send(socket);
                Err(io::Error::other("taken over by a block lane"))
            }
            None => Err(io::Error::new(io::ErrorKind::PermissionDenied, "a block lane with an unknown ticket")),
        }
    }
}

impl Expected {
    pub(crate) fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// Waits for the connection.
    pub(crate) async fn arrived(mut self) -> io::Result<TcpStream> {
        (&mut self.arrival).await.map_err(|_| io::Error::from(io::ErrorKind::NotConnected))
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.door.expected.lock().remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    /// What becomes of a connection that begins with `first`.
    async fn pass(door: &Arc<SideDoor>, first: &[u8]) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut out = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        out.write_all(first).await.unwrap();
        out.shutdown().await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        door.clone().pass(tcp::tokio::TcpStream(socket)).await.map(drop).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn only_a_ticket_leads_beside_libp2p_and_only_once() {
        let door = Arc::new(SideDoor::default());
        let expected = door.expect().unwrap();
        let with = |ticket: Ticket| [&MAGIC[..], &ticket].concat();
        assert_eq!(pass(&door, b"\x13/multistream/1.0.0\n").await, Ok(()));
        assert_eq!(pass(&door, b"").await, Ok(()), "libp2p's to judge");
        assert!(pass(&door, &with([7; 16])).await.is_err_and(|error| error.contains("unknown ticket")));
        assert!(pass(&door, b"\x00pinfeld0123456789abcdef").await.is_err_and(|error| error.contains("neither")));
        assert!(pass(&door, &MAGIC[..]).await.is_err(), "cut short");
        let ticket = expected.ticket();
        assert!(pass(&door, &with(ticket)).await.is_err_and(|error| error.contains("taken over")));
        assert!(pass(&door, &with(ticket)).await.is_err_and(|error| error.contains("unknown ticket")));
        expected.arrived().await.unwrap();
        let dropped = door.expect().unwrap().ticket();
        assert!(pass(&door, &with(dropped)).await.is_err_and(|error| error.contains("unknown ticket")));
    }

    #[test]
    fn tickets_are_bounded() {
        let door = Arc::new(SideDoor::default());
        let out: Vec<_> = (0..TICKETS_MAX).map(|_| door.expect().unwrap()).collect();
        assert!(door.expect().is_none());
        drop(out);
        assert!(door.expect().is_some());
    }
}
