//! TXT records of the domain name system: what DNSLink needs. The resolver is the one that libp2p dials by.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Texts of one name that are looked at.
const TEXTS_MOST: usize = 64;
/// Bytes of one text; a DNSLink is a path.
const TEXT_BYTES_MAX: usize = 4096;

/// Why a name has no texts.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The system's resolver is not set up.
    #[error("the system names no DNS server that can be asked: {0}")]
    System(String),
    /// No server answered, or one answered with a fault.
    #[error("asking DNS for {name}: {why}")]
    Failed {
        /// What was asked for.
        name: String,
        /// What was said.
        why: String,
    },
}

/// The texts of a name and how long they may be believed; no texts when there is no such name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// Each with its parts put together.
    pub texts: Vec<String>,
    /// For how long.
    pub ttl: Duration,
}

/// Asks DNS servers. Answers are kept as long as they say (in a bounded cache of the resolver).
pub struct Dns {
    resolver: Result<TokioResolver, String>,
}

impl Dns {
    /// Asks these servers; none: those that the system names.
    pub fn new(servers: &[SocketAddr]) -> Dns {
        let builder = if servers.is_empty() {
            TokioResolver::builder_tokio()
        } else {
            let server = |address: &SocketAddr| {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = address.port();
                    connection
                });
                NameServerConfig::new(address.ip(), true, connections.to_vec())
            };
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(server).collect());
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            *builder.options_mut() = ResolverOpts::default();
            Ok(builder)
        };
        Dns { resolver: builder.and_then(|builder| builder.build()).map_err(|error| error.to_string()) }
    }

    /// The texts of a name. What is no UTF-8, or too long, is left out.
    pub async fn texts(&self, name: &str) -> Result<Texts, DnsError> {
        let resolver = self.resolver.as_ref().map_err(|why| DnsError::System(why.clone()))?;
        // With a dot at the end the system's search list is not tried.
        let asked = format!("{}.", name.trim_end_matches('.'));
        let lookup = match resolver.lookup(asked, RecordType::TXT).await {
            Ok(lookup) => lookup,
            Err(error) if error.is_no_records_found() => return Ok(Texts::default()),
            Err(error) => return Err(DnsError::Failed { name: name.to_owned(), why: error.to_string() }),
        };
        let texts = lookup.answers().iter().take(TEXTS_MOST).filter_map(|record| match &record.data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        });
        let texts = texts.filter(|text| text.len() <= TEXT_BYTES_MAX).filter_map(|text| String::from_utf8(text).ok()).collect();
        Ok(Texts { texts, ttl: lookup.valid_until().saturating_duration_since(Instant::now()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one question with what `answer` makes of it.
    fn server(answer: fn(&[u8]) -> Vec<u8>) -> SocketAddr {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                socket.send_to(&answer(&question[..length]), from).ok();
            }
        });
        address
    }

    /// The question again, as an answer with `records` behind it.
    fn reply(question: &[u8], code: u8, records: &[&[&[u8]]]) -> Vec<u8> {
        let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let mut out = question[..end].to_vec();
        out[2..12].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
        for parts in records {
            let data: Vec<u8> = parts.iter().flat_map(|part| [&[part.len() as u8][..], part].concat()).collect();
            out.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, data.len() as u8]);
            out.extend(data);
        }
        out
    }

    #[tokio::test]
    async fn texts_come_whole_from_the_server_that_was_named() {
        let dns = Dns::new(&[server(|question| reply(question, 0, &[&[b"dnslink=", b"/ipfs/x"], &[b"\xff"], &[b"other"]]))]);
        let found = dns.texts("_dnslink.example.org").await.unwrap();
        assert_eq!(found.texts, ["dnslink=/ipfs/x", "other"]);
        assert!(found.ttl > Duration::ZERO && found.ttl <= Duration::from_secs(60));
    }

    #[tokio::test]
    async fn no_such_name_is_no_error_and_a_fault_is_one() {
        let none = Dns::new(&[server(|question| reply(question, 3, &[]))]);
        assert_eq!(none.texts("_dnslink.example.org").await.unwrap(), Texts::default());
        let fault = Dns::new(&[server(|question| reply(question, 2, &[]))]);
        let said = fault.texts("_dnslink.example.org").await.unwrap_err().to_string();
        assert!(said.contains("_dnslink.example.org"), "{said}");
    }
}
