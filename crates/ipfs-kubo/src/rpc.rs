//! Calls to the daemon's RPC: HTTP/1.1 over TCP, connections kept, a deadline on every wait.

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::fmt::Write;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Connections kept for the next call; more are closed after their answer.
const IDLE_MOST: usize = 32;
/// The longest answer taken whole: a block, or a short JSON.
const ANSWER_MOST: usize = 4 << 20;
/// The longest line of a streamed answer.
const LINE_MOST: usize = 1 << 20;
/// To be connected.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a daemon is, and what it wants to see before it answers.
#[derive(Clone)]
pub struct Endpoint {
    /// `host:port`.
    pub authority: String,
    /// Value of the `Authorization` header; Kubo's `API.Authorizations`.
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let credentials = if self.authorization.is_some() { "***@" } else { "" };
        write!(f, "http://{credentials}{}", self.authority)
    }
}

/// Why an address names no daemon.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no address of a Kubo RPC: write http://[user:password@]host:port, http://bearer:TOKEN@host:port, or /ip4/127.0.0.1/tcp/5001"
)]
pub struct BadEndpoint(pub String);

impl Endpoint {
    /// Reads `http://[user:password@]host:port` (user `bearer`: the password is a bearer token) or a TCP multiaddr.
    pub fn parse(text: &str) -> Result<Endpoint, BadEndpoint> {
        let bad = || BadEndpoint(text.to_owned());
        if let Some(rest) = text.strip_prefix('/') {
            let parts: Vec<&str> = rest.split('/').collect();
            return match parts[..] {
                [kind @ ("ip4" | "ip6" | "dns" | "dns4" | "dns6"), host, "tcp", port] => {
                    port.parse::<u16>().map_err(|_| bad())?;
                    let authority = if kind == "ip6" { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
                    Ok(Endpoint { authority, authorization: None })
                }
                _ => Err(bad()),
            };
        }
        let rest = text.strip_prefix("http://").ok_or_else(bad)?.trim_end_matches('/');
        let (credentials, authority) = match rest.rsplit_once('@') {
            Some((credentials, authority)) => (Some(credentials), authority),
            None => (None, rest),
        };
        let (host, port) = authority.rsplit_once(':').ok_or_else(bad)?;
        port.parse::<u16>().map_err(|_| bad())?;
        if host.is_empty() || host.contains('/') {
            return Err(bad());
        }
        let authorization = match credentials {
            None => None,
            Some(credentials) => {
                let (user, password) = credentials.split_once(':').ok_or_else(bad)?;
                let value = match user {
                    "bearer" => format!("Bearer {password}"),
                    _ => format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))),
                };
                let mut value = HeaderValue::from_str(&value).map_err(|_| bad())?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Endpoint { authority: authority.to_owned(), authorization })
    }
}

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// Nobody is there.
    #[error("no Kubo answers at {authority}: {reason}")]
    Unreachable {
        /// Where.
        authority: String,
        /// What the system said.
        reason: String,
    },
    /// It took longer than this call may.
    #[error("Kubo did not answer {call} within {seconds} s")]
    Silent {
        /// The call.
        call: &'static str,
        /// What it may take.
        seconds: u64,
    },
    /// The daemon said no.
    #[error("Kubo refused {call}: {message}")]
    Refused {
        /// The call.
        call: &'static str,
        /// Its words.
        message: String,
    },
    /// The answer broke off, or is none of Kubo's.
    #[error("{call} of Kubo: {reason}")]
    Broken {
        /// The call.
        call: &'static str,
        /// What is wrong.
        reason: String,
    },
}

impl RpcError {
    /// The daemon's own words, where it refused.
    pub fn message(&self) -> Option<&str> {
        match self {
            RpcError::Refused { message, .. } => Some(message),
            _ => None,
        }
    }
}

impl From<wire::kubo::BadAnswer> for RpcError {
    fn from(bad: wire::kubo::BadAnswer) -> RpcError {
        RpcError::Broken { call: bad.call, reason: bad.reason }
    }
}

/// A client of one daemon.
#[derive(Debug)]
pub struct Rpc {
    endpoint: Endpoint,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Call {
    name: &'static str,
    query: String,
    body: Option<(String, Bytes)>,
}

impl Call {
    /// `name` is the path below `/api/v0/`.
    pub fn new(name: &'static str) -> Call {
        Call { name, query: String::new(), body: None }
    }

    /// Adds a parameter.
    pub fn with(mut self, key: &str, value: impl std::fmt::Display) -> Call {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(key);
        self.query.push('=');
        for byte in value.to_string().bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => self.query.push(char::from(byte)),
                _ => {
                    // Writing to a string cannot fail.
                    let _ = write!(self.query, "%{byte:02X}");
                }
            }
        }
        self
    }

    /// Gives it a body.
    pub fn body(mut self, content_type: String, body: Bytes) -> Call {
        self.body = Some((content_type, body));
        self
    }
}

impl Rpc {
    /// A client; nothing is connected yet.
    pub fn new(endpoint: Endpoint) -> Rpc {
        Rpc { endpoint, idle: Mutex::default() }
    }

    /// Where it calls.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The whole answer, within `limit`.
    pub async fn call(&self, call: Call, limit: Duration) -> Result<Bytes, RpcError> {
        let name = call.name;
        let whole = async {
            let (response, connection) = self.send(call).await?;
            let body = collect(name, response.into_body()).await?;
            self.keep(connection);
            Ok(body)
        };
        timeout(limit, whole).await.unwrap_or(Err(RpcError::Silent { call: name, seconds: limit.as_secs() }))
    }

    /// An answer in lines; `silence` is the longest wait for the next one.
    pub async fn lines(&self, call: Call, silence: Duration) -> Result<Lines, RpcError> {
        let name = call.name;
        let sent = timeout(silence, self.send(call)).await;
        let (response, connection) = sent.unwrap_or(Err(RpcError::Silent { call: name, seconds: silence.as_secs() }))?;
        Ok(Lines { call: name, body: response.into_body(), gathered: Vec::new(), silence, connection: Some(connection) })
    }

    async fn send(&self, call: Call) -> Result<(Response<Incoming>, SendRequest<Full<Bytes>>), RpcError> {
        let name = call.name;
        loop {
            let kept = self.idle.lock().pop();
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            if connection.ready().await.is_err() {
                continue;
            }
            match connection.send_request(self.request(&call)?).await {
                Ok(response) if response.status().is_success() => return Ok((response, connection)),
                Ok(response) => {
                    let status = response.status();
                    let body = collect(name, response.into_body()).await?;
                    self.keep(connection);
                    let message = match wire::kubo::error_text(&body) {
                        text if text.is_empty() => status.to_string(),
                        text => text,
                    };
                    return Err(RpcError::Refused { call: name, message });
                }
                // A kept connection that the daemon had closed meanwhile: nothing was done.
                Err(error) if is_kept && (error.is_canceled() || error.is_closed() || error.is_incomplete_message()) => {}
                Err(error) => return Err(RpcError::Broken { call: name, reason: error.to_string() }),
            }
        }
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, RpcError> {
        let mut request = Request::post(format!("/api/v0/{}{}", call.name, call.query)).header(HOST, HeaderValue::from_static("localhost"));
        if let Some(authorization) = &self.endpoint.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let body = match &call.body {
            Some((content_type, body)) => {
                request = request.header(CONTENT_TYPE, content_type);
                body.clone()
            }
            None => Bytes::new(),
        };
        request.body(Full::new(body)).map_err(|error| RpcError::Broken { call: call.name, reason: error.to_string() })
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, RpcError> {
        let unreachable = |reason: String| RpcError::Unreachable { authority: self.endpoint.authority.clone(), reason };
        let dialled = timeout(CONNECT, TcpStream::connect(&self.endpoint.authority)).await;
        let stream = dialled.map_err(|_| unreachable("no answer".to_owned()))?.map_err(|error| unreachable(error.to_string()))?;
        stream.set_nodelay(true).ok();
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(error.to_string()))?;
        // Ends with its sender.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to Kubo ended");
            }
        });
        Ok(sender)
    }

    fn keep(&self, connection: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MOST && !connection.is_closed() {
            idle.push(connection);
        }
    }
}

async fn collect(call: &'static str, mut body: Incoming) -> Result<Bytes, RpcError> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| RpcError::Broken { call, reason: error.to_string() })?;
        match frame.into_data() {
            Ok(data) if whole.len() + data.len() > ANSWER_MOST => {
                return Err(RpcError::Broken { call, reason: format!("the answer is longer than {ANSWER_MOST} bytes") });
            }
            Ok(data) => whole.extend_from_slice(&data),
            Err(frame) => stream_error(call, frame)?,
        }
    }
    Ok(whole.into())
}

/// Kubo says in a trailer what went wrong after its answer had begun.
fn stream_error(call: &'static str, frame: hyper::body::Frame<Bytes>) -> Result<(), RpcError> {
    let trailers = frame.into_trailers().unwrap_or_default();
    match trailers.get("x-stream-error").and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty()) {
        Some(text) => Err(RpcError::Refused { call, message: text.to_owned() }),
        None => Ok(()),
    }
}

/// An answer that comes line by line. Dropped before its end it cancels the call at the daemon.
#[derive(Debug)]
pub struct Lines {
    call: &'static str,
    body: Incoming,
    gathered: Vec<u8>,
    silence: Duration,
    /// Held while the answer comes: its drop closes the connection, by which Kubo knows that nobody waits.
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Lines {
    /// The next line without its end; none after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RpcError> {
        let call = self.call;
        loop {
            if let Some(end) = memchr(&self.gathered) {
                let line: Vec<u8> = self.gathered.drain(..=end).collect();
                let line = line[..end].trim_ascii();
                if !line.is_empty() {
                    return Ok(Some(Bytes::copy_from_slice(line)));
                }
                continue;
            }
            if self.gathered.len() > LINE_MOST {
                return Err(RpcError::Broken { call, reason: format!("a line is longer than {LINE_MOST} bytes") });
            }
            let silent = || RpcError::Silent { call, seconds: self.silence.as_secs() };
            match timeout(self.silence, self.body.frame()).await.map_err(|_| silent())? {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.gathered.extend_from_slice(&data),
                    Err(frame) => stream_error(call, frame)?,
                },
                Some(Err(error)) => return Err(RpcError::Broken { call, reason: error.to_string() }),
                None if self.gathered.trim_ascii().is_empty() => return Ok(None),
                None => self.gathered.push(b'\n'),
            }
        }
    }

    /// Gives the connection back after the last line.
    pub fn finish(mut self, rpc: &Rpc) {
        if let Some(connection) = self.connection.take() {
            rpc.keep(connection);
        }
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn addresses_are_urls_or_multiaddrs() {
        let check = |text: &str, authority: &str, authorization: Option<&str>| {
            let endpoint = Endpoint::parse(text).unwrap();
            assert_eq!(endpoint.authority, authority, "{text}");
            assert_eq!(endpoint.authorization.as_ref().map(|value| value.to_str().unwrap()), authorization, "{text}");
        };
        check("http://127.0.0.1:5001", "127.0.0.1:5001", None);
        check("http://nas:5001/", "nas:5001", None);
        check("/ip4/127.0.0.1/tcp/5001", "127.0.0.1:5001", None);
        check("/ip6/::1/tcp/5001", "[::1]:5001", None);
        check("http://me:secret@h:1", "h:1", Some("Basic bWU6c2VjcmV0"));
        check("http://bearer:tok@h:1", "h:1", Some("Bearer tok"));
        for bad in ["", "kubo", "https://h:1", "http://h", "http://h:x", "http://me@h:1", "/ip4/1.2.3.4/udp/1", "http://:1"] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
        assert!(!format!("{:?}", Endpoint::parse("http://me:secret@h:1").unwrap()).contains("secret"));
    }

    /// Answers every connection with `answer`, then says nothing more.
    async fn daemon(answer: &'static str) -> Rpc {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                    // Held open until the other side goes.
                    let _ = stream.read(&mut request).await;
                });
            }
        });
        Rpc::new(Endpoint { authority, authorization: None })
    }

    #[tokio::test]
    async fn a_daemon_that_says_nothing_is_given_up() {
        let rpc = daemon("").await;
        let limit = Duration::from_millis(50);
        assert!(matches!(rpc.call(Call::new("id"), limit).await, Err(RpcError::Silent { call: "id", .. })));
        assert!(matches!(rpc.lines(Call::new("pin/ls"), limit).await, Err(RpcError::Silent { .. })));
    }

    #[tokio::test]
    async fn an_answer_that_stops_in_the_middle_is_given_up() {
        let rpc = daemon("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"a\":1}\n\r\n").await;
        let mut lines = rpc.lines(Call::new("pin/add"), Duration::from_millis(100)).await.unwrap();
        assert_eq!(lines.next().await.unwrap().as_deref(), Some(&b"{\"a\":1}"[..]));
        assert!(matches!(lines.next().await, Err(RpcError::Silent { .. })));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_cut() {
        let rpc = daemon("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n").await;
        let limit = Duration::from_millis(50);
        assert!(rpc.call(Call::new("id"), limit).await.is_err());
    }

    #[tokio::test]
    async fn errors_come_in_kubos_words_also_from_trailers() {
        let rpc = daemon("HTTP/1.1 500 Oops\r\nContent-Length: 32\r\n\r\n{\"Message\":\"no such\",\"Code\":0}  ").await;
        let error = rpc.call(Call::new("pin/rm"), Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.message(), Some("no such"));
        let rpc = daemon(
            "HTTP/1.1 200 OK\r\nTrailer: X-Stream-Error\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Stream-Error: broke\r\n\r\n",
        )
        .await;
        let error = rpc.call(Call::new("pin/add"), Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.message(), Some("broke"));
    }

    #[tokio::test]
    async fn nobody_there_is_said_with_the_address() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        drop(listener);
        let rpc = Rpc::new(Endpoint { authority: authority.clone(), authorization: None });
        let error = rpc.call(Call::new("id"), Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(&error, RpcError::Unreachable { authority: named, .. } if *named == authority), "{error}");
    }

    #[test]
    fn parameters_are_escaped() {
        let call = Call::new("pin/add").with("arg", "/ipfs/x").with("name", "a b&c=ü");
        assert_eq!(call.query, "?arg=/ipfs/x&name=a%20b%26c%3D%C3%BC");
    }
}
