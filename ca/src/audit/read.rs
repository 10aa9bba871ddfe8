//! Which records match? For whoever asks what was issued to somebody since some day.

use std::{io, path::Path, time::SystemTime};

use super::{
    chain::Line,
    files::{Folder, lines},
};

/// Which records are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// A SPIFFE ID, or how one ends (`/ns/shop/sa/web`).
    pub identity: Option<String>,
    /// Not older than this.
    pub since: Option<SystemTime>,
}

/// Hands every matching record of the log in `folder` to `found`, as the JSON text that stands there, the oldest first.
/// What cannot be read is passed over: `verify` finds it.
///
/// # Errors
/// When a file cannot be read at all.
pub fn matching(folder: &Path, wanted: &Wanted, mut found: impl FnMut(&str)) -> io::Result<()> {
    // All times have one length and one zone: they compare as texts.
    let since = wanted.since.map(|since| humantime::format_rfc3339_millis(since).to_string());
    for file in Folder::new(folder).files()? {
        for raw in lines(&file)? {
            let raw = raw?;
            let Some(line) = Line::parse(&raw.bytes) else { continue };
            let identity = line.entry.record.identity.as_deref();
            let fits =
                wanted.identity.as_deref().is_none_or(|end| identity.is_some_and(|id| id.ends_with(end)));
            if fits && since.as_ref().is_none_or(|since| line.entry.time >= *since) {
                found(line.body());
            }
        }
    }
    Ok(())
}
