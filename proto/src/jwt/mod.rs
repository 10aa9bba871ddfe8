//! Is this token signed by one of these keys, for us, and valid now? One function for the control plane (service account
//! tokens) and for what a request carries.
//!
//! Pure: no clock, no fetching of keys. Knows not what the claims mean to whoever asks. `keys` are read once, `verify`
//! applies them, `claims` is what a token that verified says. `svid` adds what SPIFFE demands of its tokens.

mod claims;
mod keys;
#[cfg(test)]
pub(crate) mod minted;
mod svid;
mod verify;

pub use claims::Claims;
pub use keys::{Keys, KeysError};
pub use svid::{JwtSvid, JwtSvidError, key_id, key_set, keys_of, verify_svid};
pub use verify::{Expected, JwtError, MAX_TOKEN_BYTES, Purpose, unverified_issuer, verify, verify_again};

#[cfg(test)]
mod tests;
