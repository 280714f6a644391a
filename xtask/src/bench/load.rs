//! A cheap load of HTTP requests: threads, each with one keep-alive connection, and the times they waited.

use anyhow::{Context, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No answer takes longer, or the call has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// One connection that is kept.
pub struct Connection {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

/// What came back.
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Connection {
    /// To `host:port`.
    pub fn open(door: &str) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(door).with_context(|| format!("connecting to {door}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Connection { stream: BufReader::with_capacity(64 << 10, stream), line: Vec::new() })
    }

    /// One request without a body, and its whole answer.
    pub fn call(&mut self, method: &str, path: &str) -> anyhow::Result<Reply> {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.next_line()?;
        let status = std::str::from_utf8(&self.line)?.split(' ').nth(1).and_then(|code| code.parse().ok()).context("a status line")?;
        let (mut length, mut is_chunked) = (0, false);
        loop {
            self.next_line()?;
            let head = std::str::from_utf8(&self.line)?.trim_end();
            let Some((name, value)) = head.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().context("a length")?;
            }
            is_chunked |= name.eq_ignore_ascii_case("transfer-encoding") && value.contains("chunked");
        }
        let mut body = Vec::new();
        if is_chunked {
            self.take_chunks(&mut body)?;
        } else {
            body.resize(length, 0);
            self.stream.read_exact(&mut body)?;
        }
        Ok(Reply { status, body })
    }

    fn take_chunks(&mut self, body: &mut Vec<u8>) -> anyhow::Result<()> {
        loop {
            self.next_line()?;
            let size = std::str::from_utf8(&self.line)?.trim_end().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).context("the size of a chunk")?;
            if size == 0 {
                break;
            }
            let begin = body.len();
            body.resize(begin + size, 0);
            self.stream.read_exact(&mut body[begin..])?;
            self.next_line()?;
        }
        // Trailers, up to the empty line.
        loop {
            self.next_line()?;
            if self.line.trim_ascii_end().is_empty() {
                return Ok(());
            }
        }
    }

    fn next_line(&mut self) -> anyhow::Result<()> {
        self.line.clear();
        if self.stream.read_until(b'\n', &mut self.line)? == 0 {
            bail!("the connection was closed in the middle of an answer");
        }
        Ok(())
    }
}

/// When a load ends.
#[derive(Clone, Copy)]
pub enum Until {
    /// After so many pins.
    Pins(u64),
    /// After so long.
    Time(Duration),
}

/// What a load of pins gave.
pub struct Outcome {
    /// Milliseconds of the accepted ones, sorted.
    pub taken: Vec<f64>,
    /// Not accepted, and one of the answers.
    pub refused: u64,
    pub said: String,
    pub seconds: f64,
}

impl Outcome {
    /// The time within which this part of the calls was answered.
    pub fn at(&self, part: f64) -> f64 {
        let last = self.taken.len().saturating_sub(1);
        self.taken.get((last as f64 * part) as usize).copied().unwrap_or(f64::NAN)
    }
}

/// Posts pins of inline blocks, each another one, over so many connections.
pub fn pins(door: &str, connections: usize, query: &str, first: u64, until: Until) -> anyhow::Result<Outcome> {
    let next = AtomicU64::new(first);
    let all = Mutex::new(Outcome { taken: Vec::new(), refused: 0, said: String::new(), seconds: 0.0 });
    let opened: Vec<Connection> = (0..connections).map(|_| Connection::open(door)).collect::<anyhow::Result<_>>()?;
    let begun = Instant::now();
    let work = |mut connection: Connection| -> anyhow::Result<()> {
        let mut own = Vec::new();
        let (mut refused, mut said) = (0, String::new());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let is_over = match until {
                Until::Pins(count) => number >= first + count,
                Until::Time(span) => begun.elapsed() >= span,
            };
            if is_over {
                break;
            }
            let path = format!("/pins/{}{query}", inline_cid(number));
            let asked = Instant::now();
            let reply = connection.call("POST", &path)?;
            if reply.status < 300 {
                own.push(asked.elapsed().as_secs_f64() * 1000.0);
            } else {
                refused += 1;
                said = format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body).trim());
            }
        }
        let mut all = all.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.taken.extend(own);
        all.refused += refused;
        if !said.is_empty() {
            all.said = said;
        }
        Ok(())
    };
    let work = &work;
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let threads: Vec<_> = opened
            .into_iter()
            .map(|connection| std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, move || work(connection)))
            .collect::<std::io::Result<_>>()
            .context("starting threads")?;
        for thread in threads {
            match thread.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("a thread of the load failed"),
            }
        }
        Ok(())
    })?;
    let mut outcome = all.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcome.seconds = begun.elapsed().as_secs_f64();
    outcome.taken.sort_by(f64::total_cmp);
    Ok(outcome)
}

/// A raw block that stands in its own CID (identity multihash): a pin of it is complete at once on every node, so that what is measured
/// is the cluster and not the looking for content. 32 bytes, so that the CID is as long as an ordinary one.
pub fn inline_cid(number: u64) -> String {
    let mut bytes = vec![0x01, 0x55, 0x00, 32];
    let mut state = number;
    for _ in 0..4 {
        // splitmix64: keys lie scattered, as hashes do.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        state = state.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ number;
    }
    format!("b{}", base32(&bytes))
}

fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 8 / 5 + 1);
    let (mut window, mut bits) = (0u32, 0u32);
    for byte in bytes {
        window = (window << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            out.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(window >> bits) as usize & 31]));
        }
    }
    if bits > 0 {
        out.push(char::from(b"abcdefghijklmnopqrstuvwxyz234567"[(window << (5 - bits)) as usize & 31]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_32_is_that_of_multibase() {
        // RFC 4648, lower case, without padding.
        for (bytes, text) in [("", ""), ("f", "my"), ("foob", "mzxw6yq"), ("foobar", "mzxw6ytboi")] {
            assert_eq!(base32(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn every_number_has_its_own_cid_as_long_as_an_ordinary_one() {
        let cids: std::collections::BTreeSet<String> = (0..10_000).map(inline_cid).collect();
        assert_eq!(cids.len(), 10_000);
        assert!(cids.iter().all(|cid| cid.len() == 59 && cid.starts_with("bafkqai")), "{:?}", cids.first());
    }
}
