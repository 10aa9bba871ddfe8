//! The application's own certificate: the pod's identity with a key that is not ours, so that what the application does
//! with it, or loses, is not what our peers know us by. Asked for when the first listener comes, renewed while somebody
//! listens, forgotten when it is due and nobody does.
//!
//! Knows not who listens (`workload`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use douane_proto::svid::{Identity, Svid};
use tokio::sync::watch;

use super::{
    clock::now,
    issuer::{IssueError, Issuer},
    renew::{LOOK_AGAIN, SHORTEST_WAIT, TAINTED_SPREAD, is_tainted, obeyed, renewal_wait, retry_wait},
};
use crate::tls;

/// While there is no certificate at all, as an application waits for it.
const FIRST_LIFE: i64 = 60;

/// What an application can have now.
#[derive(Debug, Clone, Default)]
pub enum Passport {
    /// Nobody has asked yet, or the first answer is on its way.
    #[default]
    Awaited,
    /// A certificate with its key.
    Held(Arc<Svid>),
    /// The authority says that there is none for us.
    Refused(String),
    /// It cannot be had now.
    Unavailable(String),
}

/// Where applications' certificates are asked for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Application {
    passport: watch::Receiver<Passport>,
    listeners: watch::Sender<usize>,
}

/// Somebody who listens; while there is one, the certificate is kept fresh.
#[derive(Debug)]
pub struct Listener {
    passport: watch::Receiver<Passport>,
    listeners: watch::Sender<usize>,
}

/// The one writer.
#[derive(Debug)]
pub struct Keeper {
    issuer: Issuer,
    identity: watch::Receiver<Arc<Identity>>,
    passport: watch::Sender<Passport>,
    listeners: watch::Receiver<usize>,
}

impl Application {
    /// Asks `issuer`, for the one who is in `identity`.
    #[must_use]
    pub fn new(issuer: Issuer, identity: watch::Receiver<Arc<Identity>>) -> (Self, Keeper) {
        let (passport, seen) = watch::channel(Passport::default());
        let listeners = watch::Sender::new(0);
        let heard = listeners.subscribe();
        let keeper = Keeper { issuer, identity, passport, listeners: heard };
        (Self { passport: seen, listeners }, keeper)
    }

    /// From now on the certificate is kept fresh for this listener too.
    #[must_use]
    pub fn listen(&self) -> Listener {
        self.listeners.send_modify(|count| *count += 1);
        Listener { passport: self.passport.clone(), listeners: self.listeners.clone() }
    }
}

impl Listener {
    /// What there is now, once it is known.
    pub async fn passport(&mut self) -> Passport {
        let known = self.passport.wait_for(|passport| !matches!(passport, Passport::Awaited)).await;
        known.map_or_else(|_| Passport::Unavailable("the sidecar is ending".to_owned()), |it| it.clone())
    }

    /// Waits until there is another.
    pub async fn changed(&mut self) {
        if self.passport.changed().await.is_err() {
            // The sidecar ends, and the listener with it.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.listeners.send_modify(|count| *count -= 1);
    }
}

impl Keeper {
    /// Keeps it for ever.
    pub async fn run(mut self) {
        loop {
            // Fails with the last `Application`, of which the sidecar keeps one.
            if self.listeners.wait_for(|count| *count > 0).await.is_err() {
                return std::future::pending().await;
            }
            let Some(svid) = self.ask().await else {
                self.forget();
                continue;
            };
            self.passport.send_replace(Passport::Held(Arc::clone(&svid)));
            self.wait_until_due(&svid).await;
            if *self.listeners.borrow() == 0 {
                self.forget();
            }
        }
    }

    // Until there is one, or nobody waits for it any more.
    async fn ask(&mut self) -> Option<Arc<Svid>> {
        let mut failures = 0;
        loop {
            let ours = Arc::clone(&self.identity.borrow_and_update());
            let error = match self.issuer.issue(Some(&ours)).await {
                Ok(issued) => {
                    tracing::info!(id = %issued.svid.leaf.id, "new certificate for the application");
                    return Some(Arc::new(issued.svid));
                }
                Err(error) => error,
            };
            failures += 1;
            let wait = obeyed(self.wait_after(failures), error.hint(), rand::random());
            tracing::warn!(%error, retry_ms = wait.as_millis(), "no new certificate for the application");
            self.tell_of(&error);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                gone = self.listeners.wait_for(|count| *count == 0) => drop(gone),
            }
            if *self.listeners.borrow() == 0 {
                return None;
            }
        }
    }

    fn wait_after(&self, failures: u32) -> Duration {
        let now = now();
        let (from, until) = match self.held() {
            Some(held) => (held.leaf.not_before, held.leaf.not_after),
            None => {
                let now = i64::try_from(now.as_secs()).unwrap_or_default();
                (now - FIRST_LIFE, now + FIRST_LIFE)
            }
        };
        retry_wait(now, from, until, failures, rand::random())
    }

    // What is held and valid stays.
    fn tell_of(&self, error: &IssueError) {
        if self.held().is_some() {
            return;
        }
        let why = error.to_string();
        self.passport.send_replace(if error.is_refusal() {
            Passport::Refused(why)
        } else {
            Passport::Unavailable(why)
        });
    }

    fn held(&self) -> Option<Arc<Svid>> {
        match &*self.passport.borrow() {
            Passport::Held(svid) if !has_ended(svid) => Some(Arc::clone(svid)),
            _ => None,
        }
    }

    // The key is wiped with the last who holds it.
    fn forget(&self) {
        self.passport.send_replace(Passport::Awaited);
    }

    // By the clock, because an authority behind it signs no more, or because no root vouches for it any more.
    async fn wait_until_due(&mut self, svid: &Svid) {
        let random = rand::random();
        let earliest = Instant::now() + SHORTEST_WAIT;
        loop {
            let wait = renewal_wait(now(), svid.leaf.not_before, svid.leaf.not_after, random);
            let wait = wait.max(earliest.saturating_duration_since(Instant::now()));
            if wait.is_zero() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(wait.min(LOOK_AGAIN)) => {}
                changed = self.identity.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    let bundle = Arc::clone(&self.identity.borrow_and_update().bundle);
                    let as_ours = Identity { svid: svid.clone(), bundle, generation: 0 };
                    if is_tainted(&as_ours) {
                        return tokio::time::sleep(TAINTED_SPREAD.mul_f64(random)).await;
                    }
                    if tls::check_identity(as_ours).is_err() {
                        tracing::info!("the application's certificate has lost its root");
                        return;
                    }
                }
            }
        }
    }
}

fn has_ended(svid: &Svid) -> bool {
    u64::try_from(svid.leaf.not_after).unwrap_or(0) <= now().as_secs()
}
