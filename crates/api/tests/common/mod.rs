//! What the tests of doors share: a cluster in memory and a client that sees every byte.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

pub mod client;
pub mod twin;

use api::ServeOptions;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
pub use twin::Twin;

/// A REST door over a twin.
pub struct Served {
    pub address: SocketAddr,
    pub twin: Arc<Twin>,
    pub stop: CancellationToken,
    pub handle: JoinHandle<()>,
}

pub async fn serve_rest() -> Served {
    serve_rest_with(|_| {}).await
}

pub async fn serve_rest_with(change: impl FnOnce(&mut ServeOptions)) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let twin = Twin::new();
    let stop = CancellationToken::new();
    let mut options = ServeOptions::new(listener);
    change(&mut options);
    let handle = api::rest::serve(options, twin.clone(), stop.clone());
    Served { address, twin, stop, handle }
}

/// A gateway over a twin.
pub async fn serve_gateway() -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let twin = Twin::new();
    let stop = CancellationToken::new();
    let handle = api::gateway::serve(ServeOptions::new(listener), twin.clone(), stop.clone());
    Served { address, twin, stop, handle }
}

/// A proxy over a twin.
pub async fn serve_proxy() -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let twin = Twin::new();
    let stop = CancellationToken::new();
    let handle = api::proxy::serve(ServeOptions::new(listener), twin.clone(), stop.clone());
    Served { address, twin, stop, handle }
}
