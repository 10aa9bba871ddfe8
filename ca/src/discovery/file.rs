//! One resource file and what is in force of it, through every state a file can be in.
//!
//! Pure: what was seen and when are arguments. The rules: what cannot be read changes nothing; what takes objects away
//! (a removed file, a shorter one, one whose last line has no end) must stay so for a while first, because a file that
//! is just being written looks the same; everything else holds at once. A broken file denies what it meant to govern only
//! where nothing is known of the time before it. Knows not how files are found (`folder`).

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use douane_proto::resource::{Doubt, Resource, doubts, parse_file};

/// So long a removal must last before it counts.
pub(crate) const STABLE: Duration = Duration::from_millis(500);

/// What was found at the file's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Its whole text.
    Text(String),
    /// It is there and cannot be read; says why.
    Unreadable(String),
    /// It is not there.
    Missing,
}

/// A file and what is in force of it.
#[derive(Debug)]
pub(crate) struct ResourceFile {
    path: Arc<Path>,
    good: Option<Good>,
    errors: Vec<String>,
    /// What a broken file meant to govern; counts only while nothing good is known.
    doubts: Vec<Doubt>,
    pending: Option<Pending>,
}

#[derive(Debug, Default)]
struct Good {
    /// `None`: the file was not there, which is something known as well.
    text: Option<String>,
    resources: Vec<Resource>,
}

/// What is known of a file before it is read for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Past {
    /// Nothing: it was there when the first control plane started.
    Unknown,
    /// It was not there.
    Absent,
    /// It said this.
    Text(String),
}

#[derive(Debug)]
struct Pending {
    since: Instant,
    /// `None`: the file is gone.
    good: Option<Good>,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing that matters to others.
    Same,
    /// Its errors are other ones now, its objects are not.
    Errors,
    /// Its objects may be other ones now.
    Objects,
    /// It is gone for good.
    Gone,
}

impl ResourceFile {
    /// A file that was not read yet.
    pub(crate) fn new(path: Arc<Path>, past: Past) -> Self {
        let good = match past {
            Past::Unknown => None,
            Past::Absent => Some(Good::default()),
            // Another version may have kept it: then nothing is known.
            Past::Text(text) => {
                parse_file(&path, &text).ok().map(|resources| Good { text: Some(text), resources })
            }
        };
        Self { path, good, errors: Vec::new(), doubts: Vec::new(), pending: None }
    }

    /// Takes in what was seen at `now`.
    pub(crate) fn see(&mut self, seen: Seen, now: Instant) -> Outcome {
        match seen {
            Seen::Text(text) => self.read(text, now),
            Seen::Unreadable(why) => {
                self.pending = None;
                // Nobody knows whom a law in it governs.
                self.fail(vec![format!("{}: {why}", self.path.display())], vec![Doubt::default()])
            }
            Seen::Missing => {
                if self.pending.as_ref().is_none_or(|pending| pending.good.is_some()) {
                    self.pending = Some(Pending { since: now, good: None });
                }
                self.ripen(now)
            }
        }
    }

    /// Lets what waited long enough come into force.
    pub(crate) fn ripen(&mut self, now: Instant) -> Outcome {
        let Some(pending) = self.pending.take_if(|pending| now >= pending.since + STABLE) else {
            return Outcome::Same;
        };
        match pending.good {
            Some(good) => self.succeed(good),
            None => Outcome::Gone,
        }
    }

    /// When [`Self::ripen`] is worth calling.
    pub(crate) fn ripe_at(&self) -> Option<Instant> {
        self.pending.as_ref().map(|pending| pending.since + STABLE)
    }

    /// What is in force of it.
    pub(crate) fn resources(&self) -> &[Resource] {
        self.good.as_ref().map_or(&[], |good| &good.resources)
    }

    /// What its next reader should know of it.
    pub(crate) fn past(&self) -> Past {
        match &self.good {
            None => Past::Unknown,
            Some(Good { text: None, .. }) => Past::Absent,
            Some(Good { text: Some(text), .. }) => Past::Text(text.clone()),
        }
    }

    /// What is wrong with it now, with lines.
    pub(crate) fn errors(&self) -> &[String] {
        &self.errors
    }

    /// What must be denied because a law cannot be read and none of it was ever known.
    pub(crate) fn doubts(&self) -> &[Doubt] {
        if self.good.is_some() { &[] } else { &self.doubts }
    }

    fn read(&mut self, text: String, now: Instant) -> Outcome {
        if self.good.as_ref().is_some_and(|good| good.text.as_ref() == Some(&text)) {
            // Back to what is in force: whatever waited is void.
            self.pending = None;
            return self.clear_errors();
        }
        let resources = match parse_file(&self.path, &text) {
            Ok(resources) => resources,
            Err(errors) => {
                self.pending = None;
                let doubts = doubts(&self.path, &text);
                return self.fail(errors.iter().map(ToString::to_string).collect(), doubts);
            }
        };
        let fresh = Good { text: Some(text), resources };
        if !self.takes_away(&fresh) {
            return self.succeed(fresh);
        }
        if !self.pending.as_ref().is_some_and(|pending| pending.is_same(&fresh)) {
            self.pending = Some(Pending { since: now, good: Some(fresh) });
        }
        match self.ripen(now) {
            Outcome::Same => self.clear_errors(),
            ripe => ripe,
        }
    }

    fn succeed(&mut self, good: Good) -> Outcome {
        self.good = Some(good);
        self.pending = None;
        self.errors.clear();
        self.doubts.clear();
        Outcome::Objects
    }

    fn fail(&mut self, errors: Vec<String>, doubts: Vec<Doubt>) -> Outcome {
        if self.errors == errors && self.doubts == doubts {
            return Outcome::Same;
        }
        (self.errors, self.doubts) = (errors, doubts);
        Outcome::Errors
    }

    fn clear_errors(&mut self) -> Outcome {
        if self.errors.is_empty() {
            return Outcome::Same;
        }
        self.errors.clear();
        self.doubts.clear();
        Outcome::Errors
    }

    // A cut file may still be valid: it ends too early, or within its last line.
    fn takes_away(&self, fresh: &Good) -> bool {
        let Some(good) = &self.good else { return false };
        let is_cut = fresh.text.as_ref().is_some_and(|text| !text.ends_with('\n'));
        is_cut || !names(&good.resources).is_subset(&names(&fresh.resources))
    }
}

impl Pending {
    fn is_same(&self, fresh: &Good) -> bool {
        self.good.as_ref().is_some_and(|good| good.text == fresh.text)
    }
}

fn names(resources: &[Resource]) -> BTreeSet<(&str, &str, &str)> {
    let name = |resource: &Resource| resource.kind.name();
    resources.iter().map(|one| (name(one), &*one.metadata.namespace, &*one.metadata.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAW: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: orders, namespace: shop}
spec: {selector: {matchLabels: {app: orders}}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec: {}
";

    struct Seer {
        file: ResourceFile,
        start: Instant,
    }

    impl Seer {
        fn new(past: Past) -> Self {
            Self { file: ResourceFile::new(Path::new("law.yaml").into(), past), start: Instant::now() }
        }

        fn good() -> Self {
            let mut seer = Self::new(Past::Unknown);
            assert_eq!(seer.text(LAW, 0), Outcome::Objects);
            seer
        }

        fn text(&mut self, text: &str, at: u64) -> Outcome {
            self.file.see(Seen::Text(text.to_owned()), self.start + Duration::from_millis(at))
        }

        fn missing(&mut self, at: u64) -> Outcome {
            self.file.see(Seen::Missing, self.start + Duration::from_millis(at))
        }

        fn ripen(&mut self, at: u64) -> Outcome {
            self.file.ripen(self.start + Duration::from_millis(at))
        }
    }

    fn first_document() -> &'static str {
        LAW.split("---").next().unwrap()
    }

    #[test]
    fn an_edit_holds_at_once() {
        let mut seer = Seer::good();
        assert_eq!(seer.text(&LAW.replace("app: orders", "app: other"), 10), Outcome::Objects);
        assert_eq!(seer.file.resources().len(), 2);
        assert_eq!(seer.file.ripe_at(), None);
    }

    #[test]
    fn what_cannot_be_read_changes_nothing_but_is_said() {
        let unknown_kind = LAW.replace("kind: A", "kind: B");
        for broken in ["", "  \n", "[", "# nothing\n", &LAW[..LAW.len() - 8], &unknown_kind] {
            let mut seer = Seer::good();
            assert_eq!(seer.text(broken, 10), Outcome::Errors, "{broken:?}");
            assert_eq!(seer.text(broken, 20), Outcome::Same, "said once");
            assert!(seer.file.errors()[0].starts_with("law.yaml:"), "{:?}", seer.file.errors());
            assert_eq!(seer.ripen(10_000), Outcome::Same);
            assert_eq!((seer.file.resources().len(), seer.file.doubts().len()), (2, 0));
            assert_eq!(seer.text(LAW, 10_001), Outcome::Errors, "mended");
            assert!(seer.file.errors().is_empty());
        }
        let mut seer = Seer::good();
        assert_eq!(seer.file.see(Seen::Unreadable("denied".to_owned()), seer.start), Outcome::Errors);
        assert_eq!(seer.file.resources().len(), 2);
    }

    #[test]
    fn a_shorter_file_must_last() {
        let mut seer = Seer::good();
        assert_eq!(seer.text(first_document(), 10), Outcome::Same);
        assert_eq!(seer.file.resources().len(), 2);
        assert_eq!(seer.text(first_document(), 400), Outcome::Same, "still the same attempt");
        assert_eq!(seer.ripen(509), Outcome::Same);
        assert_eq!(seer.ripen(510), Outcome::Objects);
        assert_eq!(seer.file.resources().len(), 1);
    }

    #[test]
    fn a_file_that_was_only_being_written_takes_nothing_away() {
        let mut seer = Seer::good();
        assert_eq!(seer.text(first_document(), 10), Outcome::Same);
        assert_eq!(seer.text(LAW, 20), Outcome::Same);
        assert_eq!(seer.ripen(10_000), Outcome::Same);
        assert_eq!(seer.file.resources().len(), 2);
    }

    #[test]
    fn a_last_line_without_an_end_must_last() {
        let mut seer = Seer::good();
        let cut = LAW.replace("app: orders", "app: other");
        assert_eq!(seer.text(cut.trim_end(), 10), Outcome::Same);
        assert_eq!(seer.ripen(510), Outcome::Objects);
    }

    #[test]
    fn only_a_lasting_removal_removes() {
        let mut seer = Seer::good();
        assert_eq!(seer.missing(10), Outcome::Same);
        assert_eq!(seer.missing(300), Outcome::Same);
        assert_eq!(seer.text(LAW, 310), Outcome::Same, "an editor moved it away and back");
        assert_eq!(seer.missing(320), Outcome::Same);
        assert_eq!(seer.missing(819), Outcome::Same);
        assert_eq!(seer.missing(820), Outcome::Gone);
    }

    #[test]
    fn what_was_never_readable_is_in_doubt_and_sound_laws_beside_it_too() {
        let mut seer = Seer::new(Past::Unknown);
        let broken = LAW.replace("spec: {}", "spec: {actoin: DENY}");
        assert_eq!(seer.text(&broken, 0), Outcome::Errors);
        let names: Vec<_> = seer.file.doubts().iter().map(|doubt| doubt.name.as_deref().unwrap()).collect();
        assert_eq!(names, ["orders", "web"]);
        assert_eq!(seer.text(LAW, 10), Outcome::Objects);
        assert!(seer.file.doubts().is_empty());
        // An empty file may have been anything, and one that was cut to its first comment, too.
        for nothing in ["", " \n", "# The law of the shop.\n", "---\n"] {
            let mut empty = Seer::new(Past::Unknown);
            empty.text(nothing, 0);
            assert_eq!(empty.file.doubts(), [Doubt::default()], "{nothing:?}");
        }
    }

    #[test]
    fn a_broken_file_that_came_later_leaves_the_law_as_it_was() {
        let mut seer = Seer::new(Past::Absent);
        assert_eq!(seer.text("", 0), Outcome::Errors);
        assert!(seer.file.doubts().is_empty() && !seer.file.errors().is_empty());
        assert_eq!(seer.file.past(), Past::Absent, "and so it stays after a restart");
        assert_eq!(seer.text(LAW, 10), Outcome::Objects);
    }

    #[test]
    fn the_last_good_text_is_in_force_before_the_first_reading() {
        let mut seer = Seer::new(Past::Text(LAW.to_owned()));
        assert_eq!(seer.file.resources().len(), 2);
        assert_eq!(seer.text("[", 0), Outcome::Errors);
        assert_eq!((seer.file.resources().len(), seer.file.doubts().len()), (2, 0));
    }
}
