//! What Pinfold peers say to each other.

use crate::values::{some_messages, some_peers, some_records};
use fuzz::same;
use types::{PeerMessage, UnixMillis};
use wire::join::{self, Invite, JoinAnswer, JoinRequest, Known, Welcome};
use wire::reconcile::{self, Content, Exchange, Range};
use wire::{peer, record};

pub fn peer_message(input: &[u8]) -> bool {
    let Ok(message) = peer::decode(input) else { return false };
    let Some(message) = message else { return false };
    let written = peer::encode(&message);
    // Records that are long together are cut when they are written.
    if !matches!(&message, PeerMessage::Records(_)) || written.len() < peer::MESSAGE_BYTES_MAX / 2 {
        same(peer::decode(&written), Ok(Some(message)));
    }
    true
}

pub fn peer_messages() -> Vec<Vec<u8>> {
    some_messages().iter().map(peer::encode).collect()
}

pub fn record(input: &[u8]) -> bool {
    let Ok(record) = record::decode_record(input) else { return false };
    assert!(!record::signing_bytes(&record).is_empty());
    // The format has one form for each record, or a signature would not be over what was read.
    same(&record::encode_record(&record)[..], input);
    true
}

pub fn records() -> Vec<Vec<u8>> {
    some_records().iter().map(record::encode_record).collect()
}

pub fn exchange(input: &[u8]) -> bool {
    let Ok(message) = reconcile::decode(input) else { return false };
    // One form for each message.
    same(&reconcile::encode(&message)[..], input);
    true
}

pub fn exchanges() -> Vec<Vec<u8>> {
    let name = |first: u8| {
        let mut name = [first; 16];
        name[15] = 1;
        name
    };
    let range = |end, content| Range { end, content };
    let ranges = vec![
        range(Some(name(1)), Content::Same),
        range(Some(reconcile::bound_between(&name(2), &name(4))), Content::Fingerprint([7; 16])),
        range(Some(name(9)), Content::Names(vec![name(4), name(5), name(8)])),
        range(None, Content::Names(Vec::new())),
    ];
    let messages = [
        Exchange::Ready,
        Exchange::Ranges(Vec::new()),
        Exchange::Ranges(ranges),
        Exchange::Wanted(vec![name(1), name(7)]),
        Exchange::Records(some_records()),
    ];
    messages.iter().map(reconcile::encode).collect()
}

pub fn invite(input: &[u8]) -> bool {
    let Ok(line) = std::str::from_utf8(input) else { return false };
    let Ok(invite) = Invite::from_line(line) else { return false };
    same(Invite::from_line(&invite.to_line()), Ok(invite));
    true
}

pub fn invites() -> Vec<Vec<u8>> {
    let invite = |addresses, cluster: &str| Invite {
        secret: [1; 32],
        token: [2; 16],
        expires: UnixMillis::from_seconds(99),
        inviter: some_peers()[0],
        addresses,
        cluster: cluster.to_owned(),
    };
    let invites = [invite(vec!["/ip4/127.0.0.1/tcp/1".to_owned(), "x".to_owned()], "home"), invite(Vec::new(), "")];
    invites.iter().map(|invite| invite.to_line().into_bytes()).collect()
}

pub fn join_request(input: &[u8]) -> bool {
    let Ok(request) = JoinRequest::decode(input) else { return false };
    same(JoinRequest::decode(&request.encode()), Ok(request));
    true
}

pub fn join_requests() -> Vec<Vec<u8>> {
    let request = |name: &str, addresses| JoinRequest { token: [9; 16], name: name.to_owned(), addresses }.encode();
    vec![request("n", vec!["/ip4/1.2.3.4/tcp/9".to_owned(); 3]), request("", Vec::new())]
}

fn some_known() -> Vec<Known> {
    let known = |peer, addresses| Known { peer, name: "x".to_owned(), addresses };
    some_peers().into_iter().map(|peer| known(peer, vec!["/dns4/a.b/tcp/1".to_owned()])).collect()
}

pub fn join_answer(input: &[u8]) -> bool {
    let Ok(answer) = JoinAnswer::decode(input) else { return false };
    same(JoinAnswer::decode(&answer.encode()), Ok(answer));
    true
}

pub fn join_answers() -> Vec<Vec<u8>> {
    let welcome = Welcome { members: some_known(), signed: true };
    vec![JoinAnswer::Welcome(welcome).encode(), JoinAnswer::Refused("no".to_owned()).encode()]
}

pub fn address_book(input: &[u8]) -> bool {
    let Ok(book) = join::decode_book(input) else { return false };
    same(join::decode_book(&join::encode_book(&book)), Ok(book));
    true
}

pub fn address_books() -> Vec<Vec<u8>> {
    vec![join::encode_book(&some_known()), join::encode_book(&[])]
}
