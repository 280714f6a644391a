//! A plain HTTP/1.1 client: sends bytes, reads one whole answer with its trailers.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// One whole answer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Names in small letters, in order.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// One value for each line.
    pub fn lines(&self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }

    pub fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// A connection that is kept.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        Client { stream: BufReader::new(TcpStream::connect(address).await.unwrap()) }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).await.unwrap();
    }

    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        tokio::time::timeout(Duration::from_secs(10), self.stream.read_line(&mut line)).await.expect("an answer within 10 s").unwrap();
        line.trim_end().to_owned()
    }

    pub async fn head(&mut self) -> Answer {
        let status = self.line().await;
        let status = status.split(' ').nth(1).unwrap_or_else(|| panic!("no status in {status:?}")).parse().unwrap();
        Answer { status, headers: self.fields().await, ..Answer::default() }
    }

    async fn fields(&mut self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(':') else { return fields };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// What comes until the connection ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
        rest
    }

    /// The answer to a request with method `method`.
    pub async fn answer(&mut self, method: &str) -> Answer {
        let mut answer = self.head().await;
        if method == "HEAD" || answer.status == 204 || answer.status == 304 {
            return answer;
        }
        if answer.header("transfer-encoding") == "chunked" {
            loop {
                let length = usize::from_str_radix(&self.line().await, 16).unwrap();
                if length == 0 {
                    break;
                }
                let mut chunk = vec![0; length + 2];
                self.stream.read_exact(&mut chunk).await.unwrap();
                answer.body.extend_from_slice(&chunk[..length]);
            }
            answer.trailers = self.fields().await;
        } else if let Ok(length) = answer.header("content-length").parse::<usize>() {
            answer.body = vec![0; length];
            self.stream.read_exact(&mut answer.body).await.unwrap();
        } else {
            self.stream.read_to_end(&mut answer.body).await.unwrap();
        }
        answer
    }

    pub async fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(&request(method, target, headers, body)).await;
        self.answer(method).await
    }
}

pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request.push_str("Host: 127.0.0.1\r\n");
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

/// One question on its own connection.
pub async fn ask(address: SocketAddr, method: &str, target: &str) -> Answer {
    Client::connect(address).await.ask(method, target, &[], b"").await
}

pub async fn ask_with(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
    Client::connect(address).await.ask(method, target, headers, b"").await
}

/// A multipart body: `(content type, file name, content)`.
pub fn multipart(parts: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (content_type, name, content) in parts {
        body.extend_from_slice(
            format!("--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: {content_type}\r\n\r\n")
                .as_bytes(),
        );
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--B--\r\n");
    body
}

pub const MULTIPART: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=B");

pub const FILE: &str = "application/octet-stream";
pub const DIRECTORY: &str = "application/x-directory";

pub async fn add(address: SocketAddr, query: &str, parts: &[(&str, &str, &[u8])]) -> Answer {
    Client::connect(address).await.ask("POST", &format!("/add?{query}"), &[MULTIPART], &multipart(parts)).await
}
