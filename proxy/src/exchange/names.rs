//! How the names of headers are spelt where HTTP/1 is spoken: in Title-Case, or as they were sent where a port asks for that
//! or a connection begins with a wish to switch protocols.
//!
//! hyper keeps the spelling of a message among its extensions and writes by it; what it does not find there (names that we
//! add ourselves) is Title-Case. It is a matter of looks only: names are compared, removed and decided on without it.

use std::mem;

use douane_proto::mesh::Workload;
use http::{Extensions, Request};
use hyper::upgrade::OnUpgrade;

/// How names are spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Names {
    /// `X-Like-This`.
    #[default]
    Titled,
    /// As they came.
    AsSent,
}

/// The names of one request as its client spelt them, or nothing.
#[derive(Debug, Default)]
pub struct Spelling(Option<Extensions>);

#[derive(Debug, Clone, Copy)]
struct Kept;

const UPGRADE: &[u8] = b"\nupgrade:";

impl Names {
    /// As a port of `workload` wants to hear them.
    #[must_use]
    pub fn at(workload: &Workload, port: u16) -> Self {
        if workload.preserve_case.contains(&port) { Self::AsSent } else { Self::Titled }
    }

    /// As the first words of a client ask for: who wants to switch protocols is heard as it speaks, since what it switches
    /// to may be older than the rule that case means nothing. Later on the same connection it is too late to ask.
    #[must_use]
    pub fn asked_by(first: &[u8]) -> Self {
        let switches = first.windows(UPGRADE.len()).any(|words| words.eq_ignore_ascii_case(UPGRADE));
        if switches { Self::AsSent } else { Self::Titled }
    }

    /// As a request asks for.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        if request.extensions().get::<Kept>().is_some() { Self::AsSent } else { Self::Titled }
    }
}

/// Marks a request of a connection whose names are kept.
pub fn keep<B>(request: &mut Request<B>) {
    request.extensions_mut().insert(Kept);
}

impl Spelling {
    /// Takes it out of what came with a request; none where it was not kept.
    #[must_use]
    pub fn take(extensions: &mut Extensions) -> Self {
        if extensions.get::<Kept>().is_none() {
            return Self(None);
        }
        // Belongs to the connection that it came on.
        extensions.remove::<OnUpgrade>();
        Self(Some(mem::take(extensions)))
    }

    /// Itself where names are kept, else none.
    #[must_use]
    pub fn only(self, names: Names) -> Self {
        if names == Names::AsSent { self } else { Self::default() }
    }

    /// Is there any?
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Gives it to the request for the next hop.
    pub fn put<B>(self, request: &mut Request<B>) {
        if let Some(extensions) = self.0 {
            *request.extensions_mut() = extensions;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_to_switch_is_heard_as_it_speaks() {
        assert_eq!(Names::asked_by(b"GET / HTTP/1.1\r\nhost: a\r\nUPGRADE: websocket\r\n"), Names::AsSent);
        assert_eq!(Names::asked_by(b"GET /upgrade: HTTP/1.1\r\nhost: a\r\n\r\n"), Names::Titled);
        assert_eq!(Names::asked_by(b""), Names::Titled);
    }
}
