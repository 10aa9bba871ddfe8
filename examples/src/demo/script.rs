//! The script of attempts as it runs: judges each, prints it, and knows at the end whether all came as expected.

use std::time::Instant;

use crate::demo::report::{Outcome, millis};

/// How the demo speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A line for each attempt, as it ends.
    Lines,
    /// One array at the end.
    Json,
}

/// What is tried, and what must come.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// Its number.
    pub number: &'static str,
    /// Who tries.
    pub from: &'static str,
    /// What is tried.
    pub to: &'static str,
    /// What must come.
    pub expected: &'static str,
}

/// What came.
#[derive(Debug, Clone)]
pub struct Found {
    /// In words.
    pub actual: String,
    /// Is it what was expected?
    pub ok: bool,
    /// Why it came so.
    pub why: String,
}

/// All attempts so far.
#[derive(Debug)]
pub struct Script {
    form: Form,
    outcomes: Vec<Outcome>,
}

impl Script {
    /// Nothing tried yet.
    #[must_use]
    pub fn new(form: Form) -> Self {
        Self { form, outcomes: Vec::new() }
    }

    /// Tries it. One that cannot be tried at all has failed.
    pub fn attempt(&mut self, attempt: Attempt, what: impl FnOnce() -> anyhow::Result<Found>) {
        let began = Instant::now();
        let found = what().unwrap_or_else(|err| Found {
            actual: String::from("could not be tried"),
            ok: false,
            why: format!("{err:#}"),
        });
        let outcome = Outcome {
            attempt: attempt.number,
            from: attempt.from.to_owned(),
            to: attempt.to.to_owned(),
            expected: attempt.expected.to_owned(),
            actual: found.actual,
            ok: found.ok,
            why: found.why,
            ms: millis(began.elapsed()),
        };
        if self.form == Form::Lines {
            println!("{}", outcome.line());
        }
        self.outcomes.push(outcome);
    }

    /// A picture or a heading between the lines; nothing in JSON.
    pub fn show(&self, text: &str) {
        if self.form == Form::Lines {
            println!("{text}");
        }
    }

    /// Prints the end; did all come as expected?
    ///
    /// # Errors
    /// None for values of ours.
    pub fn close(self) -> anyhow::Result<bool> {
        let failed = self.outcomes.iter().filter(|outcome| !outcome.ok).count();
        match self.form {
            Form::Json => println!("{}", serde_json::to_string_pretty(&self.outcomes)?),
            Form::Lines if failed == 0 => println!("\n{} attempts, all as expected", self.outcomes.len()),
            Form::Lines => println!("\n{} attempts, {failed} NOT as expected", self.outcomes.len()),
        }
        Ok(failed == 0)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    const ATTEMPT: Attempt = Attempt { number: "0", from: "a", to: "b", expected: "c" };

    fn found(ok: bool) -> anyhow::Result<Found> {
        Ok(Found { actual: String::from("c"), ok, why: String::new() })
    }

    #[test]
    fn one_attempt_that_differs_fails_the_whole_script() {
        let mut script = Script::new(Form::Json);

        script.attempt(ATTEMPT, || found(true));
        script.attempt(ATTEMPT, || found(false));

        assert!(!script.close().unwrap());
    }

    #[test]
    fn an_attempt_that_cannot_be_tried_has_failed() {
        let mut script = Script::new(Form::Json);

        script.attempt(ATTEMPT, || bail!("no pod"));

        assert_eq!(script.outcomes[0].why, "no pod");
        assert!(!script.close().unwrap());
    }
}
