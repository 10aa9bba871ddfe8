//! Other trust domains: our bundle for them, theirs for our sidecars (SPIFFE Federation). Each domain's bundle vouches for
//! identities of that domain alone; they are never joined.
//!
//! Knows neither TLS (handed in) nor who is told of a bundle (`discovery`).
//! - `endpoint`: where others fetch our bundle

mod endpoint;

pub use endpoint::{BUNDLE_PATH, Published, serve};
