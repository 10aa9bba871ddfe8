//! The demo: the shop in a lab, and a script of attempts on it. Each attempt is judged by what its programs got and by
//! what the sidecars say about it; nothing here looks into a sidecar.
//!
//! [`run`] is the script; `stage` is where it takes place, `attempts` what is tried, [`script`] and [`report`] how
//! it is told; [`sink`], [`span`] and [`waterfall`] make the picture of a trace.

mod attempts;
pub mod forge;
pub mod logs;
pub mod passport;
pub mod report;
pub mod running;
pub mod script;
pub mod sink;
pub mod span;
mod stage;
mod wait;
pub mod waterfall;

use std::{net::SocketAddr, path::Path};

use crate::{
    demo::{
        attempts::{control_plane, intruder, journey, law, outside, renewal, stranger, wire},
        script::{Form, Script},
        sink::Sink,
        stage::Stage,
    },
    lab::{
        addresses::{GATEWAY_V4, SINK_PORT},
        running::Lab,
        spec::Demo,
    },
};

/// What to try in a demo that stays.
const AFTERWARDS: &str = "\
the shop stays open; in another terminal, for example:

  cargo lab status
  cargo lab exec web -- shop get http://orders.shop/orders
  cargo lab exec intruder -- shop get http://orders.shop/orders
  cargo lab exec orders -- shop ledger-say ledger.shop:7000 'ENTRY by hand'
  cargo lab exec orders -- shop grpc watch http://inventory.shop:9090 teapot --updates 3

Ctrl-C takes it down";

/// Plays the script in a lab that runs the shop. Did all come as expected?
///
/// # Errors
/// The stage cannot be set.
pub fn run(lab: &Lab, demo: Demo) -> anyhow::Result<bool> {
    let sink = SocketAddr::from((GATEWAY_V4, SINK_PORT));
    let sink = Sink::start_in_own_thread(sink, lab.host_relay().map(Path::to_owned))?;
    let stage = Stage::set(lab.clone(), sink)?;
    let mut script = Script::new(if demo.json { Form::Json } else { Form::Lines });
    let trace = journey::Trace::new();

    // Early, so that it grows old meanwhile.
    let stolen = stranger::steal(&stage);
    journey::walk(&stage, &mut script, &trace);
    intruder::intrude(&stage, &mut script);
    stranger::knock(&stage, &mut script, stolen);
    outside::leave(&stage, &mut script);
    law::change(&stage, &mut script);
    renewal::outlive(&stage, &mut script);
    wire::listen(&stage, &mut script);
    journey::show(&stage, &mut script, &trace);
    control_plane::lose(&stage, &mut script);
    let as_expected = script.close()?;
    if demo.stay {
        eprintln!("{AFTERWARDS}");
    }
    Ok(as_expected)
}
