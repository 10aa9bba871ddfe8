//! What a policy may see of a request: one pure function from a request's head as it was sent to
//! [`RequestFacts`](crate::facts::RequestFacts), for the sidecar and for the operator's commands.
//!
//! Knows no sockets and no policies. What could be read in two ways is refused ([`BadRequest`]), never guessed.
//!
//! `understand` is the way through: lengths (`framing`), host (`authority`), headers that belong to a hop or to us
//! (`headers`), then [`crate::target`]. `raw` begins one step earlier, with names and values that no HTTP parser has seen.
//! Next: [`crate::authentication`].

mod authority;
mod client;
mod error;
mod framing;
mod headers;
mod raw;
mod understand;

pub use authority::{line_authority, named_host};
pub use client::client_address;
pub use error::BadRequest;
pub(crate) use headers::is_ours;
pub use headers::{CLIENT_CERT, clean_trailers, join_cookies, origin_form, strip_hop_by_hop, strip_reserved};
pub use raw::{headers_of, method_of};
pub use understand::{Head, understand};

#[cfg(test)]
mod tests;
