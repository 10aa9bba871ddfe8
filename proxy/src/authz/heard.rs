//! What external authorizers said of one request or stream, kept as long as it runs.
//!
//! Knows not what follows from it (`judge`).

use std::sync::Arc;

use douane_proto::policy::{Answer, Answers, PolicySet, Provider};

/// What authorizers said of one request or stream, and who they were.
#[derive(Debug, Default)]
pub struct Heard {
    pub(super) answers: Answers,
    from: Vec<Arc<Provider>>,
}

impl Heard {
    /// One more has answered.
    pub(super) fn hear(&mut self, provider: &Arc<Provider>, answer: Answer) {
        self.answers = std::mem::take(&mut self.answers).with(&provider.name, answer);
        self.from.push(Arc::clone(provider));
    }

    /// Of those whom the law still defines as they were when they were asked.
    pub(super) fn of_those_in(&self, policies: &PolicySet) -> Self {
        let mut still = Self::default();
        for provider in &self.from {
            let is_same = policies.provider(&provider.name).is_some_and(|now| now == provider);
            if let Some(answer) = self.answers.of(&provider.name).filter(|_| is_same) {
                still.hear(provider, answer.clone());
            }
        }
        still
    }
}
