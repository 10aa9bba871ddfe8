//! The command line, read by hand: options are taken out by name, words in order. Knows no role.

use std::{ffi::OsString, str::FromStr, time::Duration};

use anyhow::{Context, bail};

/// What is left of the command line.
#[derive(Debug)]
pub(crate) struct Args(Vec<String>);

impl Args {
    /// Arguments after the program's name.
    pub(crate) fn new(args: impl Iterator<Item = OsString>) -> Self {
        Self(args.map(|arg| arg.to_string_lossy().into_owned()).collect())
    }

    /// The next word. Take options out first.
    pub(crate) fn word(&mut self, what: &str) -> anyhow::Result<String> {
        if self.0.is_empty() {
            bail!("{what} is missing");
        }
        Ok(self.0.remove(0))
    }

    /// `NAME VALUE`, once.
    pub(crate) fn option(&mut self, name: &str) -> anyhow::Result<Option<String>> {
        let Some(at) = self.0.iter().position(|arg| arg == name) else { return Ok(None) };
        if at + 1 >= self.0.len() {
            bail!("{name} wants a value");
        }
        self.0.remove(at);
        Ok(Some(self.0.remove(at)))
    }

    /// `NAME VALUE`, which must be there.
    pub(crate) fn required(&mut self, name: &str) -> anyhow::Result<String> {
        self.option(name)?.with_context(|| format!("{name} is missing"))
    }

    /// `NAME VALUE`, as often as given.
    pub(crate) fn options(&mut self, name: &str) -> anyhow::Result<Vec<String>> {
        let mut all = Vec::new();
        while let Some(value) = self.option(name)? {
            all.push(value);
        }
        Ok(all)
    }

    /// `NAME VALUE` parsed, or a default.
    pub(crate) fn parsed<T>(&mut self, name: &str, default: T) -> anyhow::Result<T>
    where
        T: FromStr,
        T::Err: std::error::Error + Send + Sync + 'static,
    {
        let Some(value) = self.option(name)? else { return Ok(default) };
        value.parse().with_context(|| format!("{name} {value}"))
    }

    /// `NAME MILLISECONDS`, or a default.
    pub(crate) fn millis(&mut self, name: &str, default: Duration) -> anyhow::Result<Duration> {
        let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
        Ok(Duration::from_millis(self.parsed(name, default)?))
    }

    /// Is the flag there?
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let Some(at) = self.0.iter().position(|arg| arg == name) else { return false };
        self.0.remove(at);
        true
    }

    /// All words that are left.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> anyhow::Result<()> {
        match self.0.first() {
            None => Ok(()),
            Some(arg) => bail!("unexpected argument {arg}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Args;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(Into::into))
    }

    #[test]
    fn options_are_found_wherever_they_stand() {
        let mut args = args("http://web/ -H a:b --json -H c:d");

        assert_eq!(args.options("-H").unwrap(), ["a:b", "c:d"]);
        assert!(args.flag("--json"));
        assert_eq!(args.word("URL").unwrap(), "http://web/");
        args.end().unwrap();
    }

    #[test]
    fn an_argument_nobody_asked_for_is_an_error() {
        let args = args("--colour");

        assert_eq!(args.end().unwrap_err().to_string(), "unexpected argument --colour");
    }
}
