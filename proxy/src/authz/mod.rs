//! The law at work: a decision for each request and stream, and the watch that ends what a new law forbids.
//!
//! Knows not how a decision is made (`douane_proto::policy`), nor what is forwarded. Next: `inbound`, which cannot
//! forward without the [`Permit`] that only a decision makes.

use std::{future::pending, rc::Rc, sync::Arc};

use douane_proto::{
    facts::Facts,
    policy::{Answers, Decision, Denial, Permit, PolicySet, decide},
};
use tokio::sync::watch;

use crate::refusal::Refusal;

/// The law as it changes.
pub type Law = watch::Receiver<Arc<PolicySet>>;

/// Decides by the newest law. What `law` has seen is then exactly what was decided on, so that [`revoked`] misses no
/// change.
///
/// # Errors
/// [`Refusal::Denied`].
pub fn authorize(law: &mut Law, facts: &Facts) -> Result<Permit, Refusal> {
    let policies = Arc::clone(&law.borrow_and_update());
    match decide(&policies, facts, &Answers::default()) {
        Decision::Allow(permit) => Ok(permit),
        Decision::Deny(denial) => Err(Refusal::Denied(denial)),
        Decision::Ask(_) => Err(Refusal::Denied(Denial::without_policy("nobody was asked"))),
    }
}

/// Waits until a change of the law forbids what was admitted with these facts.
pub async fn revoked(mut law: Law, facts: Rc<Facts>) -> Denial {
    loop {
        if law.changed().await.is_err() {
            // The writer is gone: the last law stays.
            return pending().await;
        }
        let policies = Arc::clone(&law.borrow_and_update());
        if let Decision::Deny(denial) = decide(&policies, &facts, &Answers::default()) {
            return denial;
        }
    }
}
