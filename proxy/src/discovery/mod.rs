//! The long stream to the control plane becomes the live `Snapshot`, and questions about unknown destinations.
//!
//! - [`follow`]: the stream: connects, applies, keeps the last good state, comes back
//! - `learned`: what the own ports have been seen to speak (pure)
//! - `watched`: what was asked, what is in use, what may be forgotten (pure)
//! - [`witness`]: whoever has seen the traffic that the control plane wants to know of
//!
//! Knows not what an answer is good for (`outbound`), nor what the policies mean (`douane-proto`).

pub mod follow;
mod learned;
mod watched;
pub mod witness;

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use douane_proto::{
    mesh::Protocol,
    mtls::MtlsModes,
    policy::PolicySet,
    snapshot::{Found, Question, Snapshot},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use self::{
    learned::Learned,
    watched::{Asking, Watched},
};

/// How long a first use of an unknown destination waits for an answer (design.md rule 7).
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// What the rest of the sidecar holds of discovery. Cheap to clone; belongs to one thread.
#[derive(Debug, Clone)]
pub struct Mesh {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    policies: watch::Receiver<Arc<PolicySet>>,
    modes: watch::Receiver<MtlsModes>,
    questions: Rc<Questions>,
}

/// What was asked for, shared with the stream's task.
#[derive(Debug, Default)]
struct Questions {
    watched: RefCell<Watched>,
    learned: RefCell<Learned>,
    fresh: Notify,
}

impl Mesh {
    /// What the writers of these say; questions beyond what the snapshot answers stay unanswered.
    #[must_use]
    pub fn new(
        snapshot: watch::Receiver<Arc<Snapshot>>,
        policies: watch::Receiver<Arc<PolicySet>>,
        modes: watch::Receiver<MtlsModes>,
    ) -> Self {
        Self { snapshot, policies, modes, questions: Rc::default() }
    }

    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// What is known, now and later.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// The law, which changes only when policies change (not on every workload delta).
    #[must_use]
    pub fn policies(&self) -> watch::Receiver<Arc<PolicySet>> {
        self.policies.clone()
    }

    /// Who may connect to the own pod; changes only when that does.
    #[must_use]
    pub fn modes(&self) -> watch::Receiver<MtlsModes> {
        self.modes.clone()
    }

    /// The own pod's `port`, which nobody declared, was seen to speak `protocol`. The control plane is told what is new.
    pub fn learn(&self, port: u16, protocol: Protocol) {
        if self.questions.learned.borrow_mut().see(port, protocol) {
            self.questions.fresh.notify_one();
        }
    }

    /// Looks a destination up: at once when the answer is held, else asks and waits at most 1 s (design.md rule 7).
    /// `None` when no answer came in time: the control plane is down or overloaded.
    pub async fn find(&self, question: Question) -> Option<Found> {
        let held = self.snapshot.borrow().answers.get(&question).cloned();
        let asking = self.questions.watched.borrow_mut().want(&question, Instant::now());
        if held.is_some() {
            return held;
        }
        match asking {
            Asking::Now => self.questions.fresh.notify_one(),
            Asking::Already => {}
            Asking::TooMany => return None,
        }
        let mut snapshot = self.snapshot.clone();
        let answered = snapshot.wait_for(|snapshot| snapshot.answers.contains_key(&question));
        let snapshot = tokio::time::timeout(ANSWER_LIMIT, answered).await.ok()?.ok()?;
        snapshot.answers.get(&question).cloned()
    }
}
