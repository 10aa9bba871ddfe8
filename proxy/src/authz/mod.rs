//! The law at work: a decision for each request and stream, the external authorizers that some decisions need, and the
//! watch that ends what a new law forbids.
//!
//! - [`Judge`]: decides, asks and decides again; `in_flight`: what it decides on again when the law changes
//! - `ask`: one `question` to one authorizer, bounded in time and number; `grpc` (with the messages of [`envoy`]) and `http`:
//!   how it is put and what the answer means; `change`: what an authorizer may change in a request
//! - [`Road`]: how an authorizer is reached, handed in from above
//!
//! Knows not how a decision is made (`douane_proto::policy`), nor what is forwarded. Next: `inbound`, which cannot
//! forward without the permit that only a decision makes.

mod ask;
mod change;
pub mod envoy;
mod grpc;
mod heard;
mod http;
mod in_flight;
mod judge;
mod question;
mod road;

pub use self::{
    change::apply,
    heard::Heard,
    in_flight::{InFlight, Running, Waits},
    judge::{Allowed, Judge, Judged, Law, Remarks, SeenBody},
    road::{Call, MOST_BYTES, Reply, Road},
};
