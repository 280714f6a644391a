//! The page as HTML.

use super::health::{Health, count, fill_percent, grouped, name};
use super::listing::{Listing, PAGE, is_unfinished};
use super::recent::Shown;
use crate::query::encode_segment;
use cluster::{CopyRow, PeerHealth, PeerRow};
use maud::{DOCTYPE, Markup, html};
use peer::{Identity, Totals};
use std::collections::BTreeMap;
use types::{PeerId, Pin, PinState, Replicas, UnixMillis};
use wire::gotime::GoTime;

/// Reasons shown of one pin; the rest is told by `why`.
const REASONS: usize = 3;

/// What the page shows.
pub(super) struct State<'a> {
    pub identity: &'a Identity,
    pub health: &'a Health,
    pub peers: &'a [PeerRow],
    pub forecasts: &'a BTreeMap<PeerId, UnixMillis>,
    pub totals: &'a Totals,
    pub listing: &'a Listing,
    pub notices: &'a [Shown],
    pub now: UnixMillis,
}

pub(super) fn page(state: &State<'_>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (state.identity.cluster) " · Pinfold" }
                link rel="icon" type="image/svg+xml" href="/pinfold/v1/icon.svg";
                link rel="stylesheet" href="/pinfold/v1/page.css";
                script type="module" src="/pinfold/v1/page.js" {}
            }
            body {
                a.skip href="#pins" { "Skip to pins" }
                header.top {
                    p.brand { span.mark aria-hidden="true" {} "Pinfold" }
                    p.where { strong { (state.identity.cluster) } " seen from " (own_name(state)) }
                    p #live-state .live role="status" { "Reload to refresh" }
                }
                main {
                    (health(state))
                    div.pair { (peers(state)) (notices(state)) }
                    (pins(state))
                }
                footer { p { "Pinfold " (env!("CARGO_PKG_VERSION")) " · running since " (when(state.identity.started, state.now)) " · peer " code { (state.identity.peer) } } }
            }
        }
    }
}

fn own_name(state: &State<'_>) -> String {
    if state.identity.name.is_empty() { state.identity.peer.short() } else { state.identity.name.clone() }
}

fn health(state: &State<'_>) -> Markup {
    let seen = state
        .peers
        .iter()
        .filter(|row| row.is_self || matches!(row.health, PeerHealth::Up | PeerHealth::Cordoned | PeerHealth::Draining))
        .count();
    let members = state.peers.iter().filter(|row| row.health != PeerHealth::Gone).count();
    html! {
        section #health .card .health data-level=(state.health.level.as_str()) aria-labelledby="health-title" data-live {
            h1 #health-title { (state.health.sentence) }
            @if !state.health.reasons.is_empty() {
                ul.reasons { @for reason in &state.health.reasons { li { (reason) } } }
            }
            dl.numbers {
                div { dt { "Pins" } dd { (grouped(state.totals.pins)) } }
                div { dt { "Short of copies" } dd { (grouped(state.totals.short)) } }
                div { dt { "Copies on the way" } dd { (grouped(state.totals.waiting)) } }
                div { dt { "Peers seen" } dd { (seen) " of " (members) } }
            }
        }
    }
}

fn peers(state: &State<'_>) -> Markup {
    html! {
        section #peers .card aria-labelledby="peers-title" data-live {
            h2 #peers-title { "Peers" }
            div.scroll tabindex="0" role="region" aria-labelledby="peers-title" {
                table.stacking {
                    thead { tr { th scope="col" { "Name" } th scope="col" { "Health" } th scope="col" { "Space" } th scope="col" { "Last heard" } th scope="col" .number { "Not as wished" } } }
                    tbody { @for row in state.peers { (peer(row, state.forecasts.get(&row.peer).copied(), state.now)) } }
                }
            }
        }
    }
}

fn peer(row: &PeerRow, full_at: Option<UnixMillis>, now: UnixMillis) -> Markup {
    let level = match row.health {
        PeerHealth::Up => "good",
        PeerHealth::Suspect | PeerHealth::Cordoned | PeerHealth::Draining => "warn",
        PeerHealth::Down => "bad",
        PeerHealth::Gone => "off",
    };
    html! {
        tr {
            th scope="row" data-label="Name" { span.name { (name(row)) } @if row.is_self { " " span.tag { "this peer" } } br; code.id title=(row.peer) { "…" (row.peer.short()) } }
            td data-label="Health" { span.state data-level=(level) { (row.health.as_str()) } }
            td data-label="Space" { (space(row)) @if let Some(at) = full_at { br; span.quiet { (::cluster::forecast::in_words(at, now)) } } }
            td data-label="Last heard" { @if row.is_self { "now" } @else { (when(row.heard, now)) } }
            td.number data-label="Not as wished" { (grouped(row.exceptions)) }
        }
    }
}

fn space(row: &PeerRow) -> Markup {
    let Some(percent) = fill_percent(row) else {
        return html! { @if row.space_limit.get() == 0 { span.quiet { "not said" } } @else { (row.space_used) " used" } };
    };
    let label = format!("{percent} % of {} used or reserved", row.space_limit);
    html! {
        meter min="0" max="100" low="75" high="90" optimum="0" value=(percent.min(100)) aria-label=(label) title=(label) { (percent) " %" }
        span.quiet { (row.space_used) " of " (row.space_limit) ", " (row.space_reserved) " reserved" }
    }
}

fn pins(state: &State<'_>) -> Markup {
    let listing = state.listing;
    let wanted = &listing.wanted;
    html! {
        section #pins .card aria-labelledby="pins-title" {
            h2 #pins-title { "Pins" }
            form.filter method="get" action="/" role="search" {
                label { span { "Name or CID" } input type="search" name="q" value=(wanted.text) autocomplete="off" spellcheck="false"; }
                label { span { "Show" }
                    select name="show" {
                        option value="" selected[!wanted.only_unfinished] { "all pins" }
                        option value="unfinished" selected[wanted.only_unfinished] { "not as wished" }
                    }
                }
                button type="submit" { "Filter" }
            }
            div #pin-list data-live {
                @if listing.is_partial {
                    p.note { "There are " (grouped(state.totals.pins)) " pins: the newest of the first 20 000 by CID are shown. Ask the API for all of them." }
                }
                @if listing.pins.is_empty() {
                    p.empty { @if listing.matching == 0 && wanted.text.is_empty() && !wanted.only_unfinished { "Nothing is pinned yet. Add something: " code { "pinfold add <file>" } } @else { "No pin matches." } }
                } @else {
                    div.scroll tabindex="0" role="region" aria-labelledby="pins-title" {
                        table.stacking {
                            thead { tr { th scope="col" { "Pin" } th scope="col" { "Copies" } th scope="col" { "Where" } th scope="col" { "Pinned" } } }
                            tbody { @for (pin, rows) in &listing.pins { (pin_row(pin, rows, state.now)) } }
                        }
                    }
                    (pager(listing))
                }
            }
        }
    }
}

fn pin_row(pin: &Pin, rows: &[CopyRow], now: UnixMillis) -> Markup {
    let cid = pin.cid.to_string();
    let held = rows.iter().filter(|row| row.is_placed && row.state == PinState::Pinned).count();
    let placed = rows.iter().filter(|row| row.is_placed).count();
    let least = match pin.options.replicas {
        Replicas::Between { least, .. } => least.get() as usize,
        Replicas::Everywhere | Replicas::Unset => placed,
    };
    let level = if held >= least { if held >= placed { "good" } else { "warn" } } else { "bad" };
    let unfinished: Vec<&CopyRow> = rows.iter().filter(|row| is_unfinished(row)).collect();
    html! {
        tr {
            th scope="row" data-label="Pin" {
                span.name { @if pin.options.name.is_empty() { span.quiet { "no name" } } @else { (pin.options.name) } }
                br;
                a.cid href={ "/pinfold/v1/why/" (cid) } title="Why is it where it is? (JSON)" { code { (cid) } }
            }
            td data-label="Copies" { span.state data-level=(level) { (held) " of " (placed) } }
            td data-label="Where" {
                ul.holders {
                    @for row in rows.iter().filter(|row| row.is_placed || row.state == PinState::Pinned) {
                        li data-level=(copy_level(row)) title=(row.state.as_str()) { (copy_name(row)) " " span.quiet .hidden[row.state == PinState::Pinned] { (words(row.state)) } }
                    }
                }
                @if !unfinished.is_empty() {
                    ul.why {
                        @for row in unfinished.iter().take(REASONS) { li { strong { (copy_name(row)) } ": " (words(row.state)) (reason(row, now)) } }
                        @if unfinished.len() > REASONS { li { "and " (count((unfinished.len() - REASONS) as u64, "other", "others")) } }
                    }
                }
            }
            td data-label="Pinned" { (when(pin.created, now)) @if let Some(end) = pin.options.expires { br; span.quiet { "ends " (when(end, now)) } } }
        }
    }
}

fn copy_name(row: &CopyRow) -> String {
    if row.name.is_empty() { format!("…{}", row.peer.short()) } else { row.name.clone() }
}

fn copy_level(row: &CopyRow) -> &'static str {
    match row.state {
        PinState::Pinned if row.is_live => "good",
        PinState::Pinned => "warn",
        PinState::PinError | PinState::UnpinError | PinState::ClusterError | PinState::UnexpectedlyUnpinned => "bad",
        _ => "warn",
    }
}

fn words(state: PinState) -> String {
    state.as_str().replace('_', " ")
}

fn reason(row: &CopyRow, now: UnixMillis) -> Markup {
    html! {
        @if let Some(because) = &row.because { " – " (because) }
        @if let Some((blocks, bytes, missing)) = row.progress { " – " (count(blocks, "block", "blocks")) ", " (bytes) " here, " (grouped(missing)) " known to be missing" }
        @if row.tries > 0 { " – " (count(u64::from(row.tries), "attempt", "attempts")) }
        @if let Some(next) = row.next_try { " – next try " (when(next, now)) }
        @if !row.is_live { " – last heard " (when(row.as_of, now)) }
    }
}

fn pager(listing: &Listing) -> Markup {
    let pages = listing.matching.div_ceil(PAGE).max(1);
    let page = listing.wanted.page.min(pages - 1);
    let link = |page: usize| {
        let show = if listing.wanted.only_unfinished { "unfinished" } else { "" };
        format!("/?q={}&show={show}&page={}#pins", encode_segment(&listing.wanted.text), page + 1)
    };
    html! {
        nav.pager aria-label="Pages of pins" {
            @if page > 0 { a rel="prev" href=(link(page - 1)) { "Newer" } } @else { span.quiet { "Newer" } }
            span { "Page " (page + 1) " of " (pages) " · " (count(listing.matching as u64, "pin", "pins")) }
            @if page + 1 < pages { a rel="next" href=(link(page + 1)) { "Older" } } @else { span.quiet { "Older" } }
        }
    }
}

fn notices(state: &State<'_>) -> Markup {
    html! {
        section #notices .card aria-labelledby="notices-title" {
            h2 #notices-title { "What happens" }
            p.note { "Repairs, silent peers and failures, as this peer sees them since it started." }
            ol #notice-list .notices aria-live="polite" {
                @for notice in state.notices { li data-level=(notice.kind) { (when(notice.at, state.now)) " " span { (notice.text) } } }
            }
            p.empty #no-notices hidden[!state.notices.is_empty()] { "Nothing yet: all is quiet." }
        }
    }
}

/// A moment, as its distance from now; the moment itself for machines and on hover.
fn when(at: UnixMillis, now: UnixMillis) -> Markup {
    if at.0 == 0 {
        return html! { span.quiet { "never" } };
    }
    let exact = GoTime::from(UnixMillis(at.0 / 1000 * 1000)).to_string();
    html! { time datetime=(exact) title=(exact) { (distance(at, now)) } }
}

fn distance(at: UnixMillis, now: UnixMillis) -> String {
    let seconds = at.0.abs_diff(now.0) / 1000;
    let span = match seconds {
        0..=1 => return "now".to_owned(),
        2..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    };
    if at <= now { format!("{span} ago") } else { format!("in {span}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_read_naturally() {
        let now = UnixMillis(1_000_000_000_000);
        for (offset, text) in [
            (0i64, "now"),
            (-5_000, "5 s ago"),
            (-600_000, "10 min ago"),
            (-86_400_000, "24 h ago"),
            (-864_000_000, "10 days ago"),
            (90_000, "in 90 s"),
        ] {
            assert_eq!(distance(UnixMillis(now.0.saturating_add_signed(offset)), now), text);
        }
    }
}
