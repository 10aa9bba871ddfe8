//! `douane check`: what a cluster says of itself becomes findings, each with what, why and the command that mends it.
//!
//! - `facts`: what was read of the cluster; `kubernetes` reads it
//! - `before`: may we be installed here? `running`: does what is installed do its work?
//!
//! Facts to findings is pure. Knows not how findings are printed (`cli/check`).

mod before;
mod facts;
pub mod kubernetes;
mod running;
#[cfg(test)]
mod tests;

use serde::Serialize;

pub use facts::{Facts, Kind, Right};

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is as it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warning,
    /// It does not work, or is about to stop.
    Error,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to.
    pub group: &'static str,
    /// A name that stays: `group.what`.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// Why that matters; nothing where all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The command that mends it, or what to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

/// Before we are installed, or after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// May we be?
    Before,
    /// Do we work?
    Running,
}

/// What `facts` mean.
#[must_use]
pub fn judge(facts: &Facts, stage: Stage) -> Vec<Finding> {
    let mut all = before::of_cluster(facts);
    match stage {
        Stage::Before => all.extend(before::of_rights(facts)),
        Stage::Running => all.extend(running::of_mesh(facts)),
    }
    all
}

/// The worst of them.
#[must_use]
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

impl Finding {
    pub(crate) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        let group = check.split_once('.').map_or(check, |(group, _)| group);
        Self { group, check, level: Level::Ok, what: what.into(), why: String::new(), mend: String::new() }
    }

    pub(crate) fn warning(check: &'static str, what: impl Into<String>) -> Self {
        Self { level: Level::Warning, ..Self::ok(check, what) }
    }

    pub(crate) fn error(check: &'static str, what: impl Into<String>) -> Self {
        Self { level: Level::Error, ..Self::ok(check, what) }
    }

    pub(crate) fn because(self, why: &str) -> Self {
        Self { why: why.to_owned(), ..self }
    }

    pub(crate) fn mended_by(self, mend: impl Into<String>) -> Self {
        Self { mend: mend.into(), ..self }
    }
}
