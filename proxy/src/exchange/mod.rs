//! One HTTP request and its answer as they cross the sidecar: bodies, headers, refusals, and the plaintext legs to
//! applications. Shared by `inbound` and `outbound`, knows neither.
//!
//! - [`body`]: every body is one type, which counts, cuts and ends the record
//! - [`headers`]: how the application spoke, who the peer is, what of an answer goes on
//! - [`limits`]: the bounds of all of it
//! - [`place`]: a request's place among those in progress
//! - [`ledger`]: begins records; [`answer`]: a refusal as an answer
//! - [`serve`]: HTTP from an application or inside a stream; [`origins`]: HTTP to a plaintext server;
//!   [`clients`]: connections to servers that are used again
//! - [`headwatch`]: what HTTP/1 framing hides from the server that parses it
//! - [`request`]: a request put together for its next hop
//! - [`pump`]: a body onto an HTTP/2 stream; [`stream_io`]: a stream as reader and writer
//! - [`retain`]: the mark of a trace that is kept, between sidecars
//! - [`window`]: how much a peer may send before somebody reads; [`meter`]: how much it has sent
//! - [`upgrade`]: a connection that becomes another protocol's

pub mod answer;
pub mod body;
pub mod clients;
pub mod forgiving;
pub mod headers;
pub mod headwatch;
pub mod ledger;
pub mod limits;
pub mod meter;
pub mod names;
pub mod origins;
pub mod place;
pub mod pump;
pub mod request;
pub mod retain;
pub mod serve;
pub mod stream_io;
pub mod upgrade;
pub mod window;
