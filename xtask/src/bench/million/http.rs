//! One GET on its own connection, timed; the body is counted and not kept.

use anyhow::{Context, bail};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// What came.
pub struct Fetched {
    /// Seconds until the first byte of the body.
    pub first_byte: f64,
    /// Bytes of the answer.
    pub bytes: usize,
    /// Lines in it that are JSON objects.
    pub lines: usize,
}

/// Asks and reads to the end.
pub fn get(host: &str, path: &str) -> anyhow::Result<Fetched> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(host).with_context(|| format!("connecting to {host}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(600)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut fetched = Fetched { first_byte: 0.0, bytes: 0, lines: 0 };
    let mut buffer = vec![0; 1 << 20];
    let mut head = Vec::new();
    let mut is_body = false;
    let mut last = b'\n';
    loop {
        let length = stream.read(&mut buffer).with_context(|| format!("reading {path}"))?;
        if length == 0 {
            break;
        }
        fetched.bytes += length;
        let mut piece = &buffer[..length];
        if !is_body {
            head.extend_from_slice(piece);
            let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n").filter(|end| head.len() > end + 4) else { continue };
            if !head.starts_with(b"HTTP/1.1 200") {
                bail!("GET {path} was answered {}", String::from_utf8_lossy(&head[..end.min(200)]));
            }
            fetched.first_byte = begun.elapsed().as_secs_f64();
            is_body = true;
            piece = &buffer[length - (head.len() - end - 4)..length];
        }
        // An object ends with its line; sizes of chunks have lines of their own.
        for &byte in piece {
            fetched.lines += usize::from(byte == b'\n' && last == b'}');
            last = byte;
        }
    }
    Ok(fetched)
}
