//! A small HTTP/1.1 client for the REST door: one connection a request, bodies streamed both ways.

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// A body to be sent.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Speaks to one peer.
#[derive(Clone, Debug)]
pub struct Client {
    host: String,
}

/// What the peer said when it refused.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status.
    pub code: u16,
    /// The peer's words.
    pub message: String,
}

impl Client {
    /// For `http://host:port` (a bare `host:port` is taken too).
    pub fn new(api: &str) -> anyhow::Result<Client> {
        let host = api.strip_prefix("http://").unwrap_or(api).trim_end_matches('/');
        if api.starts_with("https://") || host.is_empty() || host.contains('/') {
            bail!("{api:?} is no address of a peer: write it like http://127.0.0.1:9094");
        }
        Ok(Client { host: host.to_owned() })
    }

    /// Sends a request and returns the answer when its head has come; any status.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Body) -> anyhow::Result<Response<Incoming>> {
        let stream = tokio::net::TcpStream::connect(&self.host).await.with_context(|| {
            format!("no peer answers at http://{}: start one with `pinfold up`, or name another with --api or PINFOLD_API", self.host)
        })?;
        stream.set_nodelay(true).ok();
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .handshake::<_, Body>(TokioIo::new(stream))
            .await
            .with_context(|| format!("talking to http://{}", self.host))?;
        // The connection ends with the answer's body; its errors show there.
        tokio::spawn(async move { connection.await.ok() });
        let mut request = Request::builder().method(method).uri(path).header("host", &self.host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).with_context(|| format!("asking for {path}"))?;
        sender.send_request(request).await.with_context(|| format!("asking http://{} for {path}", self.host))
    }

    /// Sends, and turns a status of 400 or more into [`ApiError`].
    pub async fn ask(&self, method: Method, path: &str, body: Body) -> anyhow::Result<Response<Incoming>> {
        let response = self.send(method, path, &[], body).await?;
        checked(response).await
    }

    /// A JSON answer; none for 204.
    pub async fn json(&self, method: Method, path: &str) -> anyhow::Result<Option<Value>> {
        let response = self.ask(method, path, empty()).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let body = response.into_body().collect().await.context("reading the answer")?.to_bytes();
        Ok(Some(serde_json::from_slice(&body).with_context(|| format!("reading the answer to {path}"))?))
    }

    /// A stream of JSON lines, each given to `each`; an error in the trailer is returned.
    pub async fn lines(
        &self,
        method: Method,
        path: &str,
        body: Body,
        headers: &[(&str, &str)],
        mut each: impl FnMut(Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let response = checked(self.send(method, path, headers, body).await?).await?;
        let mut body = response.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.context("the answer broke off")?;
            match frame.into_data() {
                Ok(data) => {
                    pending.extend_from_slice(&data);
                    let end = pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                    for line in pending[..end].split(|byte| *byte == b'\n') {
                        if line.iter().any(|byte| !byte.is_ascii_whitespace()) {
                            each(serde_json::from_slice(line).context("reading a line of the answer")?)?;
                        }
                    }
                    pending.drain(..end);
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let said = trailers.get("x-stream-error").and_then(|value| value.to_str().ok()).unwrap_or("");
                        if !said.is_empty() {
                            return Err(ApiError { code: 500, message: said.to_owned() }.into());
                        }
                    }
                }
            }
        }
        if pending.iter().any(|byte| !byte.is_ascii_whitespace()) {
            each(serde_json::from_slice(&pending).context("reading the last line of the answer")?)?;
        }
        Ok(())
    }
}

async fn checked(response: Response<Incoming>) -> anyhow::Result<Response<Incoming>> {
    let status = response.status();
    if status.as_u16() < 400 {
        return Ok(response);
    }
    const MOST: usize = 64 << 10;
    let body = http_body_util::Limited::new(response.into_body(), MOST).collect().await.map(|all| all.to_bytes()).unwrap_or_default();
    let said = serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|value| value["message"].as_str().map(str::to_owned))
        .unwrap_or_else(|| String::from_utf8_lossy(&body).trim().to_owned());
    let message = if said.is_empty() { format!("the peer answered {status}") } else { said };
    Err(ApiError { code: status.as_u16(), message }.into())
}

/// No body.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Percent-encodes one path segment or query value.
pub fn escape(text: &str) -> String {
    escape_bytes(text.as_bytes())
}

/// The same for names, which may be any bytes.
pub fn escape_bytes(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
