//! Joining: one-time invites, and the exchange that turns a token into trust on both sides.
//!
//! The inviter keeps only a hash of each token. The token is struck out durably before trust is given, so a crash can lose an
//! invite but never lets it be used twice.

use crate::core::Core;
use crate::links::Links;
use crate::records;
use cluster::Command;
use ed25519_dalek::SigningKey;
use net::Host;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use store::{Area, Batch, Durability};
use types::{PeerId, UnixMillis};
use wire::join::{Invite, JoinAnswer, JoinRequest, Known, Welcome};

/// Protocol of joining, on the cluster host.
pub const JOIN: &str = "/pinfold/join/1";
/// A joining peer has this long for its request, an inviter for its answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// Gives out invites and answers those who come with one.
pub struct Joining {
    core: Arc<Core>,
    links: Arc<Links>,
    key: SigningKey,
    secret: [u8; 32],
    cluster: String,
    /// Held while a token is looked up and struck out: two that come with the same token at once must not both find it.
    tokens: Mutex<()>,
}

impl Joining {
    /// For this peer.
    pub fn new(core: Arc<Core>, links: Arc<Links>, key: SigningKey, secret: [u8; 32], cluster: String) -> Arc<Joining> {
        Arc::new(Joining { core, links, key, secret, cluster, tokens: Mutex::new(()) })
    }

    /// Makes an invite; durable when it returns.
    pub fn invite(&self, ttl: Duration) -> Result<String, String> {
        let mut token = [0; 16];
        getrandom::fill(&mut token).map_err(|error| format!("the system gives no random bytes: {error}"))?;
        let expires = UnixMillis(self.core.now().wall.0.saturating_add(ttl.as_millis() as u64));
        let addresses = self.links.host().addresses();
        if addresses.is_empty() {
            return Err("this peer listens on no cluster address, so nobody could join through it: see --cluster".to_owned());
        }
        let mut batch = Batch::new();
        batch.put(Area::Meta, storage_key(&token), expires.0.to_be_bytes());
        self.core.store.commit(batch, Durability::Synced).map_err(|error| error.to_string())?;
        let invite =
            Invite { secret: self.secret, token, expires, inviter: self.links.host().id(), addresses, cluster: self.cluster.clone() };
        Ok(invite.to_line())
    }

    /// Answers one peer that wants to join.
    pub async fn answer(self: Arc<Joining>, peer: PeerId, mut stream: net::Stream) {
        let exchange = async {
            let bytes = net::frame::read_frame(&mut stream, wire::join::LONGEST).await.ok()??;
            let answer = match JoinRequest::decode(&bytes) {
                Ok(request) => self.decide(peer, &request).await,
                Err(error) => JoinAnswer::Refused(error.to_string()),
            };
            if let JoinAnswer::Refused(why) = &answer {
                tracing::warn!(%peer, why, "a peer was not let in");
            }
            net::frame::write_frame(&mut stream, &answer.encode()).await.ok()
        };
        if tokio::time::timeout(DEADLINE, exchange).await.is_err() {
            tracing::debug!(%peer, "a joining peer was too slow");
        }
    }

    async fn decide(&self, peer: PeerId, request: &JoinRequest) -> JoinAnswer {
        if let Err(why) = self.use_token(&request.token) {
            return JoinAnswer::Refused(why);
        }
        let known = Known { peer, name: request.name.clone(), addresses: request.addresses.clone() };
        self.links.learn(std::slice::from_ref(&known), peer).await;
        if let Err(why) = self.trust(&peer, true).await {
            return JoinAnswer::Refused(why);
        }
        tracing::info!(%peer, name = request.name, "a peer joined by invite: trusted from now on");
        let members = self.core.trust.members();
        let book = self.links.book();
        let mut welcome: Vec<Known> = book.into_iter().filter(|known| members.contains(&known.peer) && known.peer != peer).collect();
        for member in members {
            if member != peer && !welcome.iter().any(|known| known.peer == member) {
                welcome.push(Known { peer: member, name: String::new(), addresses: Vec::new() });
            }
        }
        JoinAnswer::Welcome(Welcome { members: welcome, signed: self.core.consensus.authors().required })
    }

    /// Strikes a token out, if it is good.
    fn use_token(&self, token: &[u8; 16]) -> Result<(), String> {
        let key = storage_key(token);
        let _one_at_a_time = self.tokens.lock();
        let kept = self.core.store.snapshot().get(Area::Meta, &key).map_err(|error| error.to_string())?;
        let Some(kept) = kept else {
            return Err("this invite is unknown or was used already: ask for a new one (`pinfold invite`)".to_owned());
        };
        let mut batch = Batch::new();
        batch.delete(Area::Meta, key);
        self.core.store.commit(batch, Durability::Synced).map_err(|error| error.to_string())?;
        let expires = <[u8; 8]>::try_from(kept.as_ref()).map_or(0, u64::from_be_bytes);
        if expires <= self.core.now().wall.0 {
            return Err("this invite has expired: ask for a new one (`pinfold invite`)".to_owned());
        }
        Ok(())
    }

    /// Writes and spreads a record about a member.
    pub async fn trust(&self, peer: &PeerId, trusted: bool) -> Result<(), String> {
        let author = self.links.host().id();
        // A clock that was ahead once and was set right must not make what is said later count less.
        let kept = records::version_of_member(self.core.store.as_ref(), author, peer).map_err(|error| error.to_string())?;
        let version = self.core.now().wall.0.max(kept.map_or(0, |kept| kept.saturating_add(1)));
        let record = records::member(&self.key, author, peer, version, self.core.now().wall, trusted);
        match self.core.command(Command::SetRecord { record }).await {
            Some(cluster::Answer::Refused(why)) => Err(why.to_string()),
            Some(_) => Ok(()),
            None => Err("this peer is stopping".to_owned()),
        }
    }

    /// Trusts everybody a welcome names, and learns where they are.
    pub async fn welcomed(&self, members: &[Known]) -> Result<(), String> {
        for known in members {
            self.trust(&known.peer, true).await?;
        }
        self.links.learn(members, self.links.host().id()).await;
        Ok(())
    }
}

fn storage_key(token: &[u8; 16]) -> Vec<u8> {
    [b"invite/", Sha256::digest(token).as_slice()].concat()
}

/// Why joining failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// None of the addresses answered.
    #[error(
        "the inviting peer does not answer at any of its addresses ({addresses}): is it running, and reachable from here? last error: {last}"
    )]
    Unreachable {
        /// What was tried.
        addresses: String,
        /// What happened.
        last: String,
    },
    /// The invite's time is over by the own clock.
    #[error("this invite has expired (or this machine's clock is wrong): ask for a new one (`pinfold invite`)")]
    Expired,
    /// The inviter said no.
    #[error("{0}")]
    Refused(String),
    /// The exchange broke.
    #[error("talking to the inviting peer: {0}")]
    Broken(String),
}

/// The joining side: shows the token to the inviter and returns what it says of the cluster.
pub async fn ask(host: &Host, invite: &Invite, name: &str, now: UnixMillis) -> Result<Welcome, JoinError> {
    if invite.expires <= now {
        return Err(JoinError::Expired);
    }
    host.connect(invite.inviter, &invite.addresses)
        .await
        .map_err(|error| JoinError::Unreachable { addresses: invite.addresses.join(", "), last: error.to_string() })?;
    let exchange = async {
        let (mut stream, _) = host.open(invite.inviter, &[JOIN]).await.map_err(|error| error.to_string())?;
        let request = JoinRequest { token: invite.token, name: name.to_owned(), addresses: host.addresses() };
        net::frame::write_frame(&mut stream, &request.encode()).await.map_err(|error| error.to_string())?;
        let bytes = net::frame::read_frame(&mut stream, wire::join::LONGEST).await.map_err(|error| error.to_string())?;
        JoinAnswer::decode(&bytes.unwrap_or_default()).map_err(|error| error.to_string())
    };
    match tokio::time::timeout(DEADLINE, exchange).await {
        Ok(Ok(JoinAnswer::Welcome(welcome))) => Ok(welcome),
        Ok(Ok(JoinAnswer::Refused(why))) => Err(JoinError::Refused(why)),
        Ok(Err(error)) => Err(JoinError::Broken(error)),
        Err(_) => Err(JoinError::Broken("no answer in time".to_owned())),
    }
}
