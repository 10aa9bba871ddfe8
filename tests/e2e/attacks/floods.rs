//! HTTP/2 frames that cost the sender little and a careless receiver much, from an application (h2c) and from a peer with a
//! certificate: memory stays bounded, the flood ends with a GOAWAY or is borne, and an honest client beside it is served.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::pair::{Pair, foreign, say};

/// Of one flooded connection; a careless receiver takes hundreds of MiB in these seconds. In KiB, for a debug build.
const MOST_MEMORY: u64 = 32 * 1024;
/// An honest request beside a flood on two busy cores; alone it takes some milliseconds.
const HONEST: Duration = Duration::from_secs(15);

/// What must become of the flooded connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is ended.
    Ended,
    /// It may last: its cost is bounded.
    Borne,
}

use Fate::{Borne, Ended};

fn flood(attack: &str, fate: Fate) {
    for door in ["outbound", "inbound"] {
        let Some(told) = flood_at(door, attack) else { return };
        let ended = told["closed"] == true || !told["goaway"].is_null();
        assert!(fate == Borne || ended, "{attack} at {door}: {told}");
    }
}

fn flood_at(door: &str, attack: &str) -> Option<Value> {
    let mut pair = Pair::before_h11(json!({ "protocol": "http1" }))?;
    pair.get("/warm");
    let before = pair.memory();
    let (svid, app, peer) = (pair.svid(), pair.app.to_string(), pair.peer.to_string());
    let mut arguments = vec![attack, if door == "outbound" { &app } else { &peer }];
    if door == "inbound" {
        arguments.push(svid.to_str().unwrap());
    }
    let (told, most) = thread::scope(|scope| {
        let flooding = scope.spawn(|| foreign("h2_flood.py", &arguments));
        let mut most = before;
        while !flooding.is_finished() {
            most = most.max(pair.memory());
            let began = Instant::now();
            let told = say(pair.app, b"GET /honest HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n");
            assert!(told.0.starts_with("HTTP/1.1 200"), "{attack} at {door}: {told:?}");
            assert!(began.elapsed() < HONEST, "{attack} at {door}: {:?}", began.elapsed());
        }
        (flooding.join().unwrap(), most)
    });
    let told = told?;
    eprintln!("{attack} at {door}: {told}, memory {before} -> {most} KiB");
    assert!(most - before < MOST_MEMORY, "{attack} at {door}: from {before} to {most} KiB: {told}");
    pair.is_well();
    Some(told)
}

#[test]
fn rapid_resets_end_the_connection() {
    flood("rapid_reset", Ended);
}

#[test]
fn made_you_reset_by_an_empty_window_ends_the_connection() {
    flood("made_you_reset", Ended);
}

#[test]
fn made_you_reset_by_late_data_ends_the_connection() {
    flood("made_you_reset_by_data", Ended);
}

#[test]
fn made_you_reset_by_a_window_that_overflows_ends_the_connection() {
    flood("made_you_reset_by_window", Ended);
}

#[test]
fn made_you_reset_by_malformed_requests_ends_the_connection() {
    flood("made_you_reset_by_headers", Ended);
}

#[test]
fn a_flood_of_continuations_ends_the_connection() {
    flood("continuation", Ended);
    flood("empty_continuation", Ended);
}

#[test]
fn an_hpack_bomb_is_refused_unexploded() {
    flood("hpack_bomb", Borne);
}

#[test]
fn a_table_that_is_resized_for_ever_costs_nothing() {
    flood("table_thrash", Borne);
}

#[test]
fn empty_data_frames_end_the_connection() {
    flood("empty_data", Ended);
}

#[test]
fn data_in_single_bytes_is_bounded() {
    flood("one_byte_data", Borne);
}

#[test]
fn padding_around_nothing_is_bounded() {
    flood("padded_data", Borne);
}

#[test]
fn floods_of_settings_are_bounded_also_unread() {
    flood("settings", Borne);
    flood("settings_unread", Borne);
}

#[test]
fn floods_of_pings_are_bounded_also_unread() {
    flood("ping", Borne);
    flood("ping_unread", Borne);
}

#[test]
fn priorities_cost_nothing() {
    flood("priority", Borne);
}

#[test]
fn answers_that_a_peer_never_lets_come_are_bounded() {
    flood("zero_window", Borne);
}

#[test]
fn windows_that_overflow_end_the_connection() {
    flood("window_overflow", Ended);
    flood("initial_window_overflow", Ended);
}

#[test]
fn a_client_that_pushes_is_disconnected() {
    flood("push", Ended);
}

#[test]
fn padding_longer_than_its_frame_ends_the_connection() {
    flood("too_much_padding", Ended);
}

#[test]
fn streams_out_of_order_end_the_connection() {
    flood("last_stream_first", Ended);
    flood("even_stream", Ended);
}

#[test]
fn a_frame_larger_than_agreed_ends_the_connection() {
    flood("huge_frame", Ended);
}

#[test]
fn more_streams_than_agreed_are_refused() {
    flood("many_streams", Borne);
}

#[test]
fn a_preface_that_never_goes_on_is_given_up() {
    flood("half_open", Ended);
}
