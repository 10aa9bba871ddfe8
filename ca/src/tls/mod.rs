//! Our own listeners. That of sidecars: TLS 1.3 only, our certificate from our own authority and rotating by itself, the client's
//! certificate optional in the handshake and verified by the SPIFFE rules when it is shown.
//!
//! tonic's own TLS configuration cannot rotate; it is handed streams that are already secured. Knows not what a caller
//! may do (`issue`, `discovery`): it says who the caller is.
//! - `server`: the certificate that we show, kept fresh; `verify`: the one check of a client
//! - `listen`: from an accepted socket to a [`Connection`]; `local`: from a process of this machine
//! - `strangers`: bounds for who has proven nothing
//! - `endpoint`: the handshake of the bundle endpoint, which is anybody's; `public`: how TLS is spoken there; `files`: its
//!   certificate where that is given as files
//! - `client`: where token keys and others' bundles are fetched from; `known_server`: the check of a server by its SVID

mod client;
mod endpoint;
mod error;
mod files;
mod known_server;
mod listen;
mod local;
mod public;
mod server;
mod strangers;
mod verify;

pub use client::{https_connector, spiffe_connector, system_connector, web_connector};
pub use endpoint::Endpoint;
pub use error::TlsError;
pub use files::WebFiles;
pub use listen::{Connection, Gate, listen};
pub use local::{bind_local, listen_local};
pub use server::Tls;
pub use strangers::{Bounds, Stranger, Strangers};
