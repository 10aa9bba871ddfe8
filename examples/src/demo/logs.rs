//! What programs of the lab have logged since a moment: JSON lines in files. Knows no field.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use serde_json::Value;

use crate::demo::wait::until;

/// Log lines are written in batches; this is long for that and short for a person.
const WRITTEN: Duration = Duration::from_secs(5);

/// The ends of some log files, from the moment that this value was made.
#[derive(Debug)]
pub struct Tail(Vec<(PathBuf, u64)>);

impl Tail {
    /// From now on.
    #[must_use]
    pub fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let length = |path: &PathBuf| fs::metadata(path).map_or(0, |file| file.len());
        Self(files.into_iter().map(|path| (path.clone(), length(&path))).collect())
    }

    /// All lines so far; what is no JSON object is left out.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        for text in self.texts() {
            lines.extend(text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()));
        }
        lines
    }

    /// All text so far, file by file.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().filter_map(|(path, from)| read_from(path, *from).ok()).collect()
    }

    /// The first line that fits; waits for it a little.
    #[must_use]
    pub fn find(&self, fits: impl Fn(&Value) -> bool) -> Option<Value> {
        until(WRITTEN, || self.lines().into_iter().find(&fits))
    }
}

/// A field of a line as text, empty where it is missing.
#[must_use]
pub fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn read_from(path: &PathBuf, from: u64) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_logged_afterwards_is_found() {
        let path = std::env::temp_dir().join(format!("shop-tail-{}", std::process::id()));
        fs::write(&path, "{\"status\":200}\n").unwrap();

        let tail = Tail::of([path.clone()]);
        fs::write(&path, "{\"status\":200}\nstarting\n{\"status\":403}\n").unwrap();

        assert_eq!(tail.lines().len(), 1);
        assert!(tail.find(|line| line["status"] == 403).is_some());
        fs::remove_file(&path).unwrap();
    }
}
