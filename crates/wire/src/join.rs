//! Our own documents for joining a cluster and for knowing each other's addresses: JSON, bounded, never seen by Go peers.
//!
//! An invite carries the private network's secret and a one-time token. The secret lets a peer connect; only the token, given
//! to the inviting peer once and in time, makes it trusted.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use types::{PeerId, UnixMillis};

/// Longest document taken, in bytes.
pub const LONGEST: usize = 1 << 20;
const PREFIX: &str = "pinfold-invite-1.";
/// Addresses kept of one peer; more are cut off.
const ADDRESSES: usize = 32;
/// Peers taken out of one document.
const PEERS: usize = 10_000;

/// What an invite says.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// Key of the private network.
    pub secret: [u8; 32],
    /// Good once.
    pub token: [u8; 16],
    /// The inviter takes the token until then.
    pub expires: UnixMillis,
    /// Who invites.
    pub inviter: PeerId,
    /// Where the inviter is reached (multiaddrs with `/p2p/`).
    pub addresses: Vec<String>,
    /// The cluster's name.
    pub cluster: String,
}

/// Why a document is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadDocument {
    /// The line is no invite.
    #[error("this is no invite: it must begin with {PREFIX:?} and be whole (was it cut at a line end?)")]
    NotAnInvite,
    /// Some part of it is malformed.
    #[error("the document does not read: {0}")]
    Malformed(String),
}

#[derive(Serialize, Deserialize)]
struct InviteDocument {
    secret: String,
    token: String,
    expires: u64,
    peer: String,
    addresses: Vec<String>,
    cluster: String,
}

impl Invite {
    /// One line of text.
    pub fn to_line(&self) -> String {
        let document = InviteDocument {
            secret: hex::encode(self.secret),
            token: hex::encode(self.token),
            expires: self.expires.seconds(),
            peer: self.inviter.to_string(),
            addresses: self.addresses.clone(),
            cluster: self.cluster.clone(),
        };
        let json = serde_json::to_vec(&document).unwrap_or_default();
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// Reads the line back; spaces and line ends around it are forgiven.
    pub fn from_line(line: &str) -> Result<Invite, BadDocument> {
        let body = line.trim().strip_prefix(PREFIX).ok_or(BadDocument::NotAnInvite)?;
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| BadDocument::NotAnInvite)?;
        let document: InviteDocument = serde_json::from_slice(&json).map_err(|_| BadDocument::NotAnInvite)?;
        let malformed = |what: &str| BadDocument::Malformed(what.to_owned());
        Ok(Invite {
            secret: fixed(&document.secret).ok_or_else(|| malformed("its secret"))?,
            token: fixed(&document.token).ok_or_else(|| malformed("its token"))?,
            expires: UnixMillis::from_seconds(document.expires),
            inviter: document.peer.parse().map_err(|_| malformed("its peer id"))?,
            addresses: document.addresses.into_iter().take(ADDRESSES).collect(),
            cluster: document.cluster,
        })
    }
}

impl std::fmt::Debug for Invite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invite")
            .field("inviter", &self.inviter)
            .field("cluster", &self.cluster)
            .field("secret", &"***")
            .finish_non_exhaustive()
    }
}

fn fixed<const N: usize>(text: &str) -> Option<[u8; N]> {
    <[u8; N]>::try_from(hex::decode(text).ok()?).ok()
}

/// A peer and where it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Who.
    pub peer: PeerId,
    /// Name for people.
    pub name: String,
    /// Cluster addresses (multiaddrs with `/p2p/`).
    pub addresses: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct KnownDocument {
    peer: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    addresses: Vec<String>,
}

impl From<&Known> for KnownDocument {
    fn from(known: &Known) -> KnownDocument {
        KnownDocument { peer: known.peer.to_string(), name: known.name.clone(), addresses: known.addresses.clone() }
    }
}

fn known(documents: Vec<KnownDocument>) -> Vec<Known> {
    let read = |document: KnownDocument| {
        let addresses = document.addresses.into_iter().take(ADDRESSES).collect();
        Some(Known { peer: document.peer.parse().ok()?, name: document.name.chars().take(256).collect(), addresses })
    };
    documents.into_iter().take(PEERS).filter_map(read).collect()
}

/// Encodes an address book.
pub fn encode_book(book: &[Known]) -> Vec<u8> {
    serde_json::to_vec(&book.iter().map(KnownDocument::from).collect::<Vec<_>>()).unwrap_or_default()
}

/// Reads an address book; entries that do not read are left out.
pub fn decode_book(bytes: &[u8]) -> Result<Vec<Known>, BadDocument> {
    serde_json::from_slice(bytes).map(known).map_err(|error| BadDocument::Malformed(error.to_string()))
}

/// What a joining peer says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The invite's token.
    pub token: [u8; 16],
    /// Its name.
    pub name: String,
    /// Its cluster addresses.
    pub addresses: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct JoinRequestDocument {
    token: String,
    name: String,
    addresses: Vec<String>,
}

impl JoinRequest {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let document = JoinRequestDocument { token: hex::encode(self.token), name: self.name.clone(), addresses: self.addresses.clone() };
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// From the bytes of a stranger.
    pub fn decode(bytes: &[u8]) -> Result<JoinRequest, BadDocument> {
        let document: JoinRequestDocument = serde_json::from_slice(bytes).map_err(|error| BadDocument::Malformed(error.to_string()))?;
        Ok(JoinRequest {
            token: fixed(&document.token).ok_or_else(|| BadDocument::Malformed("its token".to_owned()))?,
            name: document.name.chars().take(256).collect(),
            addresses: document.addresses.into_iter().take(ADDRESSES).collect(),
        })
    }
}

/// What a peer that was let in learns of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Welcome {
    /// The members (the inviter among them).
    pub members: Vec<Known>,
    /// Blocks of the shared state count only with the signature of a member.
    pub signed: bool,
}

/// The inviter's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinAnswer {
    /// Trusted now.
    Welcome(Welcome),
    /// Refused, in words.
    Refused(String),
}

#[derive(Serialize, Deserialize)]
struct JoinAnswerDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    #[serde(default)]
    members: Vec<KnownDocument>,
    #[serde(default)]
    signed: bool,
}

impl JoinAnswer {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let document = match self {
            JoinAnswer::Welcome(Welcome { members, signed }) => {
                JoinAnswerDocument { refused: None, members: members.iter().map(KnownDocument::from).collect(), signed: *signed }
            }
            JoinAnswer::Refused(why) => JoinAnswerDocument { refused: Some(why.clone()), members: Vec::new(), signed: false },
        };
        serde_json::to_vec(&document).unwrap_or_default()
    }

    /// From the inviter's bytes.
    pub fn decode(bytes: &[u8]) -> Result<JoinAnswer, BadDocument> {
        let document: JoinAnswerDocument = serde_json::from_slice(bytes).map_err(|error| BadDocument::Malformed(error.to_string()))?;
        Ok(match document.refused {
            Some(why) => JoinAnswer::Refused(why),
            None => JoinAnswer::Welcome(Welcome { members: known(document.members), signed: document.signed }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Invite {
        Invite {
            secret: [1; 32],
            token: [2; 16],
            expires: UnixMillis::from_seconds(99),
            inviter: PeerId::from_ed25519(&[3; 32]),
            addresses: vec!["/ip4/127.0.0.1/tcp/1".to_owned()],
            cluster: "c".to_owned(),
        }
    }

    #[test]
    fn an_invite_is_one_line_and_reads_back() {
        let line = invite().to_line();
        assert!(!line.contains(char::is_whitespace));
        assert_eq!(Invite::from_line(&format!("  {line}\n")), Ok(invite()));
    }

    #[test]
    fn damaged_invites_are_refused() {
        let line = invite().to_line();
        for bad in ["", "hello", &line[..line.len() - 9], &line.replace("invite-1", "invite-9")] {
            assert_eq!(Invite::from_line(bad), Err(BadDocument::NotAnInvite), "{bad}");
        }
    }

    #[test]
    fn a_secret_never_shows_in_debug_output() {
        assert!(!format!("{:?}", invite()).contains("010101"));
    }

    #[test]
    fn documents_read_back() {
        let request = JoinRequest { token: [9; 16], name: "n".to_owned(), addresses: vec!["/ip4/1.2.3.4/tcp/9".to_owned()] };
        assert_eq!(JoinRequest::decode(&request.encode()), Ok(request));
        let members = vec![Known { peer: PeerId::from_ed25519(&[4; 32]), name: "x".to_owned(), addresses: Vec::new() }];
        assert_eq!(decode_book(&encode_book(&members)), Ok(members.clone()));
        for answer in [JoinAnswer::Welcome(Welcome { members, signed: true }), JoinAnswer::Refused("no".to_owned())] {
            assert_eq!(JoinAnswer::decode(&answer.encode()), Ok(answer));
        }
        assert!(JoinRequest::decode(b"[1]").is_err() && JoinAnswer::decode(&[0xff]).is_err());
    }
}
