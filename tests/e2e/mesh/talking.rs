//! A program in a pod that is listened to while it runs.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, ChildStdout, Stdio},
};

use douane_tests::lab::Lab;

/// A program in a pod whose first line has come.
pub(super) struct Talking {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Talking {
    pub(super) fn start(lab: &Lab, pod: &str, command: &[&str]) -> Self {
        Self::of(lab.spawn(pod, command, Stdio::null()))
    }

    /// The same of a program that was started otherwise.
    pub(super) fn of(mut child: Child) -> Self {
        let mut talking = Self { output: BufReader::new(child.stdout.take().unwrap()), child };
        let first = talking.line();
        assert!(first.is_some(), "{:?} says something", talking.child);
        talking
    }

    /// Its next line; none at its end.
    pub(super) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        (!line.is_empty()).then(|| line.trim_end().to_owned())
    }

    /// All that it still says, and how it ended. It hears the end of its input.
    pub(super) fn rest(mut self) -> (String, bool) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (rest, self.child.wait().unwrap().success())
    }

    /// Its last line, and how it ended.
    pub(super) fn end(self) -> (String, bool) {
        let (rest, well) = self.rest();
        (rest.lines().last().unwrap_or_default().to_owned(), well)
    }
}
