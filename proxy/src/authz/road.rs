//! How an external authorizer is reached: as the pod's own requests are, by the outbound side, which stands above this room
//! and is handed in as a function.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use http::{HeaderMap, Request, StatusCode};

/// A request to an authorizer.
#[derive(Debug)]
pub struct Call {
    /// The service host, or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What is asked, in origin form with its Host; its version says how it is spoken.
    pub request: Request<Bytes>,
}

/// A whole answer of an authorizer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, of [`MOST_BYTES`] at most.
    pub body: Bytes,
    /// What followed the body.
    pub trailers: HeaderMap,
}

/// A longer answer of an authorizer is none: a page for a client fits, and its headers beside it.
pub const MOST_BYTES: usize = 128 * 1024;

type Going = LocalBoxFuture<'static, Result<Reply, String>>;

/// Carries a call to its end, or says why it did not get there. Cheap to clone.
#[derive(Clone)]
pub struct Road(Rc<dyn Fn(Call) -> Going>);

impl Road {
    /// Wraps the function that carries.
    pub fn new<F, G>(carry: F) -> Self
    where
        F: Fn(Call) -> G + 'static,
        G: Future<Output = Result<Reply, String>> + 'static,
    {
        Self(Rc::new(move |call| Box::pin(carry(call))))
    }

    pub(super) fn go(&self, call: Call) -> Going {
        (self.0)(call)
    }
}

impl std::fmt::Debug for Road {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Road")
    }
}
