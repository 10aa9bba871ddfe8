//! Are we ready? Knows nothing of what makes us so: the application says it.

use std::{cell::Cell, rc::Rc};

/// How far we are; shared by its clones, on one thread.
#[derive(Debug, Clone, Default)]
pub struct Health(Rc<Cell<Phase>>);

/// How far we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// No certificate yet.
    #[default]
    WithoutIdentity,
    /// A certificate, but no law yet.
    WithoutLaw,
    /// Serving.
    Ready,
    /// Finishing what runs.
    Draining,
}

impl Health {
    /// Says how far we are.
    pub fn set(&self, phase: Phase) {
        self.0.set(phase);
    }

    /// How far we are.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.0.get()
    }
}

impl Phase {
    /// For a human.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::WithoutIdentity => "waiting for the first certificate",
            Self::WithoutLaw => "waiting for the first policies",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}
