//! A fresh connection: addresses of the name, TCP under the limits of bandwidth, TLS.

use super::guard::is_public;
use super::pool::Connection;
use super::{HttpError, HttpLimits, chain};
use crate::throttle::{Throttle, Throttled};
use bytes::Bytes;
use futures::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use futures_rustls::pki_types::pem::PemObject;
use futures_rustls::pki_types::{CertificateDer, ServerName};
use futures_rustls::rustls::{ClientConfig, RootCertStore};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use tokio_util::task::AbortOnDropHandle;
use url::{Host, Url};

/// Addresses of one name that are tried, and how long each.
const ADDRESSES_MOST: usize = 4;
const ADDRESS_LIMIT: Duration = Duration::from_secs(4);

pub(super) struct Connector {
    pub(super) throttle: Throttle,
    tls: TlsConnector,
    limits: HttpLimits,
}

impl Connector {
    pub(super) fn new(throttle: Throttle, authorities: Option<&[u8]>, limits: HttpLimits) -> Result<Connector, HttpError> {
        let tls = TlsConnector::from(Arc::new(tls(authorities)?));
        Ok(Connector { throttle, tls, limits })
    }

    pub(super) async fn connect(&self, url: &Url, may_be_private: bool) -> Result<Connection, HttpError> {
        let limit = self.limits.connect;
        let connected = tokio::time::timeout(limit, self.connect_slowly(url, may_be_private)).await;
        connected.unwrap_or(Err(HttpError::Late { what: "connection", limit }))
    }

    async fn connect_slowly(&self, url: &Url, may_be_private: bool) -> Result<Connection, HttpError> {
        let host = url.host_str().unwrap_or_default().to_owned();
        let addresses = addresses(url, &host).await?;
        // Checked here, and these very addresses are dialled: a name may lead elsewhere when it is asked for again.
        if let Some(address) = addresses.iter().find(|address| !may_be_private && !is_public(address.ip())) {
            return Err(HttpError::Private { host, address: address.ip().to_string() });
        }
        let (stream, address) = dial(&host, &addresses).await?;
        let is_private = !is_public(address.ip());
        let stream = Throttled::new(stream.compat(), self.throttle.clone(), self.throttle.reach(address.ip()));
        if url.scheme() != "https" {
            return self.handshake(stream, is_private).await;
        }
        let failed = |why: String| HttpError::Tls { host: host.clone(), why };
        let name = server_name(url).ok_or_else(|| failed("its name cannot be in a certificate".to_owned()))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
        self.handshake(stream, is_private).await
    }

    async fn handshake<S>(&self, stream: S, is_private: bool) -> Result<Connection, HttpError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = hyper::client::conn::http1::Builder::new();
        // hyper takes no less than 8 KiB; the head must fit into the buffer.
        builder.max_buf_size(self.limits.head_bytes.max(8192)).max_headers(100);
        let made = builder.handshake::<_, Empty<Bytes>>(TokioIo::new(stream.compat())).await;
        let (sender, connection) = made.map_err(|error| HttpError::Broken(chain(&error)))?;
        // What fails in it fails the request too.
        let task = AbortOnDropHandle::new(tokio::spawn(async move { connection.await.unwrap_or_default() }));
        Ok(Connection { sender, is_private, _task: task })
    }
}

async fn addresses(url: &Url, host: &str) -> Result<Vec<SocketAddr>, HttpError> {
    let port = url.port_or_known_default().unwrap_or(80);
    let no_name = |why: String| HttpError::Name { host: host.to_owned(), why };
    match url.host() {
        Some(Host::Ipv4(address)) => Ok(vec![SocketAddr::new(IpAddr::V4(address), port)]),
        Some(Host::Ipv6(address)) => Ok(vec![SocketAddr::new(IpAddr::V6(address), port)]),
        Some(Host::Domain(name)) => {
            let found = tokio::net::lookup_host((name, port)).await.map_err(|error| no_name(error.to_string()))?;
            let found: Vec<SocketAddr> = found.take(ADDRESSES_MOST).collect();
            if found.is_empty() { Err(no_name("the name has none".to_owned())) } else { Ok(found) }
        }
        None => Err(no_name("the URL names no host".to_owned())),
    }
}

async fn dial(host: &str, addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), HttpError> {
    let mut why = String::new();
    for address in addresses {
        match tokio::time::timeout(ADDRESS_LIMIT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true).ok();
                return Ok((stream, *address));
            }
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => why = format!("no answer within {} s", ADDRESS_LIMIT.as_secs()),
        }
    }
    Err(HttpError::Connect { host: host.to_owned(), why })
}

fn server_name(url: &Url) -> Option<ServerName<'static>> {
    match url.host()? {
        Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
        Host::Ipv4(address) => Some(IpAddr::V4(address).into()),
        Host::Ipv6(address) => Some(IpAddr::V6(address).into()),
    }
}

/// The usual public authorities, and those that the user trusts besides.
fn tls(authorities: Option<&[u8]>) -> Result<ClientConfig, HttpError> {
    let bad = |why: String| HttpError::Authorities(why);
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(pem) = authorities {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        if roots.len() == before {
            return Err(bad("it holds no certificate: PEM is wanted, with -----BEGIN CERTIFICATE-----".to_owned()));
        }
    }
    // Not the process-wide one: libp2p brings another, and which of them stands must not depend on who is first.
    let provider = Arc::new(futures_rustls::rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.map_err(|error| bad(error.to_string()))?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
